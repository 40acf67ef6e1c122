"""The replies of a judge to all items of a benchmark, in all of its runs."""

from __future__ import annotations

from collections.abc import Sequence

from scalesweep.errors import StageError
from scalesweep.evaluate.judging.items import JudgeItem, Replies
from scalesweep.specs import JudgeSpec
from scalesweep.stages import StageContext


def ask(
    context: StageContext, spec: JudgeSpec, benchmark: str, items: Sequence[JudgeItem]
) -> list[Replies]:
    """Replies of each judge run, those of the store first.

    Raises:
        StageError: no judge is named, or it cannot be reached.
    """
    del context, items
    raise StageError(f"{benchmark} by {spec.scorer}: no judge can be asked; take judge=gpt4")
