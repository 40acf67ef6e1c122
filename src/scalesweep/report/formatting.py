"""Numbers and texts as people read them; nothing private leaves through here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

NOTHING = "–"
"""Shown where there is no value."""


def score(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def score_with_error(value: float | None, standard_error: float | None) -> str:
    if value is None or standard_error is None:
        return score(value)
    return f"{value:.3f} ± {standard_error:.3f}"


def signed(value: float | None) -> str:
    return NOTHING if value is None else f"{value:+.3f}".replace("-", "−")


def plain_signed(value: float) -> str:
    """With a sign only where negative: ends of an interval."""
    return f"{value:.3f}".replace("-", "−")


def p_value(value: float) -> str:
    """Two digits; "< 0.001" below."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def decimals_for(values: Iterable[float], *, most: int = 6) -> int:
    """Decimals that give the smallest positive value two digits; the same for a whole column."""
    positive = [value for value in values if value > 0]
    if not positive:
        return 2
    return min(max(1 - math.floor(math.log10(min(positive))), 2), most)


def usd(value: float, *, decimals: int | None = None) -> str:
    return f"${value:,.{decimals_for([value]) if decimals is None else decimals}f}"


def number(value: float, *, decimals: int) -> str:
    return f"{value:,.{decimals}f}"


def count(value: int) -> str:
    """34,880 -> "34.9 k"; 13,015,864,320 -> "13.0 B"."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * size:  # 999,600 is 1.00 M, not 1000 k
            scaled = value / size
            return f"{scaled:.{0 if scaled >= 99.95 else 1 if scaled >= 9.995 else 2}f} {unit}"
    return str(value)


def percent(share: float) -> str:
    return f"{share * 100:.0f} %".replace("-", "−")


def duration(seconds: float) -> str:
    """4,210 s -> "1 h 10 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if seconds < 600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02d} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def degrees_of_freedom(df: float) -> str:
    return "∞" if math.isinf(df) or df >= 99_999 else f"{df:.0f}" if df >= 9.95 else f"{df:.1f}"


def plural(number_of: int, noun: str) -> str:
    return f"{number_of} {noun}" if number_of == 1 else f"{number_of} {noun}s"


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    text = text.strip()
    if not text:
        return text
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")


_SECRET = re.compile(
    r"(?i)\b([\w.]*(?:api[_-]?key|token|secret|password|passwd|credential)[\w.]*\s*[=:]\s*)"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;)}\]]+)"
)
_BARE_SECRET = re.compile(
    r"\b(?:(?:sk|hf|ghp|gho|glpat|xox[abp]|wandb_v\d+)[-_][A-Za-z0-9_-]{12,}\b"
    r"|(?<=[Bb]earer )[\w.~+/=-]{12,})"
)
_URL_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_PATH = re.compile(
    r"(?<![\w/.~…-])(?:~|file://)?/(?=[^\s/])(?:[^\s/'\"<>:;,)(=]+/)*([^\s/'\"<>:;,)(=]*)"
)


def public(text: str) -> str:
    """The text without absolute paths (their last name stays) and without what looks secret."""
    text = _SECRET.sub(r"\1***", text)
    text = _BARE_SECRET.sub("***", text)
    text = _URL_LOGIN.sub("", text)
    return _PATH.sub(lambda found: f"…/{found[1]}" if found[1] else "…/", text)
