"""A trainer without torch that takes its time: stands in for every kind's run(context).

It goes through steps of SLOW_TRAINER_STEP_S seconds, writes metric rows and checkpoints as the real
loop does, resumes from the newest whole checkpoint that was made from the same inputs, and stops at
a step when asked to. Its state is a chain of hashes over the bytes of its inputs: a step that is
lost or done twice, or an input with other bytes, gives another output.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from scalesweep.errors import Interrupted, StoreError
from scalesweep.records import StageKind, canonical_json
from scalesweep.rundir import read_json, write_json
from scalesweep.stages import StageContext
from scalesweep.tracking import metric_names as names

STEP_SECONDS = "SLOW_TRAINER_STEP_S"
"""Environment variable: seconds a step takes."""
STEPS = {
    StageKind.data: 10,
    StageKind.base: 40,
    StageKind.align: 30,
    StageKind.tune: 60,
    StageKind.generate: 30,
    StageKind.judge: 5,
}
CHECKPOINT_EVERY = 4
TOKENS = 10
"""Of a step."""


@dataclass(frozen=True)
class State:
    """Where a run stands."""

    step: int
    chain: str

    def advanced(self, inputs: str) -> State:
        return State(self.step + 1, _hash(self.chain + inputs))


def run(context: StageContext) -> None:
    """Raises: Interrupted: a stop was asked for; a checkpoint is written."""
    inputs = context.inputs_digest()
    total = STEPS[context.spec.kind]
    step_s = float(os.environ.get(STEP_SECONDS, "0.2"))
    state = resumed(context, inputs)
    while state.step < total:
        time.sleep(step_s)
        state = state.advanced(inputs)
        context.log_metrics(_row(state, total, step_s))
        if context.stop_requested() and state.step < total:
            save(context, state, inputs)
            raise Interrupted(f"stopped after step {state.step} of {total}")
        if state.step % CHECKPOINT_EVERY == 0:
            save(context, state, inputs)
    if context.is_main:
        write_json(context.attempt.output / "result.json", asdict(state))
        (context.attempt.output / "weights.bin").write_bytes(bytes.fromhex(state.chain) * 4096)


def save(context: StageContext, state: State, inputs: str) -> None:
    if not context.is_main:
        return
    record = {"inputs": inputs, **asdict(state)}
    context.attempt.checkpoints.mkdir(exist_ok=True)
    path = context.attempt.checkpoints / f"step-{state.step:08d}.json"
    write_json(path, {**record, "sha256": _hash(canonical_json(record))})


def resumed(context: StageContext, inputs: str) -> State:
    """State of the newest whole checkpoint of earlier attempts, or the beginning."""
    folders = [attempt.checkpoints for attempt in context.earlier_attempts()]
    paths = [path for folder in folders for path in folder.glob("step-*.json")]
    for path in sorted(paths, key=lambda path: path.name, reverse=True):
        if (state := _whole(path, inputs)) is not None:
            print(f"resumed after step {state.step} from {path}")
            return state
    return State(0, _hash(context.spec.key))


def _whole(path: Path, inputs: str) -> State | None:
    try:
        record = read_json(path)
        digest = record.pop("sha256")
    except (OSError, StoreError, KeyError):
        return None
    if digest != _hash(canonical_json(record)) or record["inputs"] != inputs:
        return None
    return State(record["step"], record["chain"])


def _row(state: State, total: int, step_s: float) -> dict[str, float | int | str]:
    return {
        names.PROGRESS_DONE: state.step,
        names.PROGRESS_TOTAL: total,
        names.PROGRESS_UNIT: "step",
        names.STEP: state.step,
        names.LOSS: 1 / state.step,
        names.TOKENS_PER_SECOND: TOKENS / max(step_s, 1e-6),
        names.TOKENS: TOKENS,
        names.TOKENS_SEEN: TOKENS * state.step,
        names.STEP_SECONDS: step_s,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
