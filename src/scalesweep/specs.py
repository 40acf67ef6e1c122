"""Typed views of StageSpec.identity: what each kind of stage is told to do.

The plan builds them from the config, a running stage reads them back. Whatever stands here is part
of the stage's key; where things lie and how fast they run is Execution (records.py).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


class _Spec:
    """To and from the JSON form of a StageSpec.identity."""

    def to_identity(self) -> dict[str, Any]:
        """What enters the key. Fields of _later() stand there only where they are set."""
        later = self._later()
        return {
            name: _plain(value)
            for name in self.__dataclass_fields__  # type: ignore[attr-defined]
            if (value := getattr(self, name)) != later.get(name, _ALWAYS)
        }

    @classmethod
    def from_identity(cls, data: Mapping[str, Any]) -> Self:
        values = dict(data)
        for name, convert in cls._nested().items():
            if values.get(name) is not None:
                values[name] = convert(values[name])
        return cls(**values)

    @classmethod
    def _nested(cls) -> Mapping[str, Any]:
        return {}

    @classmethod
    def _later(cls) -> Mapping[str, Any]:
        """Fields that were added after the first keys were made, and what they were before: with
        that value a stage keeps the key, and the results, that it had without the field."""
        return {}


_ALWAYS = object()
"""Equal to no value."""


def _plain(value: Any) -> Any:
    if isinstance(value, _Spec):
        return value.to_identity()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


class Method(enum.StrEnum):
    """What learns in a training stage."""

    full = "full"
    """tune: language model and projector."""
    lora = "lora"
    qlora = "qlora"
    projector = "projector"
    """align: only the projector."""
    language = "language"
    """base: the language model alone, on text."""
    tower = "tower"
    """base: the vision tower alone, on pictures whose captions name what each quarter shows."""


class Precision(enum.StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"


@dataclass(frozen=True, kw_only=True)
class LanguageModelSpec(_Spec):
    """A LLaMA language model: its shape, and which weights."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab_size: int
    max_position_embeddings: int
    template: str
    """Conversation template: mini | vicuna_v1 | llama_2 | chatml."""
    weights: str
    """Declared identity: "sha256:..." (rundir digest of the folder), "hub:owner/name@revision",
    "stage" (the output of input "language_model") or "random" (base stages start so)."""
    tokenizer: str
    """Declared identity of the tokenizer folder, same forms (never "random")."""
    tie_word_embeddings: bool = False
    """The output layer is the embedding matrix itself, as in SmolLM2."""

    @classmethod
    def _later(cls) -> Mapping[str, Any]:
        return {"tie_word_embeddings": False}


@dataclass(frozen=True, kw_only=True)
class VisionTowerSpec(_Spec):
    """A CLIP vision tower: its shape, and which weights."""

    name: str
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    patch_size: int
    image_size: int
    """Side of the square picture that the tower sees, in pixels."""
    feature_layer: int
    """hidden_states index whose patch features go to the projector: -2 in the paper."""
    weights: str

    @property
    def num_patches(self) -> int:
        """Image tokens of one picture: (224 / 14)^2 = 256, (336 / 14)^2 = 576."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class LoraSpec(_Spec):
    rank: int
    alpha: float
    dropout: float
    targets: list[str]
    """Linear layers of the language model that get an adapter: "q_proj", ... ."""


@dataclass(frozen=True, kw_only=True)
class OptimSpec(_Spec):
    lr: float
    schedule: str
    """constant | linear | cosine, after a linear warm-up."""
    warmup_steps: int | None
    warmup_ratio: float | None
    """Exactly one of the two is set; a ratio is of all steps, rounded up."""
    weight_decay: float
    betas: list[float]
    eps: float
    max_grad_norm: float
    """Global norm that gradients are clipped to; 0 means no clipping."""
    epochs: float | None
    max_steps: int | None
    """Exactly one of the two is set."""

    def num_steps(self, *, num_samples: int, global_batch_size: int) -> int:
        """Optimizer steps of a training run.

        With epochs, the last step is a whole batch that borrows from the next epoch's order: no
        sample of the asked epochs is left out, and every step averages over equally many.
        """
        if self.max_steps is not None:
            return self.max_steps
        assert self.epochs is not None, "a checked OptimSpec has max_steps or epochs"
        # 1e-9: 0.1 epochs of 1,000 samples in batches of 10 are 10 steps, whatever
        # 0.1 * 1000 / 10 is.
        return max(1, math.ceil(self.epochs * num_samples / global_batch_size - 1e-9))


@dataclass(frozen=True, kw_only=True)
class DataSourceSpec(_Spec):
    """One file of training conversations in an official format."""

    dataset: str
    """Name of the data set; the stage input of role "data:<dataset>" holds it."""
    file: str
    """Path of the JSON file below the data set's root."""
    image_folder: str = ""
    """Folder below the root that "image" fields are relative to."""
    max_items: int | None = None
    """Only the first so many items."""
    on_long_item: str = "stop"
    """stop | cut | split: what a conversation over max_seq_len does; see data/samples.py."""
    on_broken_item: str | None = None
    """stop | skip, for this file alone; None: the stage's."""

    @classmethod
    def _later(cls) -> Mapping[str, Any]:
        return {"on_long_item": "stop", "on_broken_item": None}


