"""Answers as they come, appended to the attempt: no kill makes a question be asked twice.

Each says what the stage had read: answers of a checkpoint that was made again since are not taken.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from scalesweep.evaluate.generation import Answer

FILE = "answered.jsonl"


def append(folder: Path, benchmark: str, answers: Iterable[Answer], *, inputs: str) -> None:
    """Add answers of one batch; inputs: digest of what the stage reads."""
    rows = [
        {
            "benchmark": benchmark,
            "number": a.number,
            "text": a.text,
            "num_tokens": a.num_tokens,
            "inputs": inputs,
        }
        for a in answers
    ]
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def read(folders: Sequence[Path], benchmark: str, *, inputs: str) -> dict[int, Answer]:
    """Answers to one benchmark that these attempts have already, given from the same inputs.

    A torn last line is left out.
    """
    found: dict[int, Answer] = {}
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            text = (folder / FILE).read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines(keepends=True):
                answer = _parsed(line, benchmark, inputs)
                if answer is not None:
                    found[answer.number] = answer
    return found


def _parsed(line: str, benchmark: str, inputs: str) -> Answer | None:
    if not line.endswith("\n"):
        return None
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    if not isinstance(row, dict):
        return None
    if row.get("benchmark") != benchmark or row.get("inputs") != inputs:
        return None
    return Answer(number=row["number"], text=row["text"], num_tokens=row["num_tokens"])
