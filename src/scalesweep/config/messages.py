"""Hydra's and OmegaConf's errors as one clear message: key, value, rule, way out."""

from __future__ import annotations

import difflib
import re

from omegaconf.errors import OmegaConfBaseException

from scalesweep.config.paths import conf_dir
from scalesweep.errors import ConfigError


def from_hydra(error: Exception) -> ConfigError:
    """One line instead of Hydra's several."""
    text = "\n".join(_texts(error))
    for rule in (_missing_option, _unknown_group, _unknown_key, _wrong_type, _unparsable):
        message = rule(text)
        if message:
            return ConfigError(message)
    return ConfigError(" ".join(text.split()))


def _texts(error: BaseException) -> list[str]:
    texts, seen = [], error
    while seen is not None:
        if isinstance(seen, OmegaConfBaseException):
            texts.append(f"{seen}\nfull_key: {getattr(seen, 'full_key', '')}")
        else:
            texts.append(str(seen))
        seen = seen.__cause__  # type: ignore[assignment]
    return texts


def _missing_option(text: str) -> str | None:
    """A group has no such option."""
    match = re.search(r"Could not find '([\w@/]+)/([^']*)'", text)
    if not match:
        return None
    group, option = match.groups()
    options = sorted(p.stem for p in (conf_dir() / group).glob("*.yaml"))
    return (
        f"{group}={option}: no such option; {_near(option, options)}choose one of {_list(options)}"
    )


def _unknown_group(text: str) -> str | None:
    match = re.search(r"Could not override '([^']+)'\.\s*No match in the defaults list", text)
    return _no_such_key(match.group(1)) if match else None


def _unknown_key(text: str) -> str | None:
    match = re.search(r"Could not override '([^']+)'", text)
    return _no_such_key(match.group(1)) if match and "not in struct" in text else None


def _no_such_key(key: str) -> str:
    groups = sorted(p.name for p in conf_dir().iterdir() if p.is_dir())
    head, dot, tail = key.partition(".")
    if not dot:
        known = [*groups, "study", "seed", "store", "until", "nodes", "precision"]
        return f"{key}: no such setting; {_near(key, known)}see python -m scalesweep --cfg job"
    if head in groups:
        keys = _keys_of(head)
        return f"{key}: no such setting; {_near(tail, keys, head)}{head} has {_list(keys)}"
    return f"{key}: no such setting; {_near(head, groups)}see python -m scalesweep --cfg job"


def _keys_of(group: str) -> list[str]:
    import yaml

    keys: set[str] = set()
    for path in (conf_dir() / group).glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        data = yaml.safe_load(text) or {}
        if "@package _global_" in text:
            data = data.get(group, {})
        keys |= {str(key) for key in data if key != "defaults"}
    return sorted(keys)


def _wrong_type(text: str) -> str | None:
    match = re.search(
        r"Value '(.*?)'.* could not be converted to (\w+).*?full_key: (\S+)", text, re.S
    )
    if not match:
        return None
    value, wanted, key = match.groups()
    return f"{key}={value}: must be of type {wanted.lower()}"


def _unparsable(text: str) -> str | None:
    match = re.search(r"(?:Error parsing override '(.*?)'\s*)?(.*at input '.*?')", text)
    if not match:
        return None
    override, problem = match.groups()
    where = f"{override}: " if override else ""
    return f"{where}cannot be read ({problem.strip()}); quote special characters"


def _near(word: str, choices: list[str], prefix: str = "") -> str:
    near = difflib.get_close_matches(word, choices, n=1)
    if not near:
        return ""
    return f"did you mean {prefix + '.' if prefix else ''}{near[0]}? "


def _list(words: list[str]) -> str:
    return ", ".join(words)
