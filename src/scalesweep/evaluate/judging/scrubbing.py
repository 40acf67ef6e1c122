"""Keeping keys out of whatever is written down. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

HIDDEN = "***"
SHORTEST = 6
"""A shorter word is no secret; it would be cut out of ordinary text."""
SHORTEST_KEY = 4
"""Of an API key, which is a secret whatever it looks like."""
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


def secrets_of_proxy(url: str) -> set[str]:
    """Password, "user:password" as it is written and as it is meant, and its header.

    Not the user alone: it may be any word of a reply.
    """
    written = url.partition("://")[2] or url
    written = written.rpartition("@")[0]
    if not written:
        return set()
    user, _, password = written.partition(":")
    meant = f"{unquote(user)}:{unquote(password)}"
    header = base64.b64encode(meant.encode()).decode()
    return {written, meant, password, unquote(password), header} - {""}


def _forms(secret: str) -> set[str]:
    """As it may stand in an address, a JSON text or a header."""
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    lower = {re.sub("%[0-9A-F]{2}", lambda code: code[0].lower(), form) for form in quoted}
    return {secret, json.dumps(secret)[1:-1], *quoted, *lower}


class Scrubber:
    """Takes known secrets, and what looks like one, out of text."""

    def __init__(self, secrets: Iterable[str], *, keys: Iterable[str] = ()) -> None:
        forms = set()
        for shortest, known in ((SHORTEST, secrets), (SHORTEST_KEY, keys)):
            for secret in known:
                if len(secret) >= shortest:
                    forms |= _forms(secret)
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
