"""The paper's findings that the miniature can test, as declared comparisons of settings.

Every finding is a weighted sum of scores (or of costs) that is above a threshold where the paper
is right here: verdicts.py computes it and nothing here knows a result. Not testable in miniature:
beams (finding 7) and smaller gains towards the largest sizes.

Source: Lu et al., arXiv:2309.09958; the numbers in paper_says are its tables'.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scalesweep.report.labels import value_at

MARGIN = 0.10
""""Not worse" means: the 95 % interval ends above minus this much of score. Declared beforehand."""


class Kind(enum.StrEnum):
    """What is claimed of the sides, in their order."""

    greater = "greater"
    """The first scores higher than the second. Value: first - second, above 0."""
    not_worse = "not_worse"
    """The first is not worse than the second. Value: first - second, above -MARGIN."""
    repairs_little = "repairs_little"
    """Sides: harmed, remedied, unharmed. The remedy regains less than half of what was lost.
    Value: (unharmed - harmed) / 2 - (remedied - harmed), above 0; and a loss must be shown."""
    costs_little = "costs_little"
    """Sides: small change before, after; big change before, after. Value: log of the big cost
    ratio / 2 - log of the small cost ratio, above 0: the small change costs less than half."""


class Measure(enum.StrEnum):
    score = "score"
    """The primary benchmark."""
    text = "text"
    """The benchmark without pictures."""
    cost = "cost"
    """Device-seconds of the tune stage per sample."""


@dataclass(frozen=True)
class Is:
    """The value at a dotted key equals this."""

    key: str
    value: Any

    def holds(self, config: Mapping[str, Any]) -> bool:
        return bool(value_at(config, self.key) == self.value)


@dataclass(frozen=True)
class Within:
    """The number at a dotted key lies in [low, high]."""

    key: str
    low: float
    high: float

    def holds(self, config: Mapping[str, Any]) -> bool:
        value = value_at(config, self.key)
        return isinstance(value, int | float) and self.low <= value <= self.high


Condition = Is | Within


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the settings compared."""

    name: str
    """For people: "48 px"."""
    where: tuple[Condition, ...]
    before: bool = False
    """Its language model before tuning."""

    def selects(self, config: Mapping[str, Any]) -> bool:
        return all(condition.holds(config) for condition in self.where)


@dataclass(frozen=True, kw_only=True)
class Finding:
    id: str
    paper: str
    """Number of the finding in the paper's order; "check" for a test of the study itself."""
    claim: str
    paper_says: str
    kind: Kind
    measure: Measure
    sides: tuple[Side, ...]


def _where(**changes: Condition | None) -> tuple[Condition, ...]:
    """The reference setting (s, 32 px, text in the mix, full, sighted) with some changes."""
    conditions: dict[str, Condition | None] = {
        "model": Is("model.name", "mini_s"),
        "pixels": Is("resolution.pixels", 32),
        "blind": Is("resolution.blind", False),
        "mix": Is("data_mix.name", "mini_text"),
        "method": Is("tuning.method", "full"),
        **changes,
    }
    return tuple(condition for condition in conditions.values() if condition is not None)


_LORA = Is("tuning.method", "lora")
_QLORA = Is("tuning.method", "qlora")
_RANK_8, _RANK_64 = Is("lora.rank", 8), Is("lora.rank", 64)
_GOOD_LR, _LOW_LR = Within("optim.lr", 0.005, 0.05), Within("optim.lr", 0.0005, 0.003)
"""The miniature's recipe for adapters is 1.5e-2; a tenth of it is low."""
_GOOD_ALPHA, _LOW_ALPHA = Within("lora.alpha", 8, 32), Within("lora.alpha", 0.5, 2)

_REFERENCE = Side(name="s, full", where=_where())
_SIZE_XS = Side(name="xs", where=_where(model=Is("model.name", "mini_xs")))
_SIZE_S = Side(name="s", where=_where())
_SIZE_M = Side(name="m", where=_where(model=Is("model.name", "mini_m")))
_MIXED = Side(name="text in the mix", where=_where())
_UNMIXED = Side(name="no text in the mix", where=_where(mix=Is("data_mix.name", "mini")))
_LORA_GOOD = Side(
    name="LoRA r8",
    where=_where(method=_LORA, rank=_RANK_8, alpha=_GOOD_ALPHA, lr=_GOOD_LR),
)
_LORA_LOW_LR = Side(
    name="LoRA r8, low LR",
    where=_where(method=_LORA, rank=_RANK_8, alpha=_GOOD_ALPHA, lr=_LOW_LR),
)
_LORA_LOW_LR_64 = Side(
    name="LoRA r64, low LR",
    where=_where(method=_LORA, rank=_RANK_64, alpha=_GOOD_ALPHA, lr=_LOW_LR),
)
_LORA_LOW_ALPHA = Side(
    name="LoRA r8, low alpha",
    where=_where(method=_LORA, rank=_RANK_8, alpha=_LOW_ALPHA, lr=_GOOD_LR),
)

