"""From the configs of all cells to a plan: stages that are equal become one."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.config.evaluation import BenchmarkConfig
from scalesweep.config.run import RunConfig
from scalesweep.errors import PlanError
from scalesweep.models.parameters import num_params, num_trainable_params
from scalesweep.plan import identity
from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.plan.resources import stage_execution
from scalesweep.records import Execution, StageKind, StageRef, StageSpec
from scalesweep.specs import LanguageModelSpec, TrainingSpec, VisionTowerSpec


@dataclass(frozen=True, kw_only=True)
class CellRequest:
    """One composed combination: what varies, and the config that came of it."""

    point: Mapping[str, Any]
    """Override key -> value, only of what varies in the study."""
    config: RunConfig


@dataclass
class _Graph:
    """Stages found so far, by reference, in the order in which they can run."""

    stages: dict[StageRef, PlannedStage] = field(default_factory=dict)

    def add(self, spec: StageSpec, execution: Execution) -> StageRef:
        known = self.stages.get(spec.ref)
        if known is None:
            self.stages[spec.ref] = PlannedStage(spec=spec, execution=execution)
        return spec.ref


def build_plan(
    requests: Sequence[CellRequest],
    *,
    study: str | None,
    question: str = "",
    command: str = "",
    notes: Sequence[str] = (),
) -> Plan:
    """The graph of stages that all cells need, each stage once.

    study: name; None makes one of the cells, the same for the same cells.

    Raises:
        PlanError: there are no cells, or two of them are the same.
    """
    if not requests:
        raise PlanError("no cells: the sweep's grids and the command line leave nothing to run")
    graph = _Graph()
    cells: list[Cell] = []
    for request, name in zip(requests, cell_names(requests), strict=True):
        stages = _cell_stages(graph, request)
        cells.append(_cell(name, request, stages))
    return Plan(
        study=study or study_name(cells),
        cells=tuple(cells),
        stages=tuple(graph.stages.values()),
        question=question,
        command=command,
        notes=tuple(notes),
    )


def study_name(cells: Sequence[Cell]) -> str:
    """A name that depends only on what the cells are."""
    keys = sorted(str(ref) for cell in cells for ref in cell.stages.values())
    return "study-" + hashlib.sha256("\n".join(keys).encode()).hexdigest()[:8]


def cell_names(requests: Sequence[CellRequest]) -> list[str]:
    """Names of cells: model, resolution, mix and tuning, then what else tells them apart."""
    always = ("model", "resolution", "data_mix", "tuning")
    names = []
    for request in requests:
        config, point = request.config, request.point
        parts = [config.model.name, config.resolution.name, config.data_mix.name]
        parts.append(config.tuning.method)
        parts += [_short(key, value) for key, value in point.items() if key not in always]
        names.append("-".join(part for part in parts if part))
    if len(set(names)) < len(names):  # cells that differ only in what is rarely varied
        names = [
            f"{name}-{i + 1}" if names.count(name) > 1 else name for i, name in enumerate(names)
        ]
    return names


def _short(key: str, value: Any) -> str:
    """ "lora.rank", 8 -> "rank8"; "resolution.blind", true -> "blind"."""
    word = key.rpartition(".")[2].lstrip("+~")
    if value is False or value is None:
        return f"no_{word}" if value is False else ""
    text = "" if value is True else f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(c if c.isalnum() or c in "._" else "_" for c in f"{word}{text}")


def _cell(name: str, request: CellRequest, stages: Mapping[str, StageRef]) -> Cell:
    config = request.config
    model = identity.language_model(config)
    tower = identity.vision_tower(config)
    spec = identity.tune(config, model, tower)
    return Cell(
        name=name,
        point=dict(request.point),
        config=dataclasses.asdict(config),
        stages=stages,
        num_trainable_params=num_trainable_params(spec),
        num_params=num_params(model, tower),
        num_nodes=config.nodes,
    )


def execution_axis(point: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a study varies of how its tune stages are run; None when it varies none."""
    varied = {key: value for key, value in point.items() if key in EXECUTION_KEYS}
    return varied or None


EXECUTION_KEYS = (
    "nodes",
    "zero.stage",
    "zero.gradient_checkpointing",
    "batch.micro_batch_size",
)
"""Settings of a cell that are no part of the tune stage's key unless they are an axis."""


