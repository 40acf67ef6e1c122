"""How far a judge of today is off: answers with a published score, judged again."""

from __future__ import annotations

import io
import json
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scalesweep.errors import ConfigError, StageError
from scalesweep.evaluate.answer_files import read_answers
from scalesweep.evaluate.benchmarks.registry import benchmark
from scalesweep.evaluate.judging.ask import Panel
from scalesweep.evaluate.judging.items import silent_runs
from scalesweep.evaluate.judging.price import usd_text
from scalesweep.evaluate.scores import BenchmarkScore

FOLDER = Path(__file__).parent / "calibration"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Answers, and the official percent that somebody published for them."""

    answers: Path
    whole: float
    categories: Mapping[str, float]
    """Empty where only the whole was published."""
    source: str


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """What a benchmark is calibrated on when nothing else is named."""

    root: Path
    questions: str
    published: Published


FIXED = {
    "llava_bench": Fixed(
        root=FOLDER / "llava_bench",
        questions="questions.jsonl",
        published=Published(
            answers=FOLDER / "llava_bench" / "bard_0718.jsonl",
            whole=77.8,
            categories={"complex": 78.7, "conv": 83.7, "detail": 69.7},
            source="arXiv:2309.09958, table 1, judged by gpt-4-0314",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A judge's scores of published answers, beside the published ones."""

    title: str
    answers_of: str
    """Model whose answers they are."""
    judge: str
    published: Published
    score: BenchmarkScore
    account: Mapping[str, Any]
    """Of judging.json."""

    @property
    def offsets(self) -> tuple[float, ...]:
        """Of each run, in points."""
        return tuple(run - self.published.whole for run in self.score.runs)

    @property
    def offset(self) -> float | None:
        whole = self.score.whole.official
        return None if whole is None else whole - self.published.whole

    @property
    def offset_error(self) -> float | None:
        """Standard error of the offset over judge runs, in points; None for a single run."""
        if len(self.offsets) < 2:
            return None
        return statistics.stdev(self.offsets) / math.sqrt(len(self.offsets))

    def category_offset(self, name: str) -> float | None:
        then, now = self.published.categories.get(name), self.score.categories[name].official
        return None if then is None or now is None else now - then

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.score.benchmark,
            "answers_of": self.answers_of,
            "judge": self.judge,
            "published": {
                "official": self.published.whole,
                "categories": dict(self.published.categories),
                "source": self.published.source,
            },
            "offset": _rounded(self.offset),
            "offset_of_runs": [_rounded(offset) for offset in self.offsets],
            "offset_standard_error": _rounded(self.offset_error),
            "offset_of_categories": {
                name: _rounded(self.category_offset(name)) for name in self.score.categories
            },
            "score": self.score.to_json(),
            "judging": dict(self.account),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def chosen(name: str, *, answers: Path | None, published: float | None) -> Published:
    """What is judged again: the fixed answers of a benchmark, or others with their number.

    Raises:
        ConfigError: there are none, or answers without a number.
    """
    if name not in FIXED:
        raise ConfigError(f"judge calibrate {name}: choose one of {', '.join(FIXED)}")
    if answers is None and published is None:
        return FIXED[name].published
    if answers is None:
        raise ConfigError(f"--published={published:g}: of which answers? add --answers FILE")
    if not answers.is_file():
        raise ConfigError(f"--answers={answers}: is no file")
    if published is None:
        raise ConfigError(
            f"--answers={answers}: add --published N, the score that was published for them"
        )
    return Published(answers=answers, whole=published, categories={}, source="--published")


def calibrate(
    name: str, published: Published, make_panel: Callable[[Callable[..., None]], Panel]
) -> Calibration:
    """Ask a judge about published answers.

    make_panel: given where accounts go, the judge.

    Raises:
        DataError: the answers are not to these questions.
        StageError, Interrupted: as asking does.
    """
    fixed = FIXED[name]
    rules = benchmark(name, fixed.root, fixed.questions, {})
    saved = read_answers(published.answers, rules.questions)
    texts = {question: answer.text for question, answer in saved.items()}
    account: dict[str, Any] = {}
    panel = make_panel(account.update)
    replies = panel.ask(rules.judge_items(texts))
    score = rules.score(texts, replies)
    if score.whole.official is None:
        raise StageError(f"judge calibrate {name}: no reply of {panel.model} has a verdict in it")
    score = replace(score, notes=[*score.notes, *silent_runs(replies)])
    return Calibration(
        title=rules.title,
        answers_of=next(iter(saved.values())).model_id,
        judge=panel.model,
        published=published,
        score=score,
        account=account,
    )


# ---------------------------------------------------------------- shown


def as_json(found: Calibration) -> str:
    return json.dumps(found.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_text(found: Calibration, *, width: int = 80) -> str:
    """A page for people."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    for column in ("published", "now", "offset", "± s.e.", "questions", "missing", "unparsable"):
        table.add_column(column, justify="right")
    score = found.score
    rows = [("whole", found.published.whole, score.whole, found.offset)]
    rows += [
        (name, found.published.categories.get(name, math.nan), part, found.category_offset(name))
        for name, part in score.categories.items()
    ]
    for name, then, part, offset in rows:
        table.add_row(
            name,
            "" if math.isnan(then) else f"{then:.1f}",
            "no score" if part.official is None else f"{part.official:.1f}",
            "" if offset is None else f"{offset:+.1f}",
            "" if part.standard_error is None else f"{100 * part.standard_error:.1f}",
            str(part.num_questions),
            str(part.num_missing or "-"),
            str(part.num_unparsable or "-"),
        )
    console = Console(
        file=io.StringIO(), width=width, no_color=True, color_system=None, highlight=False,
        emoji=False, markup=False, legacy_windows=False,
    )  # fmt: skip
    console.print(
        Text(f"{found.title}: answers of {found.answers_of}, judged by {found.judge}"),
        Text(f"Published: {found.published.source}"),
        Text(""),
        table,
        Text(""),
        *(Text(line) for line in _facts(found)),
        sep="\n",
    )
    output = console.file
    assert isinstance(output, io.StringIO)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines()).rstrip() + "\n"


def _facts(found: Calibration) -> list[str]:
    score, account = found.score, found.account
    metered = account["metered"]
    runs = ", ".join(
        f"{run:.1f} ({offset:+.1f})" for run, offset in zip(score.runs, found.offsets, strict=True)
    )
    lines = [f"Judge runs (offset): {runs}"]
    if found.offset_error is not None:
        lines.append(
            f"Spread {score.run_spread:.2f} (population standard deviation of runs); standard "
            f"error of the offset over runs {found.offset_error:.2f}"
        )
    lines.append("± s.e. is over questions: how far another 60 of their kind may be off")
    lines.append(
        f"Paid: {usd_text(metered['usd'])} for {metered['replies']} replies "
        f"(estimated {usd_text(account['estimate']['usd'])}); {account['stored_before']} were "
        "stored"
    )
    if metered["unsure_usd"]:
        lines.append(f"Calls that broke off cost {usd_text(metered['unsure_usd'])} more at most")
    if missing := sum(account["missing"].values()):
        lines.append(f"{missing} replies are missing, so the offset is of the others alone")
    lines += score.notes
    return lines
