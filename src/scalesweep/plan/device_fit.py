"""Whether a training stage fits its devices; if not, the nearest setting that does. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from scalesweep.cost_model.stage_memory import StageMemory, training_memory
from scalesweep.cost_model.stage_work import TRAINING
from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.records import Execution, StageKind
from scalesweep.specs import LoraSpec, Method, TrainingSpec

MOST_NODES = 16
"""Beyond which more nodes are no longer a near setting."""
# Where full training is exchanged for adapters: conf/lora/all_linear.yaml.
ALL_LINEAR = LoraSpec(
    rank=64,
    alpha=128.0,
    dropout=0.05,
    targets=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A training stage on devices of a size."""

    memory: StageMemory
    device_memory_bytes: float
    nearest: tuple[str, ...] = ()
    """Overrides that make it fit, as few as will do; none where it fits, or nothing does."""

    @property
    def fits(self) -> bool:
        return self.memory.device_bytes <= self.device_memory_bytes

    @property
    def description(self) -> str:
        """For people: what is needed of what there is, and the way out."""
        need, have = self.memory.device_bytes / 1e9, self.device_memory_bytes / 1e9
        if self.fits:
            return f"fits: {need:.0f} of {have:.0f} GB"
        largest = sorted(self.memory.parts.items(), key=lambda part: -part[1])[:3]
        why = ", ".join(f"{name} {size / 1e9:.0f}" for name, size in largest)
        way = " ".join(self.nearest) or "no setting of this study's cluster; take larger devices"
        return f"does not fit: {need:.0f} of {have:.0f} GB ({why}); nearest that fits: {way}"


def fit(stage: PlannedStage, *, device_memory_bytes: float) -> Fit | None:
    """Of a training stage; None of another, which the planner has divided so that it fits."""
    if stage.spec.kind not in TRAINING:
        return None
    spec = TrainingSpec.from_identity(stage.spec.identity)
    memory = training_memory(spec, stage.execution)
    if memory.device_bytes <= device_memory_bytes:
        return Fit(memory=memory, device_memory_bytes=device_memory_bytes)
    return Fit(
        memory=memory,
        device_memory_bytes=device_memory_bytes,
        nearest=nearest(
            stage.spec.kind, spec, stage.execution, device_memory_bytes=device_memory_bytes
        ),
    )


def nearest(
    kind: StageKind, spec: TrainingSpec, execution: Execution, *, device_memory_bytes: float
) -> tuple[str, ...]:
    """Overrides that make a stage fit; () where none of those tried does.

    First what changes neither result nor price much (ZeRO, recomputation, the micro-batch), then
    more nodes, then another method.
    """
    for words, tried, how in _settings(kind, spec, execution):
        if training_memory(tried, how).device_bytes <= device_memory_bytes:
            return words
    return ()


Setting = tuple[tuple[str, ...], TrainingSpec, Execution]


def _settings(kind: StageKind, spec: TrainingSpec, execution: Execution) -> Iterator[Setting]:
    """From the nearest on."""
    methods: list[Setting] = [((), spec, execution)]
    if kind is StageKind.tune:
        methods += _other_methods(spec, execution)
    for method in methods:
        for by_nodes in _more_nodes(kind, method):
            sharded = list(_more_sharded(kind, by_nodes))
            yield from sharded
            for one in sharded:
                yield from _smaller(kind, _recomputed(one))


def _prefix(kind: StageKind, spec: TrainingSpec) -> str:
    """Of the configuration of a kind's nodes."""
    if kind is StageKind.base:
        return f"base.{'tower' if spec.method is Method.tower else 'language'}."
    return "" if kind is StageKind.tune else f"{kind}."


def _other_methods(spec: TrainingSpec, execution: Execution) -> list[Setting]:
    found: list[Setting] = []
    lora = spec.lora or ALL_LINEAR
    if spec.method is Method.full:
        tried = replace(spec, method=Method.lora, lora=lora)
        found.append((("tuning=lora",), tried, execution))
    if spec.method in (Method.full, Method.lora):
        tried = replace(spec, method=Method.qlora, lora=lora)
        how = replace(execution, zero_stage=min(execution.zero_stage, 2))
        words = ("tuning=qlora", "zero.stage=2") if execution.zero_stage == 3 else ("tuning=qlora",)
        found.append((words, tried, how))
    return found


def _more_nodes(kind: StageKind, setting: Setting) -> Iterator[Setting]:
    words, spec, execution = setting
    yield setting
    nodes = execution.num_nodes
    if execution.zero_stage == 0:
        return
    while (nodes := 2 * nodes) <= MOST_NODES:
        if spec.global_batch_size % (nodes * execution.devices_per_node):
            return
        how = replace(execution, num_nodes=nodes)
        yield (*words, f"{_prefix(kind, spec)}nodes={nodes}"), spec, how


def _more_sharded(kind: StageKind, setting: Setting) -> Iterator[Setting]:
    words, spec, execution = setting
    yield setting
    key = "zero.stage" if kind is StageKind.tune else f"{_prefix(kind, spec)}zero_stage"
    highest = 2 if spec.method is Method.qlora else 3
    for stage in range(execution.zero_stage + 1, highest + 1):
        yield (*words, f"{key}={stage}"), spec, replace(execution, zero_stage=stage)


def _recomputed(setting: Setting) -> Setting:
    words, spec, execution = setting
    if execution.gradient_checkpointing == "full" or spec.method is Method.tower:
        return setting
    how = replace(execution, gradient_checkpointing="full")
    return (*words, "zero.gradient_checkpointing=full"), spec, how


def _smaller(kind: StageKind, setting: Setting) -> Iterator[Setting]:
    """The micro-batch halved again and again, down to the longest sample."""
    words, spec, execution = setting
    yield setting
    prefix = "batch." if kind is StageKind.tune else _prefix(kind, spec)
    name = "micro_batch_tokens" if execution.micro_batch_tokens else "micro_batch_size"
    least = spec.max_seq_len if execution.micro_batch_tokens else 1
    size = getattr(execution, name)
    while size > least:
        size = max(least, size // 2)
        how = replace(execution, **{name: size})
        yield (*words, f"{prefix}{name}={size}"), spec, how


def device_memory_bytes(cell: Cell) -> float | None:
    """Of one device of a cell's cluster, where it says."""
    size = cell.config.get("cluster", {}).get("device_memory_gb")
    return None if size is None else float(size) * 1e9


def cell_fits(plan: Plan) -> Mapping[str, str]:
    """Cell name -> for people, of its training stage that needs most; only where memory is known.

    A cell that cannot be run is told here, never refused: the rest is worth seeing.
    """
    stages = {stage.ref: stage for stage in plan.stages}
    known: dict[object, Fit | None] = {}
    found = {}
    for cell in plan.cells:
        size = device_memory_bytes(cell)
        if size is None:
            continue
        fits = []
        for ref in cell.stages.values():
            # One prediction stands for all stages that do the same in the same way.
            predicted = stages[ref].execution.predicted
            same = ref if predicted is None else id(predicted)
            if same not in known:
                known[same] = fit(stages[ref], device_memory_bytes=size)
            if (one := known[same]) is not None:
                fits.append((one.memory.device_bytes, ref.kind, one))
        if fits:
            _, kind, worst = max(fits, key=lambda entry: entry[0])
            found[cell.name] = f"{kind} {worst.description}"
    return found