@dataclass(frozen=True, kw_only=True)
class TrainingSpec(_Spec):
    """Identity of a base, align or tune stage."""

    method: Method
    model: LanguageModelSpec | None
    """None for method tower."""
    tower: VisionTowerSpec | None
    """None for method language."""
    blind: bool
    """Every pixel is zero after preprocessing: the blind baseline."""
    data: list[DataSourceSpec]
    on_broken_item: str
    """stop | skip: what a broken item does; skipped ones are named and counted."""
    template: str
    """A conversation template, or "plain": stage 1 of LLaVA (picture, caption)."""
    prompt_loss_weight: float
    """Loss weight of tokens that are not answers: 0, but for the miniature's bases."""
    optim: OptimSpec
    global_batch_size: int
    """Samples per optimizer step, over all devices and accumulation steps."""
    max_seq_len: int
    precision: Precision
    """fp32 | bf16: compute dtype."""
    seed: int
    lora: LoraSpec | None = None
    execution_axis: dict[str, Any] | None = None
    """Execution settings that the study varies, so that its cells do not become one."""
    export_dtype: str = "float32"
    """Dtype of the published weights: float32 | bfloat16 | float16."""

    @classmethod
    def _nested(cls) -> Mapping[str, Any]:
        return {
            "method": Method,
            "precision": Precision,
            "model": LanguageModelSpec.from_identity,
            "tower": VisionTowerSpec.from_identity,
            "optim": OptimSpec.from_identity,
            "lora": LoraSpec.from_identity,
            "data": lambda items: [DataSourceSpec.from_identity(item) for item in items],
        }


@dataclass(frozen=True, kw_only=True)
class DataSpec(_Spec):
    """Identity of a data stage: generate a miniature data set, or index an external one."""

    dataset: str
    generator: str | None
    """Generator of a miniature data set (data/miniature.py), or None for an external data set."""
    parameters: dict[str, Any]
    """Of the generator: seed, counts. Of an external set: {"files": {path: "sha256:..." or ""}}."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec(_Spec):
    name: str
    """One of benchmark_options.OPTIONS."""
    dataset: str
    """The stage input of role "data:<dataset>" holds its questions."""
    file: str
    options: dict[str, Any] = field(default_factory=dict)
    """What differs from the benchmark's defaults (benchmark_options.py)."""

    @classmethod
    def _later(cls) -> Mapping[str, Any]:
        return {"options": {}}


@dataclass(frozen=True, kw_only=True)
class GenerateSpec(_Spec):
    """Identity of a generate stage: a checkpoint answers the questions of all benchmarks."""

    checkpoint: str
    """tune | base | external: what input "checkpoint" is; "base" is the language model alone,
    "external" a folder that no stage of the store made, whose content is "checkpoint_weights"."""
    method: Method | None
    """full | lora | qlora of the tuned checkpoint; None for a base."""
    model: LanguageModelSpec
    tower: VisionTowerSpec | None
    blind: bool
    benchmarks: list[BenchmarkSpec]
    num_beams: int
    max_new_tokens: int
    precision: Precision
    stop_strings: list[str] = field(default_factory=list)
    """An answer ends before the first of these, besides at the end token."""
    checkpoint_weights: str | None = None
    """Declared identity of an external checkpoint: "sha256:...", "hub:owner/name@revision"."""

    @classmethod
    def _later(cls) -> Mapping[str, Any]:
        return {"stop_strings": [], "checkpoint_weights": None}

    @classmethod
    def _nested(cls) -> Mapping[str, Any]:
        return {
            "method": Method,
            "precision": Precision,
            "model": LanguageModelSpec.from_identity,
            "tower": VisionTowerSpec.from_identity,
            "benchmarks": lambda items: [BenchmarkSpec.from_identity(item) for item in items],
        }


@dataclass(frozen=True, kw_only=True)
class JudgeSpec(_Spec):
    """Identity of a judge stage: answers become scores."""

    benchmarks: list[BenchmarkSpec]
    scorer: str
    """exact_match: rules that need no judge alone; openai: a judge model is asked where a rule
    needs one."""
    model: str | None = None
    models: dict[str, str] = field(default_factory=dict)
    """Benchmark -> its judge model, where that is another one."""
    temperature: float | None = None
    """None: as each benchmark's official rule has it."""
    num_runs: int = 1
    runs: dict[str, int] = field(default_factory=dict)
    """Benchmark -> its number of judge runs, where that is another one."""
    source: str | None = None
    """Whose model it is: "openai" (Azure's are the same), else the name of the judge's settings:
    replies of two endpoints that call their model alike are kept apart."""

    def model_of(self, benchmark: str) -> str | None:
        return self.models.get(benchmark, self.model)

    def runs_of(self, benchmark: str) -> int:
        return self.runs.get(benchmark, self.num_runs)

    @classmethod
    def _later(cls) -> Mapping[str, Any]:
        return {
            "model": None,
            "models": {},
            "temperature": None,
            "num_runs": 1,
            "runs": {},
            "source": None,
        }

    @classmethod
    def _nested(cls) -> Mapping[str, Any]:
        return {"benchmarks": lambda items: [BenchmarkSpec.from_identity(item) for item in items]}
