"""Answers as they come, appended to the attempt: no kill makes a question be asked twice.

Every replica has a log of its own and adds a batch at a time. A line says what the stage had read
and how it asked (`source`): answers of a checkpoint that was made again since, of other beams or
other stop strings are not taken. How long the batch took stands there too, so that the account of a
stage is whole however many attempts it needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalesweep.evaluate.questions import Answer

_FILES = "answered-*.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """One answer, and the batch that it was in."""

    benchmark: str
    answer: Answer
    batch_seconds: float
    batch_size: int


class AnswerLog:
    """What one replica of one attempt says."""

    def __init__(self, folder: Path, *, replica: int, source: str) -> None:
        self.path = folder / f"answered-{replica:03d}.jsonl"
        self._source = source

    def append(self, answered: Iterable[Answered]) -> None:
        """Add the answers of one batch; a kill afterwards loses none of them."""
        self._write([self._row(one) for one in answered])

    def finish(self) -> None:
        """Say that the replica's share is done."""
        self._write([{"finished": True, "source": self._source}])

    def _row(self, one: Answered) -> dict[str, Any]:
        answer = one.answer
        row: dict[str, Any] = {
            "benchmark": one.benchmark,
            "question_id": answer.question_id,
            "text": answer.text,
            "num_tokens": answer.num_tokens,
            "batch_seconds": round(one.batch_seconds, 6),
            "batch_size": one.batch_size,
            "source": self._source,
        }
        if answer.log_probs is not None:
            row |= {"log_probs": dict(answer.log_probs), "shots": answer.shots}
        return row

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(kw_only=True)
class AnswerLogs:
    """All that the logs of some attempts say; update() reads what was added since."""

    folders: list[Path]
    """Of attempts, the oldest first; a later answer to a question replaces an earlier one."""
    source: str
    answers: dict[str, dict[str, Answered]] = field(default_factory=dict)
    """Benchmark -> question_id -> answer."""
    finished: set[Path] = field(default_factory=set)
    """Logs that say they are."""
    _read: dict[Path, int] = field(default_factory=dict)
    """Bytes that were read of each log."""

    def update(self) -> None:
        for folder in self.folders:
            for path in sorted(folder.glob(_FILES)):
                self._update(path)

    def of(self, benchmark: str) -> Mapping[str, Answered]:
        return self.answers.get(benchmark, {})

    def _update(self, path: Path) -> None:
        """Lines that are whole; what is being written, or was torn by a kill, is left."""
        with path.open("rb") as file:
            file.seek(self._read.get(path, 0))
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._read[path] = self._read.get(path, 0) + len(whole)
        for line in whole.split(b"\n"):
            row = _parsed(line)
            if row is None or row.get("source") != self.source:
                continue
            if row.get("finished"):
                self.finished.add(path)
            else:
                one = _answered(row)
                self.answers.setdefault(one.benchmark, {})[one.answer.question_id] = one


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _answered(row: Mapping[str, Any]) -> Answered:
    return Answered(
        benchmark=row["benchmark"],
        answer=Answer(
            question_id=row["question_id"],
            text=row["text"],
            num_tokens=row["num_tokens"],
            log_probs=row.get("log_probs"),
            shots=row.get("shots"),
        ),
        batch_seconds=row["batch_seconds"],
        batch_size=row["batch_size"],
    )
