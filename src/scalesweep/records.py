"""What is written to disk about stages, as typed values; the files are in rundir.py.

A record is frozen, knows its own JSON form and refuses a file that it does not understand.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from scalesweep.errors import StoreError

SCHEMA = 1
"""Version of every record; a reader refuses a higher one."""


class StageKind(enum.StrEnum):
    """Kinds of stage, in the order in which a cell needs them."""

    data = "data"
    base = "base"
    align = "align"
    tune = "tune"
    generate = "generate"
    judge = "judge"


class Outcome(enum.StrEnum):
    """How an attempt ended, or that it has not."""

    running = "running"
    done = "done"
    failed = "failed"
    """An error of the stage itself: the same input would fail again."""
    interrupted = "interrupted"
    """Asked to stop; it left a checkpoint."""
    killed = "killed"
    """It vanished or was killed by a signal (memory, power, a user)."""


def canonical_json(value: object) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN. Hashes are taken of it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, kw_only=True, order=True)
class StageRef:
    """Names one stage in the store."""

    kind: StageKind
    key: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> StageRef:
        kind, _, key = text.partition("/")
        return cls(kind=StageKind(kind), key=key)


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """What a stage is. Everything here but the label determines its output, and its key."""

    kind: StageKind
    label: str
    """For people ("tune mini_s 32px lora"); not in the key."""
    recipe_version: int
    """Raised when the code of this kind changes what it computes."""
    identity: Mapping[str, Any]
    """JSON values only: model, data, recipe, seed. Its layout depends on the kind."""
    inputs: Mapping[str, StageRef] = field(default_factory=dict)
    """Role ("align", "bench") -> the stage whose output is read."""

    @property
    def key(self) -> str:
        """16 hex digits that change exactly when the output may change."""
        inputs = {role: str(ref) for role, ref in self.inputs.items()}
        text = canonical_json([self.kind, self.recipe_version, self.identity, inputs])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def ref(self) -> StageRef:
        return StageRef(kind=self.kind, key=self.key)

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": str(self.kind),
            "key": self.key,
            "label": self.label,
            "recipe_version": self.recipe_version,
            "identity": dict(self.identity),
            "inputs": {role: str(ref) for role, ref in sorted(self.inputs.items())},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StageSpec:
        check_schema(data, "stage.yaml")
        spec = cls(
            kind=StageKind(data["kind"]),
            label=data["label"],
            recipe_version=data["recipe_version"],
            identity=data["identity"],
            inputs={role: StageRef.parse(text) for role, text in data["inputs"].items()},
        )
        if spec.key != data["key"]:
            raise StoreError(
                f"stage.yaml says key {data['key']} but its content hashes to {spec.key}; "
                "it was edited by hand: delete the stage's directory and run the line again"
            )
        return spec


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What the planner expected of one run of a stage from its beginning to its end."""

    startup_s: float
    """Before the first sample is worked on."""
    work_s: float
    flops: float
    """Computed by all devices together, what is computed twice included."""
    device_bytes: float
    """Peak on the fullest device; 0 where it has none of its own (a CPU)."""
    host_bytes: float
    """Peak of one node's processes of this stage in its own memory."""
    node_hours: float
    """Of what is held, as Usage.node_hours."""
    usd: float
    """Of the node-hours."""
    judge_usd: float = 0.0
    """What judges are expected to be paid, besides."""
    basis: str = "declared"
    """Where the speed is from: "declared", or the measured runs of the store that it is taken
    from, for people."""

    @property
    def wall_s(self) -> float:
        """Seconds the devices are held."""
        return self.startup_s + self.work_s

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Predicted:
        return cls(**known_fields(cls, data))


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How and where a stage is run: changes cost and speed, never (but float ties) the result."""

    cluster: str
    device: str = ""
    """Name of its devices, as the cluster has it ("A100-80GB", "cpu"); empty where it names none,
    and in older records."""
    num_nodes: int = 1
    devices_per_node: int = 1
    """Devices (GPUs, or workers on a CPU machine) the stage takes on each of its nodes."""
    node_devices: int = 1
    """Devices a whole node has: the divisor that turns device-hours into node-hours."""
    usd_per_node_hour: float = 0.0
    """The price that counted when the attempt began."""
    price_is_example: bool = False
    prices: Mapping[str, float] = field(default_factory=dict)
    """The cluster's prices by name (cloud, own), dollars per node-hour; empty in older records."""
    micro_batch_size: int = 1
    """Samples per device and forward pass, where rows are padded; questions of a generate stage."""
    micro_batch_tokens: int = 0
    """Tokens per device and forward pass, where samples are packed; 0: they are not."""
    zero_stage: int = 0
    gradient_checkpointing: str = "none"
    """none | selective | full: which activations are computed again in the backward pass."""
    attention: str = "auto"
    """Kernel of attention over packed samples: auto | flash_attn | varlen | sdpa."""
    compile: bool = False
    """Element-wise parts of the language model run as compiled kernels."""
    checkpoint_every_steps: int = 50
    threads_per_rank: int = 1
    needs_gpu: bool = False
    """Its ranks must not fall back to the CPU where no GPU is seen."""
    cpus_per_rank: int = 1
    """Cores that a job asks for each rank."""
    held_devices: int | None = None
    """Devices held by it where that differs from its ranks: 0 without a GPU, all of a node that is
    its own; null: one a rank."""
    on_login: bool = False
    """On Slurm: waits for a command on the login node, where there is a network."""
    devices_per_replica: int = 1
    """Devices over which one copy of an answering model is split."""
    judge: Mapping[str, Any] = field(default_factory=dict)
    """How a judge is reached and what it costs (config/judge.py, JudgeConfig.execution)."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Where declared things lie on this machine: role -> absolute path."""
    study: str = ""
    """The study whose command began the attempt, and pays for it; empty in a plan, and in records
    from before it was written down."""
    predicted: Predicted | None = None
    """None where nothing could be said (an unnamed device), and in older records."""

    @property
    def world_size(self) -> int:
        return self.num_nodes * self.devices_per_node

    @property
    def num_held_devices(self) -> int:
        """What it is charged for."""
        return self.world_size if self.held_devices is None else self.held_devices

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Execution:
        check_schema(data, "execution.json")
        fields = known_fields(cls, data)
        if fields.get("predicted") is not None:
            fields["predicted"] = Predicted.from_json(fields["predicted"])
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one attempt used. Rewritten every few seconds while it runs, so a kill loses little."""

    outcome: Outcome
    cause: str = ""
    """One line for people when it did not end well."""
    failure: str = ""
    """Class of a bad end (launch/failures.py), where a supervisor judged it."""
    started_at: float = 0.0
    """Seconds since 1970 where it ran; for people, never compared with another clock."""
    wall_s: float = 0.0
    """Seconds the devices were held, start-up included."""
    startup_s: float = 0.0
    """Part of wall_s before the first sample was worked on."""
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    """Highest resident memory of one rank."""
    peak_device_bytes: int = 0
    """Highest memory that a rank's tensors took on its device; 0 where that is the CPU."""
    num_devices: int = 1
    """Devices held."""
    node_devices: int = 1
    usd_per_node_hour: float = 0.0
    steps: int = 0
    """Optimizer steps this attempt did (not those it resumed from)."""
    tokens: int = 0
    first_step: int = 0
    """Step it resumed from."""

    @property
    def node_hours(self) -> float:
        """Allocated devices / devices of a node x hours: the paper's "GPU hours per node"."""
        return self.num_devices / self.node_devices * self.wall_s / 3600

    @property
    def cost_usd(self) -> float:
        return self.node_hours * self.usd_per_node_hour

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **dataclasses.asdict(self), "outcome": str(self.outcome)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Usage:
        check_schema(data, "usage.json")
        fields = known_fields(cls, data)
        return cls(**{**fields, "outcome": Outcome(fields["outcome"])})


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How long the steps and saves of an attempt took; what its successors plan by."""

    longest_save_s: float = 0.0
    """From the end of a step until the checkpoint of it was durable and complete."""
    longest_step_s: float = 0.0

    @property
    def lead_s(self) -> float:
        """Seconds before the end in which a stage must hear of it; 0 when nothing was saved yet.

        It may hear at the beginning of a step, and saves then; what took so long once may take
        twice as long on a busy file system.
        """
        return 2 * self.longest_save_s + self.longest_step_s if self.longest_save_s else 0.0

    def longest(self, other: Measured) -> Measured:
        return Measured(
            longest_save_s=max(self.longest_save_s, other.longest_save_s),
            longest_step_s=max(self.longest_step_s, other.longest_step_s),
        )

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Measured:
        check_schema(data, "measured.json")
        return cls(**known_fields(cls, data))


@dataclass(frozen=True, kw_only=True)
class WorkDone:
    """What one attempt worked through, over all its ranks: what its speed is measured by, and what
    its data are like (tokens of a sample). Padding, and what an earlier attempt did, left out."""

    units: int = 0
    """Optimizer steps, or questions answered."""
    samples: int = 0
    """Conversations trained on, or questions."""
    tokens: int = 0
    """Of the sequences, image tokens included; of a question, its prompt."""
    squared_lengths: int = 0
    """Sum over sequences: what attention's work grows with."""
    supervised: int = 0
    """Tokens that have a loss."""
    pictures: int = 0
    generated: int = 0
    """Tokens of answers."""
    device: str = ""
    """What it ran on, as the driver or the system calls it."""

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkDone:
        check_schema(data, "work.json")
        return cls(**known_fields(cls, data))


