"""Which option a free answer chooses, by VLMEvalKit's rules. Pure.

Two rule sets that disagree on several inputs (tests/evaluate/test_extraction.py has a table):
current is open-compass/VLMEvalKit at e8e78f0, first_release its first release, 9ac258c. Neither
is a good reader of English, both are reproduced as they are: "A person is riding" chooses A in
the first release, and "the answer is dog" chooses D today.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

NONE_FITS = "Z"
"""Refused, or none of the options: always wrong. The first release writes E for it."""

_API_FAILURE = "Failed to obtain answer via API"
_SEPARATORS = str.maketrans(".()[],:;!*#{}", " " * 13)
_PROMPTS = Path(__file__).parent / "prompts"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """One rule set."""

    name: str
    letters: str | None
    """Letters looked for, whatever the options; None: those of the options."""
    refusals: tuple[str, ...]
    none_fits: str
    """The letter that the rule set writes for it."""
    max_letter_distance: int | None
    """A lone letter counts within so many tokens of the end; None: anywhere."""
    phrase: re.Pattern[str] | None
    """Looked for where no letter stands alone."""
    bounded_text: bool
    """An answer longer than twice all options together is not compared with their texts."""
    max_tokens: int
    """Of the language model that is asked where the rules find nothing."""


RULES = {
    "current": Rules(
        name="current",
        letters=None,
        refusals=(
            "Sorry, I can't help with images of people yet.",
            "I can't process this file.",
            "I'm sorry, but without the image provided",
            "Cannot determine the answer",
        ),
        none_fits="Z",
        max_letter_distance=4,
        # No word ends after the letter, and case is ignored: "answer is dog" is D.
        phrase=re.compile(r"(?:correct\s+)?answer\s+is\s+\**([ABCD])\**", re.IGNORECASE),
        bounded_text=True,
        max_tokens=2048,
    ),
    "first_release": Rules(
        name="first_release",
        letters="ABCDE",
        refusals=(
            "Sorry, I can't help with images of people yet.",
            "I can't process this file.",
        ),
        none_fits="E",
        max_letter_distance=None,
        phrase=None,
        bounded_text=False,
        max_tokens=1024,
    ),
}


def extract(answer: str, options: Mapping[str, str], rules: Rules) -> str | None:
    """The letter that an answer chooses, NONE_FITS, or None where the rules find nothing.

    options: letter -> text. A letter may come back that is no option: the first release looks
    for A to D whatever the options are.
    """
    return _by_letter(answer, options, rules) or _by_text(answer, options, rules)


def _by_letter(answer: str, options: Mapping[str, str], rules: Rules) -> str | None:
    if _API_FAILURE in answer:
        return None
    if any(refusal in answer for refusal in rules.refusals):
        return NONE_FITS
    tokens = answer.translate(_SEPARATORS).split()
    found = [letter for letter in rules.letters or options if letter in tokens]
    if len(found) == 1 and _is_near_the_end(tokens, found[0], rules.max_letter_distance):
        return NONE_FITS if found[0] == rules.none_fits else found[0]
    if not found and rules.none_fits in tokens:
        return NONE_FITS
    if rules.phrase is not None and (match := rules.phrase.search(answer)):
        letter = match.group(1).upper()
        return letter if letter in options else None
    return None


def _is_near_the_end(tokens: list[str], letter: str, distance: int | None) -> bool:
    """Whether its first place is among the last so many tokens."""
    return distance is None or tokens.index(letter) >= len(tokens) - distance


def _by_text(answer: str, options: Mapping[str, str], rules: Rules) -> str | None:
    """The only option whose text, in lower case, is a part of the answer."""
    answer = answer.lower()
    if rules.bounded_text and len(answer) > 2 * sum(map(len, options.values())):
        return None
    found = [letter for letter, text in options.items() if text.lower() in answer]
    return found[0] if len(found) == 1 else None


def matching_prompt(question: str, options: Mapping[str, str], answer: str, rules: Rules) -> str:
    """What a language model is asked where the rules find nothing; Chinese for Chinese questions.

    Source: build_prompt, build_prompt_cn and build_option_str of the rule set's VLMEvalKit.
    """
    language = "zh" if re.search("[\u4e00-\u9fff]", question) else "en"
    listed = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    return _template(rules.name, language).format(
        question, f"There are several options: \n{listed}", answer
    )


@lru_cache(maxsize=4)
def _template(rules: str, language: str) -> str:
    return (_PROMPTS / f"mmbench_{rules}_{language}.txt").read_text(encoding="utf-8")
