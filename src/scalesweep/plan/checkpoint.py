"""A checkpoint that is evaluated outside any study: of a store, or a folder (models/external.py).

One of a store keeps its stages and their keys: what a study has asked it is not asked again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from scalesweep.benchmark_options import PICTURES
from scalesweep.config.evaluation import EvaluationConfig
from scalesweep.config.model import ModelConfig
from scalesweep.config.resolution import ResolutionConfig
from scalesweep.config.run import RunConfig
from scalesweep.errors import ConfigError, StoreError
from scalesweep.models.external import External
from scalesweep.plan.graph import PlannedStage
from scalesweep.records import Execution, StageKind, StageRef, StageSpec
from scalesweep.rundir import StageDir, Store
from scalesweep.specs import (
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

    def adapted(self, config: RunConfig) -> RunConfig:
        """A composed config with this checkpoint's model, asked what it can be asked.

        Raises:
            ConfigError: a benchmark asks about pictures, and the checkpoint has no tower.
        """
        tower, tuning = self.tower, config.tuning
        model = ModelConfig(
            name=self.name if self.kind == "external" else self.model.name,
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
        lora = config.lora
        if self.lora is not None:
            lora = replace(
                lora,
                rank=self.lora.rank,
                alpha=self.lora.alpha,
                dropout=self.lora.dropout,
                targets=list(self.lora.targets),
            )
        elif self.adapter_rank is not None and lora.rank is not None:
            lora = replace(lora, rank=self.adapter_rank)
        positions = self.model.max_position_embeddings
        return replace(
            config,
            seed=config.seed if self.seed is None else self.seed,
            model=model,
            resolution=resolution,
            tuning=tuning,
            lora=lora,
            batch=replace(config.batch, max_seq_len=min(config.batch.max_seq_len, positions)),
            align=replace(config.align, template=_align_template(config, self.model.template)),
            evaluation=self._asked(config.evaluation),
        )

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
    return found or Execution(cluster="unknown")
