"""Where stages run and what an hour of it costs (conf/cluster/)."""

from __future__ import annotations

from dataclasses import dataclass

from scalesweep.config.checks import at_least, not_negative, one_of, require


@dataclass(kw_only=True)
class ClusterConfig:
    """A cluster, or this machine. Nothing here is part of a key."""

    name: str = "auto"
    kind: str = "auto"
    """auto: Slurm where sbatch answers, else local | local | slurm."""
    device: str | None = None
    """Name of the device ("A100-80GB"), or cpu."""
    device_memory_gb: float | None = None
    """Memory of one device in GB (1e9 bytes); null: not declared."""
    devices_per_node: int | None = None
    """Devices of a whole node; local: workers, null: one per core or GPU."""
    stage_devices: int | None = None
    """Devices a training stage takes on each of its nodes; null: all."""
    usd_per_node_hour: float | None = None
    """Price of a whole node for an hour."""
    price_is_example: bool | None = None
    """The price is not anyone's offer; reports repeat it."""
    free: bool | None = None
    """Says that a price of zero is meant."""
    threads_per_rank: int | None = None
    """CPU threads of one rank; the miniature is exact with 1."""
    checkpoint_every_steps: int | None = None
    """Optimizer steps between checkpoints."""
    max_tries: int | None = None
    """Attempts in one run of a stage that was killed from outside."""
    partition: str | None = None
    account: str | None = None
    source: str | None = None
    """Where the price comes from."""

    def __post_init__(self) -> None:
        one_of("cluster.kind", self.kind, ("auto", "local", "slurm"))
        for name in (
            "devices_per_node",
            "stage_devices",
            "threads_per_rank",
            "checkpoint_every_steps",
            "max_tries",
        ):
            at_least(1, value=(f"cluster.{name}", getattr(self, name)))
        not_negative("cluster.usd_per_node_hour", self.usd_per_node_hour)
        require(
            self.usd_per_node_hour != 0 or self.free is True,
            "cluster.usd_per_node_hour",
            self.usd_per_node_hour,
            "zero would make every cost zero; give the price, or say cluster.free=true",
        )
