"""What the samples of a training set, or the questions of benchmarks, are like in tokens. Pure.

Text and pictures are apart, so that one count of the data gives the exact work at every resolution:
a sample of t tokens of text with a picture of P patches is t + P long, and the sum of squares

    sum (t + P)^2 = sum t^2 + 2 P sum t + P^2 n    over the n samples with a picture

needs three sums, whatever P is.

Where they are from, from the best on (cost_model/token_cache.py, stage_tokens):

    counted     by whoever read the data: a training or generate stage, the check before a study
    sampled     from the first megabytes of files that lie here (cost_model/sampled_tokens.py)
    declared    published or assumed figures of known data sets (cost_model/declared_tokens.py)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scalesweep.models.flops import Work
from scalesweep.records import StageSpec, canonical_json
from scalesweep.specs import GenerateSpec, Method, TrainingSpec

COUNTED, SAMPLED, DECLARED = "counted", "sampled", "declared"


@dataclass(frozen=True, kw_only=True)
class TokenStatistics:
    """Sums over samples, each once. Text: all tokens but those of the picture."""

    num_samples: int
    text_tokens: int
    squared_text_tokens: int
    pictures: int
    """Samples with a picture; none has two."""
    pictured_text_tokens: int
    """Text of the samples that have a picture."""
    supervised: int
    """Tokens that have a loss; of questions, the tokens of their answers, ends included."""
    source: str = COUNTED

    def work(self, num_samples: float, *, num_patches: int) -> Work:
        """Of so many samples drawn from these, in whole numbers; num_patches: of a picture."""
        share = num_samples / self.num_samples
        squares = (
            self.squared_text_tokens
            + 2 * num_patches * self.pictured_text_tokens
            + num_patches**2 * self.pictures
        )
        return Work(
            num_tokens=round(share * (self.text_tokens + num_patches * self.pictures)),
            sum_squared_lengths=round(share * squares),
            num_supervised=round(share * self.supervised),
            num_pictures=round(share * self.pictures),
        )

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SUMS}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TokenStatistics:
        """Raises KeyError, TypeError or ValueError: that is no such record."""
        sums: dict[str, Any] = {name: int(data[name]) for name in SUMS}
        found = cls(**sums)
        if found.num_samples < 1 or min(found.to_json().values()) < 0:
            raise ValueError("token statistics of no samples")
        return found


SUMS = tuple(name for name in TokenStatistics.__dataclass_fields__ if name != "source")


def training_data_key(stage: StageSpec) -> str:
    """Equal for stages whose samples have the same tokens of text: at whatever resolution, but
    where long samples are cut, of which a larger picture leaves less."""
    spec = TrainingSpec.from_identity(stage.identity)
    cuts = any(part.on_long_item != "stop" for part in spec.data)
    return _key(
        stage,
        [part.to_identity() for part in spec.data],
        spec.on_broken_item,
        spec.template,
        spec.method is Method.projector,
        spec.prompt_loss_weight > 0,
        spec.max_seq_len,
        spec.model.tokenizer if spec.model is not None else None,
        spec.tower.num_patches if cuts and spec.tower is not None else None,
    )


def questions_key(stage: StageSpec) -> str:
    """Equal for stages that ask the same in the same words, of whatever model."""
    spec = GenerateSpec.from_identity(stage.identity)
    return _key(
        stage,
        [part.to_identity() for part in spec.benchmarks],
        spec.model.template,
        spec.model.tokenizer,
        spec.tower is not None,
        spec.max_new_tokens,
    )


def _key(stage: StageSpec, *parts: Any) -> str:
    """The data sets by the keys of their stages: a name alone may be given to two."""
    data = {role: str(ref) for role, ref in stage.inputs.items() if role.startswith("data:")}
    text = canonical_json([data, *parts])
    return hashlib.sha256(text.encode()).hexdigest()[:24]
