"""Benchmarks that can be answered and scored, and what may be chosen about each.

A leaf: the config checks options by it before anything is planned, the stages read them by it.
What each choice means stands in docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scalesweep.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One choice about a benchmark: its default, and what else it may be."""

    default: str | int | bool
    choices: tuple[str, ...] = ()
    """Words to choose from; empty: any value of the default's type."""
    minimum: int = 0
    """Of a number."""
    asks: bool = False
    """It changes what a model is asked, not only how its answers are judged."""

    def fault(self, value: object) -> str | None:
        """The rule that a value breaks, or None."""
        if self.choices and value not in self.choices:
            return f"choose one of {', '.join(self.choices)}"
        if type(value) is not type(self.default):
            kinds = {str: "text", int: "a whole number", bool: "true or false"}
            return f"must be {kinds[type(self.default)]}"
        if isinstance(value, int) and not isinstance(value, bool) and value < self.minimum:
            return f"must be at least {self.minimum}"
        if isinstance(value, str) and not value:
            return "must not be empty"
        return None


# Unparsable judgements: strict leaves them in the means as the official scripts do, exclude takes
# them out. Either way they are counted and shown.
_UNPARSABLE = Option(default="strict", choices=("strict", "exclude"))

OPTIONS: Mapping[str, Mapping[str, Option]] = {
    "mini_vqa": {},
    "mini_text": {},
    "llava_bench": {
        "context": Option(default="context.jsonl"),
        "reference": Option(default="answers_gpt4.jsonl"),
        "unparsable": _UNPARSABLE,
        "parsing": Option(default="llava", choices=("llava", "lmms_eval")),
    },
    "llava_bench_coco": {
        "context": Option(default="caps_boxes_coco2014_val_80.jsonl"),
        "reference": Option(default="qa90_gpt4_answer.jsonl"),
        "unparsable": _UNPARSABLE,
        "parsing": Option(default="llava", choices=("llava", "lmms_eval")),
    },
    "mm_vet": {
        "unparsable": _UNPARSABLE,
        "subset": Option(default="all", choices=("all", "bard_set"), asks=True),
    },
    "mmbench": {
        "prompt": Option(default="llava", choices=("llava", "vlmevalkit"), asks=True),
        "extraction": Option(default="current", choices=("current", "first_release")),
        "extractor": Option(default="exact", choices=("exact", "judge")),
    },
    "vicuna80": {
        "method": Option(default="relative", choices=("relative", "single", "pairwise")),
        "reference": Option(default="answer_gpt35.jsonl"),
        "unparsable": _UNPARSABLE,
        "math": Option(default="first_line", choices=("first_line", "last_line")),
        "solutions": Option(default="reference_answer_gpt-4.jsonl"),
    },
    "mmlu": {"shots": Option(default=5, asks=True), "dev": Option(default="dev", asks=True)},
}
"""Benchmark -> option -> what it may be. Files are relative to the data set's root."""


PICTURES = frozenset({"mini_vqa", "llava_bench", "llava_bench_coco", "mm_vet", "mmbench"})
"""Benchmarks that ask about pictures."""


BY_LETTERS = ("mmlu",)
"""Benchmarks whose answers are letters that are compared: beams and lengths change none."""


def needs_judge(benchmark: str, given: Mapping[str, Any]) -> bool:
    """Whether a judge model is asked by the rule that is chosen."""
    if benchmark == "mmbench":
        return bool(option_values(benchmark, given)["extractor"] == "judge")
    return benchmark in ("llava_bench", "llava_bench_coco", "mm_vet", "vicuna80")


def files_besides(benchmark: str, given: Mapping[str, Any]) -> dict[str, str]:
    """Option -> file below the data set's root that the chosen rule reads besides the questions."""
    values = option_values(benchmark, given)
    names = [name for name in values if name in ("context", "reference")]
    if benchmark == "vicuna80" and values["method"] == "single":
        names = ["solutions"]
    elif benchmark == "vicuna80" and values["method"] == "pairwise":
        names = ["reference", "solutions"]
    files = {name: str(values[name]) for name in names}
    return files | ({"subset": "bard_set.json"} if values.get("subset") == "bard_set" else {})


def option_values(benchmark: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a benchmark: what is given, else the default."""
    known = OPTIONS[benchmark]
    return {name: given.get(name, option.default) for name, option in known.items()}


def check_options(benchmark: str, given: Mapping[str, Any], *, key: str) -> None:
    """Refuse an unknown benchmark, an unknown option or a value that it cannot have.

    key: dotted key of the benchmark's options, for the message.

    Raises:
        ConfigError: with the way out.
    """
    if benchmark not in OPTIONS:
        raise ConfigError(f"{key}: no such benchmark; choose one of {', '.join(OPTIONS)}")
    for name, value in given.items():
        if name not in OPTIONS[benchmark]:
            known = ", ".join(OPTIONS[benchmark]) or "none"
            raise ConfigError(
                f"{key}.{name}={value}: {benchmark} has no such option; it has {known}"
            )
        if (fault := OPTIONS[benchmark][name].fault(value)) is not None:
            raise ConfigError(f"{key}.{name}={value}: {fault}")
