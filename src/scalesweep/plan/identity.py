"""From a cell's config to the identity of its stages: what determines each output, and no more."""

from __future__ import annotations

from collections.abc import Sequence

from scalesweep.config.base import BaseRecipe
from scalesweep.config.datasets import DatasetConfig, SourceConfig
from scalesweep.config.evaluation import BenchmarkConfig
from scalesweep.config.optim import OptimConfig
from scalesweep.config.run import RunConfig
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


def language_model(config: RunConfig, *, weights: str | None = None) -> LanguageModelSpec:
    """Shape and declared weights; weights replaces what the config declares."""
    model = config.model
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
    )


def vision_tower(config: RunConfig, *, weights: str | None = None) -> VisionTowerSpec:
    resolution = config.resolution
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
        )
        for source in configs
    ]


def base_language(config: RunConfig, recipe: BaseRecipe) -> TrainingSpec:
    start = "random" if config.base.language_start == "random" else None
    return _base(
        config, recipe, method=Method.language, model=language_model(config, weights=start)
    )


def base_tower(config: RunConfig, recipe: BaseRecipe) -> TrainingSpec:
    # A tower's key must not change with the language model beside it.
    return _base(config, recipe, method=Method.tower, tower=vision_tower(config, weights="random"))


def _base(
    config: RunConfig,
    recipe: BaseRecipe,
    *,
    method: Method,
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
        template=config.model.template,
        prompt_loss_weight=recipe.prompt_loss_weight,
        optim=optimizer(recipe.optim),
        global_batch_size=recipe.global_batch_size,
        max_seq_len=recipe.max_seq_len,
        precision=Precision(config.precision),
        seed=recipe.seed,
        export_dtype=recipe.export_dtype,
    )


def align(config: RunConfig, model: LanguageModelSpec, tower: VisionTowerSpec) -> TrainingSpec:
    recipe = config.align
    return TrainingSpec(
        method=Method.projector,
        model=model,
        tower=tower,
        blind=config.resolution.blind,
        data=sources(recipe.sources),
        on_broken_item=recipe.on_broken_item,
        template=recipe.template,
        prompt_loss_weight=0.0,
        optim=optimizer(recipe.optim),
        global_batch_size=recipe.global_batch_size,
        max_seq_len=recipe.max_seq_len,
        precision=Precision(config.precision),
        seed=recipe.seed,
    )


def tune(config: RunConfig, model: LanguageModelSpec, tower: VisionTowerSpec) -> TrainingSpec:
    lora = config.lora
    adapters = None
    if config.tuning.method != "full":
        assert lora.rank is not None  # RunConfig's rules
        assert lora.alpha is not None
        assert lora.dropout is not None
        adapters = LoraSpec(
            rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout, targets=list(lora.targets)
        )
    return TrainingSpec(
        method=Method(config.tuning.method),
        model=model,
        tower=tower,
        blind=config.resolution.blind,
        data=sources(config.data_mix.sources),
        on_broken_item=config.data_mix.on_broken_item,
        template=config.model.template,
        prompt_loss_weight=0.0,
        optim=optimizer(config.optim),
        global_batch_size=config.batch.global_batch_size,
        max_seq_len=config.batch.max_seq_len,
        precision=Precision(config.precision),
        seed=config.seed,
        lora=adapters,
        export_dtype="float32" if config.precision == "fp32" else "bfloat16",
    )


def benchmarks(configs: Sequence[BenchmarkConfig]) -> list[BenchmarkSpec]:
    return [BenchmarkSpec(name=b.name, dataset=b.dataset, file=b.file) for b in configs]


def generate(
    config: RunConfig,
    model: LanguageModelSpec,
    tower: VisionTowerSpec | None,
    *,
    asked: Sequence[BenchmarkConfig],
) -> GenerateSpec:
    """tower None: the language model alone, before tuning."""
    return GenerateSpec(
        checkpoint="base" if tower is None else "tune",
        method=None if tower is None else Method(config.tuning.method),
        model=model,
        tower=tower,
        blind=tower is not None and config.resolution.blind,
        benchmarks=benchmarks(asked),
        num_beams=config.evaluation.num_beams,
        max_new_tokens=config.evaluation.max_new_tokens,
        precision=Precision(config.precision),
    )


def judge(config: RunConfig, asked: Sequence[BenchmarkConfig]) -> JudgeSpec:
    return JudgeSpec(benchmarks=benchmarks(asked), scorer=config.judge.scorer)