@dataclass(frozen=True, kw_only=True)
class SlurmRun:
    """One run of one Slurm job; a job that is requeued runs again under the same id."""

    cluster: str
    """Slurm's ClusterName."""
    job_id: int
    """Unique among elements of arrays too (sacct's JobIDRaw)."""
    array_job_id: int
    array_index: int
    name: str
    """Of the job, and of its submission; unique."""
    restarts: int = 0
    """How often it was requeued before this run (SLURM_RESTART_COUNT)."""

    @property
    def element(self) -> str:
        """As squeue and scancel name it: 12_3."""
        return f"{self.array_job_id}_{self.array_index}"

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SlurmRun:
        return cls(**known_fields(cls, data))


@dataclass(frozen=True, kw_only=True)
class OutputFile:
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """Published once, when a stage's output is whole; immutable."""

    attempt: int
    files: Mapping[str, OutputFile]
    """Path below output/ -> size and hash."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role -> digest of the parent's output that was read."""

    @cached_property
    def digest(self) -> str:
        """Hash over all output files; equal exactly when the bytes are equal."""
        files = {name: file.sha256 for name, file in self.files.items()}
        return hashlib.sha256(canonical_json(files).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **dataclasses.asdict(self), "digest": self.digest}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Done:
        check_schema(data, "done.json")
        files = {name: OutputFile(**file) for name, file in data["files"].items()}
        return cls(attempt=data["attempt"], files=files, inputs=data["inputs"])


def known_fields(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    """The part of data that cls has fields for; a newer minor writer may have added some."""
    names = {f.name for f in dataclasses.fields(cls)}
    return {name: value for name, value in data.items() if name in names}


def check_schema(data: Mapping[str, Any], name: str) -> None:
    """Refuse a record that this version cannot understand."""
    schema = data.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StoreError(
            f"{name} has schema {schema!r}; this version of scalesweep reads up to {SCHEMA}: "
            "use the version that wrote this store, or another store"
        )
