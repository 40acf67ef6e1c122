"""A training stage that sends itself a signal in a step; rank.py runs it in place of the stage.

signal.json of the attempt says which: {"signal": 9, "step": 5, "ranks": [0, 1], "in_save": false}.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scalesweep.rundir import read_json
from scalesweep.stages import StageContext
from scalesweep.train import keeper, stage
from tests.train import sharded


def run(context: StageContext) -> None:
    order = read_json(context.attempt.path / "signal.json")
    if order["in_save"]:
        keeper.complete = functools.partial(_killed, order["signal"])
    elif context.rank in order["ranks"]:
        flag = SignalAfter(
            context.stop_requested,
            number=order["signal"],
            step=order["step"],
            checkpoints=context.attempt.checkpoints,
        )
        context = replace(context, stop_requested=flag)
    if context.execution.zero_stage == 3:
        sharded.split_every_weight()
    stage.run(context)


def _killed(number: int, *_: Any, **__: Any) -> Path:
    """All ranks have written their part of the checkpoint; it is not complete."""
    os.kill(os.getpid(), number)
    raise AssertionError("SIGKILL lets nobody get here")


@dataclass
class SignalAfter:
    """Stands where the loop asks, once a step, whether to stop."""

    flag: Callable[[], bool]
    number: int
    step: int
    checkpoints: Path
    _asked: int = 0

    def __call__(self) -> bool:
        self._asked += 1
        if self._asked == self.step:
            # Which checkpoints there are then must not hang on how fast the disk is.
            while list(self.checkpoints.glob(".step-*")):
                time.sleep(0.01)
            os.kill(os.getpid(), self.number)
        return self.flag()