FINDINGS = (
    Finding(
        id="size_xs_s",
        paper="1",
        claim="A bigger language model scores higher: s above xs",
        paper_says="33B above 13B above 7B: 72.0, 70.1, 65.9 (table 3a)",
        kind=Kind.greater,
        measure=Measure.score,
        sides=(_SIZE_S, _SIZE_XS),
    ),
    Finding(
        id="size_s_m",
        paper="1",
        claim="A bigger language model scores higher: m above s",
        paper_says="65B above 33B: 72.3, 72.0 (table 3a)",
        kind=Kind.greater,
        measure=Measure.score,
        sides=(_SIZE_M, _SIZE_S),
    ),
    Finding(
        id="resolution",
        paper="2",
        claim="A higher resolution scores higher: 48 px above 32 px",
        paper_says="336 px is 2 to 3 points above 224 px at every size (table 3a)",
        kind=Kind.greater,
        measure=Measure.score,
        sides=(
            Side(name="48 px", where=_where(pixels=Is("resolution.pixels", 48))),
            Side(name="32 px", where=_where()),
        ),
    ),
    Finding(
        id="mix_score",
        paper="3",
        claim="Text-only conversations in the mix raise the score on pictures",
        paper_says="about 2 points at 33B and 65B (table 5)",
        kind=Kind.greater,
        measure=Measure.score,
        sides=(_MIXED, _UNMIXED),
    ),
    Finding(
        id="mix_language",
        paper="3",
        claim="Without text in the mix, language is not worse than with it",
        paper_says="33B on Vicuna-80: 85.3 without, 80.3 with (table 5)",
        kind=Kind.not_worse,
        measure=Measure.text,
        sides=(_UNMIXED, _MIXED),
    ),
    Finding(
        id="language_kept",
        paper="3",
        claim="Tuning on pictures alone keeps language: not worse than before tuning",
        paper_says="33B on Vicuna-80: 85.6 before, 85.3 after (table 5)",
        kind=Kind.not_worse,
        measure=Measure.text,
        sides=(
            Side(name="after, no text in the mix", where=_UNMIXED.where),
            Side(name="before tuning", where=_UNMIXED.where, before=True),
        ),
    ),
    Finding(
        id="lora_full",
        paper="4",
        claim="LoRA is not worse than full tuning",
        paper_says="33B: LoRA-64 71.8, full 72.0 (table 4)",
        kind=Kind.not_worse,
        measure=Measure.score,
        sides=(_LORA_GOOD, _REFERENCE),
    ),
    Finding(
        id="qlora_full",
        paper="4",
        claim="QLoRA is not worse than full tuning",
        paper_says="33B: QLoRA-64 71.6, full 72.0 (table 4)",
        kind=Kind.not_worse,
        measure=Measure.score,
        sides=(
            Side(
                name="QLoRA r8",
                where=_where(method=_QLORA, rank=_RANK_8, alpha=_GOOD_ALPHA, lr=_GOOD_LR),
            ),
            _REFERENCE,
        ),
    ),
    Finding(
        id="cost_total",
        paper="5",
        claim="Cost follows total, not trainable parameters: rank 8 to 64 costs less than half "
        "of the step to the next model size",
        paper_says="33B LoRA-8 4.62 h, LoRA-64 4.79 h; 65B LoRA-64 9.17 h (table 4)",
        kind=Kind.costs_little,
        measure=Measure.cost,
        sides=(_LORA_LOW_LR, _LORA_LOW_LR_64, _SIZE_S, _SIZE_M),
    ),
    Finding(
        id="lora_lr",
        paper="6",
        claim="A low learning rate hurts LoRA",
        paper_says="33B LoRA-64: 71.8; with learning rate and alpha low 65.5 (text)",
        kind=Kind.greater,
        measure=Measure.score,
        sides=(_LORA_GOOD, _LORA_LOW_LR),
    ),
    Finding(
        id="lora_rank_repair",
        paper="6",
        claim="More rank repairs little of what a low learning rate costs: less than half",
        paper_says="rank 64 to 512 at the low setting: 65.5 to 68.1, of 71.8 (text)",
        kind=Kind.repairs_little,
        measure=Measure.score,
        sides=(_LORA_LOW_LR, _LORA_LOW_LR_64, _LORA_GOOD),
    ),
    Finding(
        id="lora_alpha",
        paper="6",
        claim="A low alpha hurts LoRA",
        paper_says="33B LoRA-64: 71.8; with learning rate and alpha low 65.5 (text)",
        kind=Kind.greater,
        measure=Measure.score,
        sides=(_LORA_GOOD, _LORA_LOW_ALPHA),
    ),
    Finding(
        id="sighted",
        paper="check",
        claim="The model looks: sighted above blind",
        paper_says="not in the paper; without it the other scores would mean nothing",
        kind=Kind.greater,
        measure=Measure.score,
        sides=(
            Side(name="sighted", where=_where()),
            Side(name="blind", where=_where(blind=Is("resolution.blind", True))),
        ),
    ),
)
