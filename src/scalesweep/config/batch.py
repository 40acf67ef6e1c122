"""How one optimizer step is divided (conf/batch/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import at_least, exactly_one, require
from scalesweep.errors import ConfigError


@dataclass(kw_only=True)
class BatchConfig:
    """A sample is one conversation with its picture."""

    global_batch_size: int
    """Samples per optimizer step, over all devices and accumulation steps."""
    micro_batch_size: int | None
    """Samples per device per forward pass, as padded rows; bounded by device memory."""
    micro_batch_tokens: int | None
    """Tokens per device per forward pass, samples packed behind one another without padding.
    Exactly one of the two is set; neither is part of the key."""
    max_seq_len: int
    """Tokens of a sample, image tokens included."""

    def __post_init__(self) -> None:
        at_least(1, value=("batch.global_batch_size", self.global_batch_size))
        check_micro_batch("batch", self.micro_batch_size, self.micro_batch_tokens, self.max_seq_len)


def check_micro_batch(prefix: str, size: int | None, tokens: int | None, max_seq_len: int) -> None:
    """Refuse a micro-batch that is neither rows nor packs, or that the longest sample overflows.

    Raises:
        ConfigError: as said.
    """
    at_least(
        1, rows=(f"{prefix}.micro_batch_size", size), most=(f"{prefix}.max_seq_len", max_seq_len)
    )
    exactly_one(
        rows=(f"{prefix}.micro_batch_size", size), packs=(f"{prefix}.micro_batch_tokens", tokens)
    )
    require(
        tokens is None or tokens >= max_seq_len,
        f"{prefix}.micro_batch_tokens",
        tokens,
        f"a sample may have {prefix}.max_seq_len={max_seq_len} tokens; take at least as many",
    )


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
