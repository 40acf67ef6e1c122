"""A checkpoint that is evaluated outside any study: of a store, or a folder (models/external.py).

One of a store keeps its stages and their keys: what a study has asked it is not asked again. A
cell's config tells how the checkpoint was made as far as that is known, never what a study of today
would do: tables find their rows by it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from scalesweep.benchmark_options import PICTURES
from scalesweep.config.datasets import SourceConfig
from scalesweep.config.evaluation import EvaluationConfig
from scalesweep.config.model import ModelConfig
from scalesweep.config.paths import conf_dir
from scalesweep.config.resolution import ResolutionConfig
from scalesweep.config.run import RunConfig
from scalesweep.errors import ConfigError, StoreError
from scalesweep.models.external import External
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import Execution, StageKind, StageRef, StageSpec
from scalesweep.rundir import StageDir, Store
from scalesweep.specs import (
    DataSourceSpec,
    LanguageModelSpec,
    LoraSpec,
    Method,
    Precision,
    TrainingSpec,
    VisionTowerSpec,
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a generate stage is told about the model it asks, and where it comes from."""

    name: str
    """Fit for a file name."""
    source: str
    """What was named on the command line; for people."""
    kind: str
    """GenerateSpec.checkpoint: tune | base | external."""
    method: Method | None
    model: LanguageModelSpec
    tower: VisionTowerSpec | None
    blind: bool
    precision: Precision
    weights: str | None = None
    """Declared identity of an external one."""
    lora: LoraSpec | None = None
    adapter_rank: int | None = None
    seed: int | None = None
    training: TrainingSpec | None = None
    """How a checkpoint of a store was made."""
    stages: tuple[PlannedStage, ...] = ()
    """Of a store: the stage and all that it was made of, parents first; all done."""
    roles: Mapping[str, StageRef] = field(default_factory=dict)
    """Cell roles of these stages."""
    inputs: Mapping[str, StageRef] = field(default_factory=dict)
    """Of the generate stage, but for the questions."""
    paths: Mapping[str, str] = field(default_factory=dict)
    store: Path | None = None
    stored_dtype: str | None = None
    """Of an external one's weights, where its files say it."""

    def adapted(self, config: RunConfig) -> RunConfig:
        """A composed config with this checkpoint's model, asked what it can be asked.

        Raises:
            ConfigError: a benchmark asks about pictures, and the checkpoint has no tower.
        """
        tower = self.tower
        model = ModelConfig(
            # Whatever a folder is called, it is no model of conf/model/.
            name=f"external:{self.name}" if self.kind == "external" else self.model.name,
            miniature=config.model.miniature,
            hidden_size=self.model.hidden_size,
            intermediate_size=self.model.intermediate_size,
            num_layers=self.model.num_layers,
            num_heads=self.model.num_heads,
            num_kv_heads=self.model.num_kv_heads,
            vocab_size=self.model.vocab_size,
            max_position_embeddings=self.model.max_position_embeddings,
            template=self.model.template,
            weights=self.model.weights,
            tokenizer=self.model.tokenizer,
            tie_word_embeddings=self.model.tie_word_embeddings,
            source=self.source,
        )
        resolution = replace(config.resolution, name="text", pixels=config.resolution.patch_size)
        if tower is not None:
            resolution = ResolutionConfig(
                name=tower.name.removeprefix("clip_"),
                miniature=config.resolution.miniature,
                pixels=tower.image_size,
                patch_size=tower.patch_size,
                hidden_size=tower.hidden_size,
                intermediate_size=tower.intermediate_size,
                num_layers=tower.num_layers,
                num_heads=tower.num_heads,
                feature_layer=tower.feature_layer,
                weights=tower.weights,
                blind=self.blind,
                source=self.source,
            )
        positions = self.model.max_position_embeddings
        asked = replace(
            config,
            model=model,
            resolution=resolution,
            batch=replace(config.batch, max_seq_len=min(config.batch.max_seq_len, positions)),
            align=replace(config.align, template=_align_template(config, self.model.template)),
            evaluation=self._asked(config.evaluation),
        )
        return _with(asked, self._made(config))

    def _made(self, config: RunConfig) -> dict[str, Any]:
        """How it was made, as parts of a config; rules of training do not hold for them."""
        tuned = self.training if self.kind == "tune" else None
        aligned = self._trained(StageKind.align)
        nothing = "none" if self.kind == "base" else UNKNOWN
        lora = {"rank": self.adapter_rank} if self.lora is None else asdict(self.lora)
        return {
            "seed": self.seed,
            "data_mix": _told(
                config.data_mix,
                {"name": nothing, "miniature": config.data_mix.miniature}
                if tuned is None
                else _data("data_mix", tuned),
            ),
            "tuning": _told(config.tuning, {"method": self._tuning}),
            "lora": _told(config.lora, lora),
            "optim": _told(config.optim, {} if tuned is None else asdict(tuned.optim)),
            "batch": _told(
                config.batch,
                {} if tuned is None else {**_numbers(tuned), **self._passes(StageKind.tune)},
            ),
            "align": _told(
                config.align,
                {
                    "name": nothing,
                    "miniature": config.align.miniature,
                    "optim": _told(config.align.optim, {}),
                }
                if aligned is None
                else {
                    **_data("align", aligned),
                    **_numbers(aligned),
                    **self._passes(StageKind.align),
                    **self._nodes(StageKind.align),
                    "template": aligned.template,
                    "optim": _told(config.align.optim, asdict(aligned.optim)),
                    "seed": aligned.seed,
                },
            ),
        }

    @property
    def _tuning(self) -> str:
        """Of a store: the method. Of a folder: what is in it; how that was tuned nobody knows."""
        if self.kind == "external":
            return _HELD[self.method]
        return "none" if self.method is None else str(self.method)

    def _stage(self, kind: StageKind) -> PlannedStage | None:
        return next((stage for stage in self.stages if stage.spec.kind is kind), None)

    def _trained(self, kind: StageKind) -> TrainingSpec | None:
        stage = self._stage(kind)
        return None if stage is None else TrainingSpec.from_identity(stage.spec.identity)

    def _passes(self, kind: StageKind) -> dict[str, Any]:
        """How a step was divided; empty where the store does not say."""
        execution = self._execution(kind)
        if execution is None:
            return {}
        if execution.micro_batch_tokens:
            return {"micro_batch_tokens": execution.micro_batch_tokens}
        return {"micro_batch_size": execution.micro_batch_size}

    def _nodes(self, kind: StageKind) -> dict[str, Any]:
        execution = self._execution(kind)
        if execution is None:
            return {}
        return {"nodes": execution.num_nodes, "zero_stage": execution.zero_stage}

    def _execution(self, kind: StageKind) -> Execution | None:
        """How a stage was run; None where the store does not say."""
        stage = self._stage(kind)
        known = stage is not None and stage.execution.cluster != _NOT_SAID
        return stage.execution if stage is not None and known else None

    def _asked(self, evaluation: EvaluationConfig) -> EvaluationConfig:
        """Without benchmarks for a language model beside its LLaVA; those alone for one."""
        if self.tower is not None:
            return replace(evaluation, base_benchmarks=[])
        asked = evaluation.base_benchmarks or evaluation.benchmarks
        seeing = [benchmark.name for benchmark in asked if benchmark.name in PICTURES]
        if seeing:
            raise ConfigError(
                f"evaluation={evaluation.name}: {', '.join(seeing)} asks about pictures, and "
                f"{self.source} is a language model without a tower; choose evaluation=vicuna80 or "
                "evaluation=mmlu"
            )
        names = [benchmark.name for benchmark in asked]
        primary = evaluation.primary if evaluation.primary in names else names[0]
        return replace(evaluation, benchmarks=asked, base_benchmarks=[], primary=primary)


