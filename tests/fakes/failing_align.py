"""The slow trainer, but the alignment of seed 3 fails by its own error."""

from __future__ import annotations

from scalesweep.errors import StageError
from scalesweep.records import StageKind
from scalesweep.stages import StageContext
from tests.fakes import slow_trainer


def run(context: StageContext) -> None:
    if context.spec.kind is StageKind.align and context.spec.identity["seed"] == 3:
        raise StageError("seed 3 has no luck")
    slow_trainer.run(context)
