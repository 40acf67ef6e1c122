"""Where stages run and what an hour of it costs (conf/cluster/)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from scalesweep.config.checks import at_least, not_negative, one_of, positive, require, shown
from scalesweep.errors import ConfigError

KINDS = ("data", "base", "align", "tune", "generate", "judge")
SECRET = re.compile(r"key|token|secret|passw|credential|auth", re.IGNORECASE)
"""What a name of an environment variable that holds a secret looks like."""
OURS = (
    "array",
    "chdir",
    "cpus-per-task",
    "dependency",
    "error",
    "export",
    "gres",
    "job-name",
    "kill-on-invalid-dep",
    "nodes",
    "no-requeue",
    "ntasks",
    "ntasks-per-node",
    "open-mode",
    "output",
    "requeue",
    "signal",
    "test-only",
    "wait",
    "wrap",
)
"""Options of sbatch that submission needs for itself."""


@dataclass(kw_only=True)
class StageJobConfig:
    """What jobs of one kind of stage ask for instead of what the cluster says; null: the same."""

    devices: int | None = None
    """Devices on each node; 0: none, for stages that only read and write."""
    cpus: int | None = None
    """Cores of a task."""
    memory_gb: float | None = None
    timeout_min: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None


@dataclass(kw_only=True)
class PricesConfig:
    """What a whole node costs for an hour, dollars; null: not known."""

    cloud: float | None = None
    """To rent."""
    own: float | None = None
    """Where the nodes are yours: power, room, people, and their price over their years."""


PRICES = ("cloud", "own")


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
    prices: PricesConfig = field(default_factory=PricesConfig)
    """All are recorded with each attempt, so that a report can take another (report --price)."""
    price: str | None = None
    """Which of the prices counts: cloud | own; null: cloud, or else usd_per_node_hour where set."""
    usd_per_node_hour: float | None = None
    """A price without a name, which counts instead of cloud; not beside a chosen price."""
    price_is_example: bool | None = None
    """prices.cloud is not anyone's offer; where it counts, reports repeat it."""
    free: bool | None = None
    """Says that a price of zero is meant."""
    threads_per_rank: int | None = None
    """CPU threads of one rank; the miniature is exact with 1."""
    checkpoint_every_steps: int | None = None
    """Optimizer steps between checkpoints."""
    max_tries: int | None = None
    """Attempts of a stage that make no progress, where another try can help."""
    source: str | None = None
    """Where the price comes from."""

    # What follows is for Slurm.
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    """Name of a device in Slurm ("gpu", "gpu:a100"); null: none is asked for."""
    cpus_per_device: int | None = None
    """Cores of each task; there is one task for each device."""
    memory_gb: float | None = None
    """Host memory on each node; 0: all of it, null: the site's default."""
    exclusive: bool | None = None
    """Whole nodes, which are then paid for whole."""
    timeout_min: int | None = None
    """Time limit of one run of a job, minutes. A stage that needs longer goes on in the next."""
    signal_lead_s: int | None = None
    """Seconds before the time limit at which a stage is told to write a checkpoint."""
    array_parallelism: int | None = None
    """Elements of one job array that run at the same time."""
    sbatch: list[str] | None = None
    """Further options, as on sbatch's command line ("--reservation=study")."""
    preamble: str | None = None
    """File that every job sources first (modules, paths)."""
    export: list[str] | None = None
    """Names of environment variables that jobs get besides the usual harmless ones."""
    env: dict[str, str] | None = None
    """Environment variables set in every job (NCCL_SOCKET_IFNAME: ib0)."""
    parents_wait_s: int | None = None
    """How long a stage that starts waits to see its inputs on a slow shared file system."""
    storage_wait_min: int | None = None
    """How long a job waits for a file system that is full or read-only before it gives up."""
    silent_s: int | None = None
    """Seconds without a sign of life after which ranks are taken for dead."""
    stages: dict[str, StageJobConfig] | None = field(default=None)
    """Kind of stage -> what its jobs ask for instead."""

    def __post_init__(self) -> None:
        one_of("cluster.kind", self.kind, ("auto", "local", "slurm"))
        for name in (
            "devices_per_node",
            "stage_devices",
            "threads_per_rank",
            "checkpoint_every_steps",
            "max_tries",
            "cpus_per_device",
            "timeout_min",
            "array_parallelism",
        ):
            at_least(1, value=(f"cluster.{name}", getattr(self, name)))
        at_least(10, value=("cluster.silent_s", self.silent_s))
        at_least(10, value=("cluster.signal_lead_s", self.signal_lead_s))
        for name in ("parents_wait_s", "storage_wait_min"):
            at_least(0, value=(f"cluster.{name}", getattr(self, name)))
        positive("cluster.device_memory_gb", self.device_memory_gb)
        not_negative("cluster.memory_gb", self.memory_gb)
        self._check_prices()
        if self.stage_devices is not None and self.devices_per_node is not None:
            require(
                self.stage_devices <= self.devices_per_node,
                "cluster.stage_devices",
                self.stage_devices,
                f"a node has cluster.devices_per_node={self.devices_per_node}",
            )
        self._check_slurm()

    @property
    def named_prices(self) -> dict[str, float]:
        """Those that are known."""
        prices = {name: getattr(self.prices, name) for name in PRICES}
        return {name: value for name, value in prices.items() if value is not None}

    @property
    def counted_usd_per_node_hour(self) -> float | None:
        """The price that counts; None where there is none."""
        if self.usd_per_node_hour is not None:
            return self.usd_per_node_hour
        return self.named_prices.get(self.price or "cloud")

    @property
    def counts_example(self) -> bool:
        """The price that counts is not anyone's offer."""
        is_cloud = self.usd_per_node_hour is None and self.price != "own"
        return bool(self.price_is_example) and is_cloud

    def _check_prices(self) -> None:
        given = {f"prices.{name}": value for name, value in self.named_prices.items()}
        for name, value in {**given, "usd_per_node_hour": self.usd_per_node_hour}.items():
            not_negative(f"cluster.{name}", value)
            require(
                value != 0 or self.free is True,
                f"cluster.{name}",
                value,
                "zero would make every cost zero; give the price, or say cluster.free=true",
            )
        if self.price is not None:
            one_of("cluster.price", self.price, PRICES)
            require(
                self.usd_per_node_hour is None,
                "cluster.price",
                self.price,
                f"cluster.usd_per_node_hour={shown(self.usd_per_node_hour)} is set too, and one "
                "price counts; set either to null",
            )
            require(
                self.price in self.named_prices,
                "cluster.price",
                self.price,
                f"there is no such price; give it, dollars per node-hour, as "
                f"cluster.prices.{self.price}=...",
            )
        if counted := self.counted_usd_per_node_hour:
            require(
                self.free is not True,
                "cluster.free",
                self.free,
                f"a node-hour has a price, ${counted:g}, and it counts; leave cluster.free out, or "
                "set cluster.usd_per_node_hour=0 too",
            )

    def _check_slurm(self) -> None:
        if self.timeout_min is not None and self.signal_lead_s is not None:
            require(
                self.signal_lead_s < 60 * self.timeout_min,
                "cluster.signal_lead_s",
                self.signal_lead_s,
                f"the whole time limit is cluster.timeout_min={self.timeout_min} min",
            )
        for option in self.sbatch or ():
            name = option.lstrip("-").partition("=")[0].strip()
            if re.fullmatch(r"--[a-z][a-z0-9-]*(=.*)?", option) is None:
                raise ConfigError(f"cluster.sbatch={option}: write it as --option=value")
            if name in OURS:
                raise ConfigError(
                    f"cluster.sbatch={option}: the submission sets --{name} itself; leave it out"
                )
        for key, name in [
            *(("cluster.export", name) for name in self.export or ()),
            *(("cluster.env", name) for name in self.env or ()),
        ]:
            require(
                re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None,
                key,
                name,
                "not a name of an environment variable",
            )
            if SECRET.search(name):
                raise ConfigError(
                    f"{key}={name}: Slurm keeps the environment of jobs in files and "
                    "databases that others read; let cluster.preamble read it from a file that "
                    "only you can read"
                )
        for kind, stage in (self.stages or {}).items():
            one_of("cluster.stages", kind, KINDS)
            least = 0 if kind in ("data", "judge") else 1
            at_least(least, value=(f"cluster.stages.{kind}.devices", stage.devices))
            for name in ("cpus", "timeout_min"):
                at_least(1, value=(f"cluster.stages.{kind}.{name}", getattr(stage, name)))
            not_negative(f"cluster.stages.{kind}.memory_gb", stage.memory_gb)

    def stage(self, kind: str) -> StageJobConfig:
        """What the cluster says of one kind of stage."""
        return (self.stages or {}).get(kind) or StageJobConfig()
