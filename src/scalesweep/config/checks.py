"""Small rules for single settings. Each raises one ConfigError: key, value, rule, way out."""

from __future__ import annotations

import math

from scalesweep.errors import ConfigError


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Refuse a value that breaks a rule."""
    if not condition:
        raise ConfigError(f"{key}={shown(value)}: {rule}")


def shown(value: object) -> str:
    """A value as it is typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def at_least(minimum: int, **settings: tuple[str, int | None]) -> None:
    """Refuse counts below a minimum; None means not set. Called as name=(key, value)."""
    for key, value in settings.values():
        if value is not None:
            require(value >= minimum, key, value, f"must be at least {minimum}")


def positive(key: str, value: float | None) -> None:
    """Refuse zero, negative, infinite and not-a-number."""
    if value is not None:
        require(
            math.isfinite(value) and value > 0, key, value, "must be a finite number above zero"
        )


def not_negative(key: str, value: float | None) -> None:
    """Refuse negative, infinite and not-a-number."""
    if value is not None:
        require(
            math.isfinite(value) and value >= 0, key, value, "must be a finite number, zero or more"
        )


def fraction(key: str, value: float | None) -> None:
    """Refuse what is not in [0, 1)."""
    if value is not None:
        require(0 <= value < 1, key, value, "must be at least 0 and below 1")


def one_of(key: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not a choice."""
    require(value in choices, key, value, f"choose one of {', '.join(choices)}")


def exactly_one(**settings: tuple[str, object]) -> None:
    """Refuse unless exactly one of several settings is given. Called as name=(key, value)."""
    given = [f"{key}={shown(value)}" for key, value in settings.values() if value is not None]
    keys = " and ".join(key for key, _ in settings.values())
    if len(given) != 1:
        found = " and ".join(given) if given else "neither"
        raise ConfigError(f"{keys}: exactly one must be set, found {found}; set the other to null")