def _cell_stages(graph: _Graph, request: CellRequest) -> dict[str, StageRef]:
    """Adds the stages of one cell; role -> reference."""
    config = request.config
    builder = _CellBuilder(graph=graph, config=config, point=request.point)
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
    roles: dict[str, StageRef] = field(default_factory=dict)
    model: LanguageModelSpec = field(init=False)
    tower: VisionTowerSpec = field(init=False)

    def __post_init__(self) -> None:
        self.model = identity.language_model(self.config)
        self.tower = identity.vision_tower(self.config)

    def dataset(self, name: str) -> StageRef:
        role = f"data:{name}"
        if role not in self.roles:
            spec = identity.dataset(name, self.config.datasets[name])
            self.roles[role] = self._add(StageKind.data, f"data {name}", spec.to_identity(), {})
        return self.roles[role]

    def bases(self) -> None:
        base = self.config.base
        if base.language is not None:
            spec = identity.base_language(self.config, base.language)
            self.roles["base"] = self._train(StageKind.base, f"base {self.model.name}", spec, {})
            self.model = dataclasses.replace(self.model, weights="stage")
        if base.tower is not None:
            spec = identity.base_tower(self.config, base.tower)
            self.roles["tower"] = self._train(
                StageKind.base, f"base tower {self.config.resolution.name}", spec, {}
            )
            self.tower = dataclasses.replace(self.tower, weights="stage")

    def align(self) -> None:
        spec = identity.align(self.config, self.model, self.tower)
        label = f"align {self.model.name} {self.config.resolution.name}{self._blind}"
        self.roles["align"] = self._train(StageKind.align, label, spec, self._made())

    def tune(self) -> None:
        spec = identity.tune(self.config, self.model, self.tower)
        spec = dataclasses.replace(spec, execution_axis=execution_axis(self.point))
        inputs = {**self._made(), "align": self.roles["align"]}
        self.roles["tune"] = self._train(StageKind.tune, self._label("tune"), spec, inputs)

    def generate(self) -> None:
        asked = self.config.evaluation.benchmarks
        spec = identity.generate(self.config, self.model, self.tower, asked=asked)
        inputs = {**self._made(), "checkpoint": self.roles["tune"], **self._questions(asked)}
        self.roles["generate"] = self._add(
            StageKind.generate, self._label("generate"), spec.to_identity(), inputs
        )
        of_base = self.config.evaluation.base_benchmarks
        if of_base:
            spec = identity.generate(self.config, self.model, None, asked=of_base)
            inputs = {**self._made(tower=False), **self._questions(of_base)}
            self.roles["generate_base"] = self._add(
                StageKind.generate, f"generate base {self.model.name}", spec.to_identity(), inputs
            )

    def judge(self) -> None:
        evaluation = self.config.evaluation
        for role, asked, label in (
            ("", evaluation.benchmarks, self._label("judge")),
            ("_base", evaluation.base_benchmarks, f"judge base {self.model.name}"),
        ):
            if f"generate{role}" in self.roles:
                spec = identity.judge(self.config, asked)
                inputs = {"answers": self.roles[f"generate{role}"], **self._questions(asked)}
                self.roles[f"judge{role}"] = self._add(
                    StageKind.judge, label, spec.to_identity(), inputs
                )

    def _label(self, kind: str) -> str:
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
        self, kind: StageKind, label: str, spec: TrainingSpec, inputs: Mapping[str, StageRef]
    ) -> StageRef:
        data = {f"data:{source.dataset}": self.dataset(source.dataset) for source in spec.data}
        return self._add(kind, label, spec.to_identity(), {**inputs, **data})

    def _add(
        self,
        kind: StageKind,
        label: str,
        stage_identity: Mapping[str, Any],
        inputs: Mapping[str, StageRef],
    ) -> StageRef:
        execution = stage_execution(
            self.config,
            kind=kind,
            method=str(stage_identity.get("method", "")),
            paths=self._paths(kind, stage_identity),
        )
        spec = StageSpec(
            kind=kind,
            label=label,
            recipe_version=identity.RECIPE_VERSIONS[kind],
            identity=stage_identity,
            inputs=dict(inputs),
        )
        return self.graph.add(spec, execution)

    def _paths(self, kind: StageKind, stage_identity: Mapping[str, Any]) -> dict[str, str]:
        """Where declared weights and external data lie here; absolute."""
        config = self.config
        paths: dict[str, str] = {}
        if kind is StageKind.data:
            name = stage_identity["dataset"]
            if root := config.datasets[name].root:
                paths[f"data:{name}"] = root
        elif kind is not StageKind.judge:
            for role, path in (
                ("language_model", config.model.path),
                ("tokenizer", config.model.tokenizer_path or config.model.path),
                ("vision_tower", config.resolution.path),
            ):
                if path:
                    paths[role] = path
            for name, dataset in config.datasets.items():
                if dataset.root and name in {s["dataset"] for s in stage_identity.get("data", [])}:
                    paths[f"data:{name}"] = dataset.root
        return {role: str(Path(path).absolute()) for role, path in paths.items()}
