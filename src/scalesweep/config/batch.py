"""How one optimizer step is divided (conf/batch/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import at_least
from scalesweep.errors import ConfigError


@dataclass(kw_only=True)
class BatchConfig:
    """A sample is one conversation with its picture."""

    global_batch_size: int
    """Samples per optimizer step, over all devices and accumulation steps."""
    micro_batch_size: int
    """Samples per device per forward pass; bounded by device memory. Not part of the key."""
    max_seq_len: int
    """Tokens of a sample, image tokens included."""

    def __post_init__(self) -> None:
        for name in ("global_batch_size", "micro_batch_size", "max_seq_len"):
            at_least(1, value=(f"batch.{name}", getattr(self, name)))


def gradient_accumulation_steps(
    *, global_batch_size: int, micro_batch_size: int, data_parallel_size: int, prefix: str = "batch"
) -> int:
    """Micro-batches each device runs before one optimizer step.

    Raises:
        ConfigError: the global batch does not divide evenly. Rounding would train at another
            batch size than the one reported.
    """
    samples_per_pass = micro_batch_size * data_parallel_size
    if samples_per_pass >= global_batch_size and global_batch_size % data_parallel_size == 0:
        return 1  # one pass, with less than a full micro-batch on every device
    steps, remainder = divmod(global_batch_size, samples_per_pass)
    if remainder:
        raise ConfigError(
            f"{prefix}.global_batch_size={global_batch_size}: must be a multiple of "
            f"{samples_per_pass} ({prefix}.micro_batch_size={micro_batch_size} x "
            f"{data_parallel_size} devices); the next that fits is "
            f"{(steps + 1) * samples_per_pass}"
        )
    return steps
