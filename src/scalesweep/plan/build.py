"""From the configs of all cells to a plan: stages that are equal become one."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from scalesweep.config.evaluation import BenchmarkConfig
from scalesweep.config.run import RunConfig
from scalesweep.errors import PlanError
from scalesweep.models.hub import weights_path
from scalesweep.models.parameters import num_params, num_trainable_params
from scalesweep.plan import identity
from scalesweep.plan.checkpoint import Checkpoint
from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.plan.resources import stage_execution
from scalesweep.records import StageKind, StageRef, StageSpec
from scalesweep.specs import (
    DataSpec,
    GenerateSpec,
    JudgeSpec,
    LanguageModelSpec,
    TrainingSpec,
    VisionTowerSpec,
)


@dataclass(frozen=True, kw_only=True)
class CellRequest:
    """One composed combination: what varies, and the config that came of it."""

    point: Mapping[str, Any]
    """Override key -> value, only of what varies in the study."""
    config: RunConfig


R = TypeVar("R")


class _Once:
    """Calls each function once for the same arguments; what it returns is shared, never changed.

    Arguments are told apart by identity, and cells share the groups of settings they have in
    common. A function sees nothing but its arguments, so nothing can be forgotten.
    """

    def __init__(self) -> None:
        self._results: dict[tuple[object, ...], tuple[tuple[object, ...], Any]] = {}

    def __call__(self, function: Callable[..., R], *arguments: object) -> R:
        call = (function, *map(_identity, arguments))
        known = self._results.get(call)
        if known is None:  # the arguments are held, so that an identity is never used twice
            known = self._results[call] = arguments, function(*arguments)
        result: R = known[1]
        return result


def _identity(value: object) -> object:
    plain = value is None or isinstance(value, str | bool | int | float)
    return (type(value), value) if plain else id(value)


@dataclass
class _Graph:
    """Stages found so far, by reference, in the order in which they can run."""

    stages: dict[StageRef, PlannedStage] = field(default_factory=dict)
    once: _Once = field(default_factory=_Once)
    known: dict[tuple[object, ...], StageRef] = field(default_factory=dict)
    """Kind, identity (which self.once holds) and inputs -> reference."""

    def add(self, stage: PlannedStage) -> StageRef:
        return self.stages.setdefault(stage.ref, stage).ref


def build_plan(
    requests: Sequence[CellRequest],
    *,
    study: str | None,
    question: str = "",
    command: str = "",
    notes: Sequence[str] = (),
    checkpoint: Checkpoint | None = None,
) -> Plan:
    """The graph of stages that all cells need, each stage once.

    study: name; None makes one of the cells, the same for the same cells.
    checkpoint: all cells ask this one, and make nothing themselves.

    Raises:
        PlanError: there are no cells, or two of them are the same.
    """
    if not requests:
        raise PlanError("no cells: the sweep's grids and the command line leave nothing to run")
    graph = _Graph()
    if checkpoint is not None:
        for stage in checkpoint.stages:
            graph.add(stage)
    cells: list[Cell] = []
    for request, name in zip(requests, cell_names(requests, checkpoint), strict=True):
        stages = _cell_stages(graph, request, checkpoint)
        cells.append(_cell(name, request, stages, graph.once, checkpoint))
    return Plan(
        study=study or study_name(cells, "study" if checkpoint is None else "evaluate"),
        cells=tuple(cells),
        stages=tuple(graph.stages.values()),
        question=question,
        command=command,
        notes=tuple(notes),
    )


def study_name(cells: Sequence[Cell], prefix: str = "study") -> str:
    """A name that depends only on what the cells are."""
    keys = sorted(str(ref) for cell in cells for ref in cell.stages.values())
    return f"{prefix}-" + hashlib.sha256("\n".join(keys).encode()).hexdigest()[:8]


def cell_names(requests: Sequence[CellRequest], checkpoint: Checkpoint | None = None) -> list[str]:
    """Names of cells: model, resolution, mix and tuning (or the checkpoint), then what else tells
    them apart."""
    always = ("model", "resolution", "data_mix", "tuning")
    names = []
    for request in requests:
        config, point = request.config, request.point
        parts = [config.model.name, config.resolution.name, config.data_mix.name]
        parts.append(config.tuning.method)
        if checkpoint is not None:
            parts = [checkpoint.name]
        parts += [_short(key, value) for key, value in point.items() if key not in always]
        names.append("-".join(part for part in parts if part))
    count = Counter(names)
    if len(count) < len(names):  # cells that differ only in what is rarely varied
        names = [f"{name}-{i + 1}" if count[name] > 1 else name for i, name in enumerate(names)]
    return names


_ABSOLUTE = re.compile(r"(\w+:)?[~/]")


def _short(key: str, value: Any) -> str:
    """ "lora.rank", 8 -> "rank8"; "resolution.blind", true -> "blind".

    Of an absolute path the last name: names are seen by all who read a report.
    """
    word = key.rpartition(".")[2].lstrip("+~")
    if value is False or value is None:
        return f"no_{word}" if value is False else ""
    text = "" if value is True else f"{value:g}" if isinstance(value, float) else str(value)
    if _ABSOLUTE.match(text):
        text = text.rstrip("/").rpartition("/")[2]
    return "".join(c if c.isalnum() or c in "._" else "_" for c in f"{word}{text}")


def _cell(
    name: str,
    request: CellRequest,
    stages: Mapping[str, StageRef],
    once: _Once,
    checkpoint: Checkpoint | None,
) -> Cell:
    config = request.config
    model = once(identity.model_spec, config.model)
    tower = once(identity.tower_spec, config.resolution)
    if checkpoint is None:
        trained = once(num_trainable_params, _tune(once, config, model, tower))
        whole = once(num_params, model, tower)
    else:
        made = checkpoint.training
        trained = 0 if made is None else num_trainable_params(made)
        whole = num_params(checkpoint.model, checkpoint.tower)
    return Cell(
        name=name,
        point=dict(request.point),
        config={key: once(_plain, value) for key, value in vars(config).items()},
        stages=stages,
        num_trainable_params=trained,
        num_params=whole,
        num_nodes=config.nodes,
    )


def _plain(value: Any) -> Any:
    """A config's part as plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _tune(
    once: _Once, config: RunConfig, model: LanguageModelSpec, tower: VisionTowerSpec
) -> TrainingSpec:
    """Stage 2 of a cell, but for its seed and what a study varies of how it is run."""
    return once(
        identity.tune,
        model,
        tower,
        config.resolution.blind,
        config.data_mix,
        config.model.template,
        config.optim,
        config.batch,
        config.lora,
        config.tuning.method,
        config.precision,
    )


