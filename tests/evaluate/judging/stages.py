"""Judge stages of a LLaVA-Bench of any length, asked of a server on loopback.

python -m tests.evaluate.judging.stages JSON   runs one in a process of its own
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scalesweep import stages
from scalesweep.errors import Interrupted
from scalesweep.records import Execution, StageKind, StageSpec
from scalesweep.rundir import AttemptDir, Store
from scalesweep.specs import BenchmarkSpec, JudgeSpec
from scalesweep.stages import StageContext
from tests.evaluate.judging.panels import MODEL, settings

CATEGORIES = ("conv", "detail", "complex")
BENCHMARK = BenchmarkSpec(name="llava_bench", dataset="bench", file="questions.jsonl")


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def make_bench(root: Path, count: int) -> None:
    """Questions, context, reference answers and answers in the official formats; once."""
    if root.exists():
        return
    numbers = range(count)
    _write(
        root / "bench" / "questions.jsonl",
        [
            {"question_id": n, "image": "001.jpg", "text": f"What is <{n}>?",
             "category": CATEGORIES[n % 3]}
            for n in numbers
        ],
    )  # fmt: skip
    _write(root / "bench" / "context.jsonl", [{"id": "1", "image": "001.jpg", "caption": "Text."}])
    for file, word in (
        (root / "bench" / "answers_gpt4.jsonl", "Reference"),
        (root / "generated" / "answers" / "llava_bench.jsonl", "Answer"),
    ):
        _write(file, [{"question_id": n, "text": f"{word} {n}."} for n in numbers])


def judged(
    root: Path,
    bench: Path,
    url: str,
    *,
    runs: int = 1,
    spec: Mapping[str, Any] | None = None,
    stop: Any = lambda: False,
    **changes: Any,
) -> StageContext:
    """The next attempt of the stage in the store at root. changes: of the judge's settings."""
    asked = JudgeSpec(
        **{
            "benchmarks": [BENCHMARK],
            "scorer": "openai",
            "model": MODEL,
            "num_runs": runs,
            "source": "test",
            **(spec or {}),
        }
    )
    made = StageSpec(
        kind=StageKind.judge, label="judge", recipe_version=1, identity=asked.to_identity()
    )
    store = Store(root / "store")
    stage = store.stage(made.ref)
    attempt = stage.attempt(len(stage.attempts()) + 1)
    attempt.path.mkdir(parents=True)
    return StageContext(
        store=store,
        stage=stage,
        attempt=attempt,
        spec=made,
        execution=Execution(cluster="local", judge=settings(url, **changes)),
        inputs={"answers": bench / "generated", "data:bench": bench / "bench"},
        stop_requested=stop,
    )


def started_alone(root: Path, bench: Path, url: str, **changes: Any) -> subprocess.Popen[str]:
    """The same in a process of its own, under way."""
    task = {"root": str(root), "bench": str(bench), "url": url, "changes": changes}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.evaluate.judging.stages", json.dumps(task)],
        cwd=Path(__file__).parents[3],
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_bytes(attempt: AttemptDir) -> dict[str, bytes]:
    folder = attempt.output
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    try:
        stages.run(judged(Path(task["root"]), Path(task["bench"]), task["url"], **task["changes"]))
    except Interrupted as stopped:
        sys.exit(str(stopped))
