"""Keeping keys out of whatever is written down. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote, urlsplit

HIDDEN = "***"
SHORTEST = 6
"""A shorter word is no secret; it would be cut out of ordinary text."""
LONGEST_LINE = 200

_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',}]+"), rf"\1 {HIDDEN}"),
    (re.compile(r"\bsk-[^\s\"',}]+"), HIDDEN),  # OpenAI quotes a part of a wrong key
    (re.compile(r"//[^/\s\"'@]+@"), f"//{HIDDEN}@"),
    (re.compile(r"(https?://[^\s\"'?]+)\?[^\s\"']*"), rf"\1?{HIDDEN}"),
    (re.compile(r"(?i)\b((?:api[-_]?)?key|token|password|secret)([\"']?\s*[=:]\s*[\"']?)[^\s\"',}]+"),
     rf"\1\2{HIDDEN}"),
)  # fmt: skip


def secrets_of_url(url: str) -> set[str]:
    """User, password, values of the query, and the header that user and password become."""
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    found = {user, password, *(value for _, value in parse_qsl(parts.query))}
    if user or password:
        found.add(base64.b64encode(f"{user}:{password}".encode()).decode())
    return found


class Scrubber:
    """Takes known secrets, and what looks like one, out of text."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = set()
        for secret in secrets:
            if len(secret) >= SHORTEST:
                forms |= {secret, quote(secret, safe=""), json.dumps(secret)[1:-1]}
        self._forms = sorted(forms, key=len, reverse=True)

    def __repr__(self) -> str:
        return "Scrubber()"

    def known(self, text: str) -> str:
        """Without the secrets themselves; any other text stays as it is."""
        for form in self._forms:
            text = text.replace(form, HIDDEN)
        return text

    def line(self, text: str) -> str:
        """One short line for people, without anything that looks like a secret."""
        text = self.known(text)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        text = " ".join(text.split())
        return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 1]}…"
