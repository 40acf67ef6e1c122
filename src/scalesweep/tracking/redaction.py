"""A cell's config as strangers may see it: without secrets and without private paths."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scalesweep.report.formatting import public
from scalesweep.report.labels import BOOKKEEPING_KEYS

REDACTED = "***"

_SOUNDS_SECRET = re.compile(r"(?i)(key|token|secret|passw|credential)")
_ONLY_SOUNDS_SO = frozenset({"tokenizer", "tokenizer_path", "max_new_tokens", "micro_batch_tokens"})
"""Names in our own schema that hold a hash, a place and numbers."""


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parts that change results. Of an absolute path its last name stays."""
    return {
        public(name): _public_value(name, value)
        for name, value in config.items()
        if name not in BOOKKEEPING_KEYS
    }


def sounds_secret(name: str) -> bool:
    """Whether the value under a key must not leave this machine."""
    return bool(_SOUNDS_SECRET.search(name)) and name not in _ONLY_SOUNDS_SO


def _public_value(name: str, value: Any) -> Any:
    if value is not None and sounds_secret(name):
        return REDACTED
    if isinstance(value, Mapping):
        return {public(str(key)): _public_value(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_public_value("", part) for part in value]
    return public(value) if isinstance(value, str) else value
