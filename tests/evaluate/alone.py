"""Runs one stage in this process and prints what it imported. `python -m tests.evaluate.alone JSON`

It is a process of its own, not forked from one that has imported the trainer.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path

from scalesweep import stages
from scalesweep.records import Execution, StageRef
from scalesweep.rundir import Store


def main(text: str) -> None:
    task = json.loads(text)
    store = Store(Path(task["store"]))
    stage = store.stage(StageRef.parse(task["ref"]))
    attempt = stage.attempt(task["attempt"])
    killed_after = task["killed_after"]
    tokens = itertools.count()

    def stop() -> bool:
        """Asked before every batch and before every token."""
        logs = attempt.path.glob("answered-*.jsonl")
        answered = sum(log.read_text("utf-8").count("question_id") for log in logs)
        if killed_after is not None and answered >= killed_after and next(tokens) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    stages.run(
        stages.StageContext(
            store=store,
            stage=stage,
            attempt=attempt,
            spec=stage.spec(),
            execution=Execution(
                cluster="local", micro_batch_size=task["micro_batch_size"], paths=task["paths"]
            ),
            inputs={role: Path(path) for role, path in task["inputs"].items()},
            stop_requested=stop,
        )
    )
    print("\n".join(sys.modules))


if __name__ == "__main__":
    main(sys.argv[1])