UNKNOWN = "unknown"
"""Name of what a checkpoint was trained with, where that is not known."""
_HELD = {None: "whole", Method.full: "whole", Method.lora: "adapters", Method.qlora: "4bit"}

C = TypeVar("C")


def _with(config: C, values: Mapping[str, Any]) -> C:
    """A copy with other values, to which no rule of a config is applied."""
    told = copy.copy(config)
    for name, value in values.items():
        setattr(told, name, value)
    return told


def _told(part: Any, known: Mapping[str, Any]) -> Any:
    """A config's part that says what is known, and nothing (null, []) of all else."""
    nothing: dict[str, Any] = {
        each.name: [] if isinstance(getattr(part, each.name), list) else None
        for each in fields(part)
    }
    return _with(part, {**nothing, **known})


def _numbers(training: TrainingSpec) -> dict[str, Any]:
    return {
        "global_batch_size": training.global_batch_size,
        "max_seq_len": training.max_seq_len,
    }


def _data(group: str, training: TrainingSpec) -> dict[str, Any]:
    """What was trained on, by the name of the option of conf/GROUP/ that is the same."""
    name, miniature = _option(group, training.data, training.on_broken_item)
    return {
        "name": name,
        "miniature": miniature,
        "sources": [SourceConfig(**asdict(source)) for source in training.data],
        "on_broken_item": training.on_broken_item,
    }


