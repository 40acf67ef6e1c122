"""From a cell's config to the identity of its stages: what determines each output, and no more.

Each function takes the parts it reads, so that cells that share these share what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scalesweep.benchmark_options import BY_LETTERS, OPTIONS, needs_judge
from scalesweep.config.align import AlignConfig
from scalesweep.config.base import BaseRecipe
from scalesweep.config.batch import BatchConfig
from scalesweep.config.data_mix import DataMixConfig
from scalesweep.config.datasets import DatasetConfig, SourceConfig
from scalesweep.config.evaluation import BenchmarkConfig, EvaluationConfig
from scalesweep.config.judge import JudgeConfig
from scalesweep.config.lora import LoraConfig
from scalesweep.config.model import ModelConfig
from scalesweep.config.optim import OptimConfig
from scalesweep.config.resolution import ResolutionConfig
from scalesweep.config.run import RunConfig
from scalesweep.plan.checkpoint import Checkpoint
from scalesweep.specs import (
    BenchmarkSpec,
    DataSourceSpec,
    DataSpec,
    GenerateSpec,
    JudgeSpec,
    LanguageModelSpec,
    LoraSpec,
    Method,
    OptimSpec,
    Precision,
    TrainingSpec,
    VisionTowerSpec,
)

RECIPE_VERSIONS = {"data": 1, "base": 1, "align": 1, "tune": 1, "generate": 1, "judge": 1}
"""Raise one when the code of that kind changes what it computes: its old results stay apart."""


def model_spec(model: ModelConfig, weights: str | None = None) -> LanguageModelSpec:
    """Shape and declared weights; weights replaces what the config declares."""
    return LanguageModelSpec(
        name=model.name,
        hidden_size=model.hidden_size,
        intermediate_size=model.intermediate_size,
        num_layers=model.num_layers,
        num_heads=model.num_heads,
        num_kv_heads=model.num_kv_heads,
        vocab_size=model.vocab_size,
        max_position_embeddings=model.max_position_embeddings,
        template=model.template,
        weights=weights or model.weights,
        tokenizer=model.tokenizer,
        tie_word_embeddings=model.tie_word_embeddings,
    )


def tower_spec(resolution: ResolutionConfig, weights: str | None = None) -> VisionTowerSpec:
    """Shape and declared weights; weights replaces what the config declares."""
    return VisionTowerSpec(
        name=f"clip_{resolution.name}",
        hidden_size=resolution.hidden_size,
        intermediate_size=resolution.intermediate_size,
        num_layers=resolution.num_layers,
        num_heads=resolution.num_heads,
        patch_size=resolution.patch_size,
        image_size=resolution.pixels,
        feature_layer=resolution.feature_layer,
        weights=weights or resolution.weights,
    )


def language_model(config: RunConfig) -> LanguageModelSpec:
    """The language model that a cell tunes."""
    return model_spec(config.model)


def vision_tower(config: RunConfig) -> VisionTowerSpec:
    """The vision tower that a cell sees with."""
    return tower_spec(config.resolution)


def dataset(name: str, config: DatasetConfig) -> DataSpec:
    if config.generator is not None:
        return DataSpec(dataset=name, generator=config.generator, parameters=config.parameters)
    return DataSpec(dataset=name, generator=None, parameters={"files": config.files})


def optimizer(config: OptimConfig) -> OptimSpec:
    return OptimSpec(
        lr=config.lr,
        schedule=config.schedule,
        warmup_steps=config.warmup_steps,
        warmup_ratio=config.warmup_ratio,
        weight_decay=config.weight_decay,
        betas=list(config.betas),
        eps=config.eps,
        max_grad_norm=config.max_grad_norm,
        epochs=config.epochs,
        max_steps=config.max_steps,
    )


def sources(configs: Sequence[SourceConfig]) -> list[DataSourceSpec]:
    return [
        DataSourceSpec(
            dataset=source.dataset,
            file=source.file,
            image_folder=source.image_folder,
            max_items=source.max_items,
            on_long_item=source.on_long_item,
            on_broken_item=source.on_broken_item,
        )
        for source in configs
    ]


def base_language(recipe: BaseRecipe, model: LanguageModelSpec, precision: str) -> TrainingSpec:
    """model: with the weights that it starts from."""
    return _base(recipe, Method.language, model.template, precision, model=model)


def base_tower(
    recipe: BaseRecipe, tower: VisionTowerSpec, template: str, precision: str
) -> TrainingSpec:
    # A tower's key must not change with the language model beside it.
    return _base(recipe, Method.tower, template, precision, tower=tower)


def _base(
    recipe: BaseRecipe,
    method: Method,
    template: str,
    precision: str,
    *,
    model: LanguageModelSpec | None = None,
    tower: VisionTowerSpec | None = None,
) -> TrainingSpec:
    return TrainingSpec(
        method=method,
        model=model,
        tower=tower,
        blind=False,
        data=sources(recipe.sources),
        on_broken_item=recipe.on_broken_item,
        template=template,
        prompt_loss_weight=recipe.prompt_loss_weight,
        optim=optimizer(recipe.optim),
        global_batch_size=recipe.global_batch_size,
        max_seq_len=recipe.max_seq_len,
        precision=Precision(precision),
        seed=recipe.seed,
        export_dtype=recipe.export_dtype,
    )


def align(
    recipe: AlignConfig,
    model: LanguageModelSpec,
    tower: VisionTowerSpec,
    blind: bool,
    precision: str,
) -> TrainingSpec:
    return TrainingSpec(
        method=Method.projector,
        model=model,
        tower=tower,
        blind=blind,
        data=sources(recipe.sources),
        on_broken_item=recipe.on_broken_item,
        template=recipe.template,
        prompt_loss_weight=0.0,
        optim=optimizer(recipe.optim),
        global_batch_size=recipe.global_batch_size,
        max_seq_len=recipe.max_seq_len,
        precision=Precision(precision),
        seed=recipe.seed,
    )


def tune(
    model: LanguageModelSpec,
    tower: VisionTowerSpec,
    blind: bool,
    data_mix: DataMixConfig,
    template: str,
    optim: OptimConfig,
    batch: BatchConfig,
    lora: LoraConfig,
    method: str,
    precision: str,
) -> TrainingSpec:
    """With seed 0: the cells of a study share it, and each puts its own seed in."""
    adapters = None
    if method != "full":
        assert lora.rank is not None  # RunConfig's rules
        assert lora.alpha is not None
        assert lora.dropout is not None
        adapters = LoraSpec(
            rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=list(lora.targets)
        )
    return TrainingSpec(
        method=Method(method),
        model=model,
        tower=tower,
        blind=blind,
        data=sources(data_mix.sources),
        on_broken_item=data_mix.on_broken_item,
        template=template,
        prompt_loss_weight=0.0,
        optim=optimizer(optim),
        global_batch_size=batch.global_batch_size,
        max_seq_len=batch.max_seq_len,
        precision=Precision(precision),
        seed=0,
        lora=adapters,
        export_dtype="float32" if precision == "fp32" else "bfloat16",
    )


def benchmarks(
    configs: Sequence[BenchmarkConfig],
    options: Mapping[str, Mapping[str, Any]],
    *,
    asking: bool = False,
) -> list[BenchmarkSpec]:
    """options: benchmark -> what is chosen; a default that is chosen is still the default.

    asking: only what changes questions, so that answers are judged anew without being given anew.
    """
    return [
        BenchmarkSpec(
            name=b.name,
            dataset=b.dataset,
            file=b.file,
            options={
                name: value
                for name, value in options.get(b.name, {}).items()
                if value != OPTIONS[b.name][name].default
                and (OPTIONS[b.name][name].asks or not asking)
            },
        )
        for b in configs
    ]


def _answering(evaluation: EvaluationConfig, asked: Sequence[BenchmarkConfig]) -> dict[str, Any]:
    """What a generate stage is asked, and how its answers are searched where any is generated."""
    generates = any(b.name not in BY_LETTERS for b in asked)
    return {
        "benchmarks": benchmarks(asked, evaluation.options, asking=True),
        "num_beams": evaluation.num_beams if generates else 1,
        "max_new_tokens": evaluation.max_new_tokens if generates else 1,
        "stop_strings": sorted(set(evaluation.stop_strings)) if generates else [],
    }


def generate(
    evaluation: EvaluationConfig,
    asked: Sequence[BenchmarkConfig],
    method: str | None,
    model: LanguageModelSpec,
    tower: VisionTowerSpec | None,
    blind: bool,
    precision: str,
) -> GenerateSpec:
    """tower and method None: the language model alone, before tuning."""
    return GenerateSpec(
        checkpoint="base" if tower is None else "tune",
        method=None if method is None else Method(method),
        model=model,
        tower=tower,
        blind=blind,
        precision=Precision(precision),
        **_answering(evaluation, asked),
    )


def generate_of_checkpoint(
    evaluation: EvaluationConfig, checkpoint: Checkpoint, precision: str
) -> GenerateSpec:
    """The same stage as in a study where the checkpoint is a store's."""
    return GenerateSpec(
        checkpoint=checkpoint.kind,
        method=checkpoint.method,
        model=checkpoint.model,
        tower=checkpoint.tower,
        blind=checkpoint.blind and checkpoint.tower is not None,
        precision=Precision(precision),
        **_answering(evaluation, evaluation.benchmarks),
        checkpoint_weights=checkpoint.weights,
    )


def judge(
    judge: JudgeConfig, evaluation: EvaluationConfig, asked: Sequence[BenchmarkConfig]
) -> JudgeSpec:
    """Settings of a model count only where one is asked, and only those of what it is asked."""
    specs = benchmarks(asked, evaluation.options)
    names = {spec.name for spec in specs if needs_judge(spec.name, spec.options)}
    if not names or judge.scorer == "exact_match":
        return JudgeSpec(benchmarks=specs, scorer="exact_match")
    return JudgeSpec(
        benchmarks=specs,
        scorer=judge.scorer,
        model=judge.model if names - judge.models.keys() else None,
        models={name: model for name, model in judge.models.items() if name in names},
        temperature=judge.temperature,
        num_runs=judge.num_runs if names - judge.runs.keys() else 1,
        runs={name: runs for name, runs in judge.runs.items() if name in names},
        source=judge.source,
    )
