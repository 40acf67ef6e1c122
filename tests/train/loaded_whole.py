"""A training stage that loads whole weights, whatever its ZeRO stage; the engine splits them."""

from __future__ import annotations

from scalesweep.models.loading import ON_CPU
from scalesweep.stages import StageContext
from scalesweep.train import stage
from tests.train import sharded


def run(context: StageContext) -> None:
    sharded.split_every_weight()
    stage.weight_placement = lambda *_: ON_CPU
    stage.run(context)