def _option(
    group: str, sources: Sequence[DataSourceSpec], on_broken_item: str
) -> tuple[str, bool | None]:
    """Name of a group's option with just these sources, and whether it is a miniature's."""
    for file in sorted((conf_dir() / group).glob("*.yaml")):
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
        values = values.get(group, values)  # some begin at the root of the config
        same = [DataSourceSpec(**source) for source in values["sources"]] == list(sources)
        if same and values["on_broken_item"] == on_broken_item:
            return str(values["name"]), bool(values["miniature"])
    return UNKNOWN, None


def _align_template(config: RunConfig, template: str) -> str:
    """A rule of training that says nothing about a model that is there already."""
    return config.align.template if template != "mini" else "mini"


# ---------------------------------------------------------------- of a folder


def of_external(found: External, *, source: str) -> Checkpoint:
    return Checkpoint(
        name=_file_name(found.name),
        source=source,
        kind="external",
        method=found.method,
        model=found.model,
        tower=found.tower,
        blind=found.blind,
        precision=found.precision,
        weights=found.identity,
        adapter_rank=found.adapter_rank,
        paths=found.paths,
        stored_dtype=found.stored_dtype,
    )


def _file_name(text: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", text).lstrip("._-")[:60]
    return name or "checkpoint"


# ---------------------------------------------------------------- of a store


def stage_folder(folder: Path) -> Path | None:
    """The stage that a folder is, or is the output or an attempt of; None where it is none."""
    places = [folder]
    if folder.name == "output":
        places.append(folder.parents[2])
    if folder.parent.name == "attempts":
        places.append(folder.parents[1])
    return next(
        (
            place
            for place in places
            if (place / "stage.yaml").is_file() and place.parent.parent.name == "stages"
        ),
        None,
    )


def of_store(folder: Path, *, named: Path, source: str) -> Checkpoint:
    """The checkpoint that a tune or base stage published.

    folder: the stage's; named: what was named, it or an attempt or output in it.

    Raises:
        ConfigError: it is a stage of another kind, is not done, or another attempt was published.
    """
    stage, store = StageDir(folder), Store(folder.parents[2])
    spec = stage.spec()
    if spec.kind not in (StageKind.tune, StageKind.base):
        raise ConfigError(
            f"evaluate {source}: is a stage of kind {spec.kind}; only tune and base stages make "
            "checkpoints that can be asked"
        )
    training = TrainingSpec.from_identity(spec.identity)
    if training.model is None:
        raise ConfigError(f"evaluate {source}: made a vision tower, which cannot be asked")
    done = stage.done()
    if done is None:
        raise ConfigError(
            f"evaluate {source}: {spec.label} is not done yet; run its study's line to the end"
        )
    published = stage.attempt(done.attempt).path
    if named.is_relative_to(folder / "attempts") and not named.is_relative_to(published):
        raise ConfigError(
            f"evaluate {source}: is not the attempt that was published ({published.name}); name "
            f"{folder}"
        )
    stages = tuple(_with_ancestors(store, spec))
    is_base = spec.kind is StageKind.base
    made = {role: spec.inputs[role] for role in _MADE if role in spec.inputs}
    inputs = {"language_model": spec.ref} if is_base else {**made, "checkpoint": spec.ref}
    model = replace(training.model, weights="stage") if is_base else training.model
    parts = [training.model.name]
    parts += [] if is_base else [str(training.tower and training.tower.name.removeprefix("clip_"))]
    parts += [str(training.method), spec.key[:8]]
    return Checkpoint(
        name=_file_name("-".join(parts)),
        source=source,
        kind="base" if is_base else "tune",
        method=None if is_base else training.method,
        model=model,
        tower=None if is_base else training.tower,
        blind=training.blind,
        precision=training.precision,
        lora=training.lora,
        seed=training.seed,
        training=training,
        stages=stages,
        roles=_roles(spec, stages),
        inputs=inputs,
        paths={
            role: path
            for role, path in _execution(store, spec).paths.items()
            if not role.startswith("data:")
        },
        store=store.root,
    )


_MADE = ("language_model", "vision_tower")
"""Inputs whose weights are those of other stages."""
_CELL_ROLES = {"language_model": "base", "vision_tower": "tower"}


def _roles(spec: StageSpec, stages: tuple[PlannedStage, ...]) -> dict[str, StageRef]:
    roles = {_CELL_ROLES.get(role, role): ref for role, ref in spec.inputs.items()}
    for stage in stages:
        for role, ref in stage.spec.inputs.items():
            roles.setdefault(_CELL_ROLES.get(role, role), ref)
    return {**roles, str(spec.kind): spec.ref}


def _with_ancestors(store: Store, spec: StageSpec) -> Iterator[PlannedStage]:
    """A stage after all that it was made of, each once."""
    seen: set[StageRef] = set()

    def walk(spec: StageSpec) -> Iterator[PlannedStage]:
        for ref in spec.inputs.values():
            if ref in seen:
                continue
            seen.add(ref)
            if store.stage(ref).done() is None:
                raise StoreError(
                    f"{store.stage(ref).path}: {spec.label} was made of it, and it is not there "
                    "any more; run the study's line again"
                )
            yield from walk(store.stage(ref).spec())
        _refuse_unusable(store, spec)
        yield PlannedStage(spec=spec, execution=_execution(store, spec))

    return walk(spec)


def _refuse_unusable(store: Store, spec: StageSpec) -> None:
    """Evaluating never trains: what would be made again first is the study's business."""
    done = store.stage(spec.ref).done()
    if done is not None:
        output = store.stage(spec.ref).attempt(done.attempt).output
        for name, file in done.files.items():
            if not (output / name).is_file() or (output / name).stat().st_size != file.size:
                raise StoreError(
                    f"{output / name}: is missing or has another size than was published; run the "
                    "study's line to make it anew"
                )
    for role, ref in spec.inputs.items():
        parent = store.stage(ref).done()
        if done is not None and parent is not None and done.inputs.get(role) != parent.digest:
            raise StoreError(
                f"{spec.label}: is stale: {ref} was made again with other bytes since; run the "
                "study's line to make it anew, or `export` it as it is and evaluate that"
            )


def _execution(store: Store, spec: StageSpec) -> Execution:
    """How the published attempt was run."""
    stage = store.stage(spec.ref)
    done = stage.done()
    found = None if done is None else stage.attempt(done.attempt).execution()
    return found or Execution(cluster=_NOT_SAID)


_NOT_SAID = "unknown"
"""Cluster of an attempt whose execution.json is not there."""