def execution_axis(point: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a study varies of how its tune stages are run; None when it varies none."""
    varied = {key: value for key, value in point.items() if key in EXECUTION_KEYS}
    return varied or None


EXECUTION_KEYS = (
    "nodes",
    "zero.stage",
    "zero.gradient_checkpointing",
    "kernels.attention",
    "kernels.compile",
    "batch.micro_batch_size",
    "batch.micro_batch_tokens",
)
"""Settings of a cell that are no part of the tune stage's key unless they are an axis."""


def _cell_stages(
    graph: _Graph, request: CellRequest, checkpoint: Checkpoint | None
) -> dict[str, StageRef]:
    """Adds the stages of one cell; role -> reference."""
    config = request.config
    builder = _CellBuilder(graph=graph, config=config, point=request.point, checkpoint=checkpoint)
    if checkpoint is not None:
        builder.generate_of(checkpoint)
        if config.until == "judge":
            builder.judge()
        return {**checkpoint.roles, **builder.roles}
    builder.bases()
    for step in ("align", "tune", "generate", "judge"):
        if _ORDER[step] <= _ORDER[config.until]:
            getattr(builder, step)()
    return builder.roles


_ORDER = {"base": 0, "align": 1, "tune": 2, "generate": 3, "judge": 4}


@dataclass
class _CellBuilder:
    graph: _Graph
    config: RunConfig
    point: Mapping[str, Any]
    checkpoint: Checkpoint | None = None
    roles: dict[str, StageRef] = field(default_factory=dict)
    model: LanguageModelSpec = field(init=False)
    tower: VisionTowerSpec = field(init=False)

    def __post_init__(self) -> None:
        self.once = self.graph.once
        self.model = self.once(identity.model_spec, self.config.model)
        self.tower = self.once(identity.tower_spec, self.config.resolution)

    def dataset(self, name: str) -> StageRef:
        role = f"data:{name}"
        if role not in self.roles:
            spec = self.once(identity.dataset, name, self.config.datasets[name])
            self.roles[role] = self._add(StageKind.data, f"data {name}", self._of(spec), {})
        return self.roles[role]

    def bases(self) -> None:
        config, base = self.config, self.config.base
        if base.language is not None:
            start = "random" if base.language_start == "random" else None
            spec = self.once(
                identity.base_language,
                base.language,
                self.once(identity.model_spec, config.model, start),
                config.precision,
            )
            self.roles["base"] = self._train(
                StageKind.base, f"base {self.model.name}", self._of(spec), {}
            )
            self.model = self.once(identity.model_spec, config.model, "stage")
        if base.tower is not None:
            spec = self.once(
                identity.base_tower,
                base.tower,
                self.once(identity.tower_spec, config.resolution, "random"),
                config.model.template,
                config.precision,
            )
            self.roles["tower"] = self._train(
                StageKind.base, f"base tower {config.resolution.name}", self._of(spec), {}
            )
            self.tower = self.once(identity.tower_spec, config.resolution, "stage")

    def align(self) -> None:
        config = self.config
        spec = self.once(
            identity.align,
            config.align,
            self.model,
            self.tower,
            config.resolution.blind,
            config.precision,
        )
        label = f"align {self.model.name} {config.resolution.name}{self._blind}"
        self.roles["align"] = self._train(StageKind.align, label, self._of(spec), self._made())

    def tune(self) -> None:
        shared = self._of(_tune(self.once, self.config, self.model, self.tower))
        own = {"seed": self.config.seed, "execution_axis": execution_axis(self.point)}
        inputs = {**self._made(), "align": self.roles["align"]}
        self.roles["tune"] = self._train(
            StageKind.tune, self._label("tune"), {**shared, **own}, inputs
        )

    def generate(self) -> None:
        asked = self.config.evaluation.benchmarks
        inputs = {**self._made(), "checkpoint": self.roles["tune"], **self._questions(asked)}
        self.roles["generate"] = self._add(
            StageKind.generate,
            self._label("generate"),
            self._answers(
                self.config.tuning.method, self.tower, self.config.resolution.blind, asked
            ),
            inputs,
        )
        of_base = self.config.evaluation.base_benchmarks
        if of_base:
            inputs = {**self._made(tower=False), **self._questions(of_base)}
            self.roles["generate_base"] = self._add(
                StageKind.generate,
                f"generate base {self.model.name}",
                self._answers(None, None, False, of_base),
                inputs,
            )

    def generate_of(self, checkpoint: Checkpoint) -> None:
        """A checkpoint that is there already answers."""
        asked = self.config.evaluation.benchmarks
        spec = self.once(
            identity.generate_of_checkpoint,
            self.config.evaluation,
            checkpoint,
            self.config.precision,
        )
        self.roles["generate"] = self._add(
            StageKind.generate,
            f"generate {checkpoint.name}",
            self._of(spec),
            {**checkpoint.inputs, **self._questions(asked)},
        )

    def _answers(
        self,
        method: str | None,
        tower: VisionTowerSpec | None,
        blind: bool,
        asked: Sequence[BenchmarkConfig],
    ) -> Mapping[str, Any]:
        evaluation, precision = self.config.evaluation, self.config.precision
        return self._of(
            self.once(
                identity.generate, evaluation, asked, method, self.model, tower, blind, precision
            )
        )

    def judge(self) -> None:
        evaluation = self.config.evaluation
        for role, asked, label in (
            ("", evaluation.benchmarks, self._label("judge")),
            ("_base", evaluation.base_benchmarks, f"judge base {self.model.name}"),
        ):
            if f"generate{role}" in self.roles:
                spec = self.once(identity.judge, self.config.judge, evaluation, asked)
                inputs = {"answers": self.roles[f"generate{role}"], **self._questions(asked)}
                self.roles[f"judge{role}"] = self._add(
                    StageKind.judge, label, self._of(spec), inputs
                )

    def _of(self, spec: TrainingSpec | GenerateSpec | JudgeSpec | DataSpec) -> Mapping[str, Any]:
        """The identity of a stage, one object for one spec."""
        return self.once(_to_identity, spec)

    def _label(self, kind: str) -> str:
        if self.checkpoint is not None:
            return f"{kind} {self.checkpoint.name}"
        config, method = self.config, self.config.tuning.method
        lora = f" r{config.lora.rank} a{config.lora.alpha:g}" if config.lora.rank else ""
        return (
            f"{kind} {config.model.name} {config.resolution.name}{self._blind} "
            f"{config.data_mix.name} {method}{lora} lr{config.optim.lr:g} seed{config.seed}"
        )

    @property
    def _blind(self) -> str:
        return " blind" if self.config.resolution.blind else ""

    def _made(self, *, tower: bool = True) -> dict[str, StageRef]:
        """Inputs that are stages because their weights are made in this graph."""
        made = {}
        if "base" in self.roles:
            made["language_model"] = self.roles["base"]
        if tower and "tower" in self.roles:
            made["vision_tower"] = self.roles["tower"]
        return made

    def _questions(self, asked: Sequence[BenchmarkConfig]) -> dict[str, StageRef]:
        return {f"data:{b.dataset}": self.dataset(b.dataset) for b in asked}

    def _train(
        self,
        kind: StageKind,
        label: str,
        stage_identity: Mapping[str, Any],
        inputs: Mapping[str, StageRef],
    ) -> StageRef:
        data = {f"data:{s['dataset']}": self.dataset(s["dataset"]) for s in stage_identity["data"]}
        return self._add(kind, label, stage_identity, {**inputs, **data})

    def _add(
        self,
        kind: StageKind,
        label: str,
        stage_identity: Mapping[str, Any],
        inputs: Mapping[str, StageRef],
    ) -> StageRef:
        """The reference of a stage, which is added where it is new."""
        what = kind, id(stage_identity), tuple(inputs.items())
        if what not in self.graph.known:
            spec = StageSpec(
                kind=kind,
                label=label,
                recipe_version=identity.RECIPE_VERSIONS[kind],
                identity=stage_identity,
                inputs=dict(inputs),
            )
            execution = stage_execution(
                self.config,
                kind=kind,
                method=str(stage_identity.get("method") or ""),
                paths=self._paths(kind, stage_identity),
            )
            ref = self.graph.add(PlannedStage(spec=spec, execution=execution))
            if kind is StageKind.tune:  # its identity is its own: not held, not met again
                return ref
            self.graph.known[what] = ref
        return self.graph.known[what]

    def _paths(self, kind: StageKind, stage_identity: Mapping[str, Any]) -> dict[str, str]:
        """Where declared weights and external data lie here; absolute."""
        config = self.config
        paths: dict[str, str | None] = {}
        if kind is StageKind.data:
            name = stage_identity["dataset"]
            paths[f"data:{name}"] = config.datasets[name].root
        elif self.checkpoint is not None:
            if kind is StageKind.generate:
                return dict(self.checkpoint.paths)
        elif kind is not StageKind.judge:
            model, tower = config.model, config.resolution
            tokenizer = model.tokenizer_path or model.path
            paths["language_model"] = self.once(weights_path, model.weights, model.path)
            paths["tokenizer"] = self.once(weights_path, model.tokenizer, tokenizer)
            paths["vision_tower"] = self.once(weights_path, tower.weights, tower.path)
            read = {source["dataset"] for source in stage_identity.get("data", ())}
            for name, dataset in config.datasets.items():
                if name in read:
                    paths[f"data:{name}"] = dataset.root
        return {role: self.once(_absolute, path) for role, path in paths.items() if path}


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _to_identity(spec: TrainingSpec | GenerateSpec | JudgeSpec | DataSpec) -> Mapping[str, Any]:
    return spec.to_identity()
