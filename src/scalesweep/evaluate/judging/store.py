"""What judges replied, kept for ever: one file per request, run and re-ask, below the store's root.

    <store>/judge_replies/3f/3f0c....json                   a reply
    <store>/judge_replies/3f/3f0c....refused-9d1e2b7a.json  that endpoint's filter gave none

The name is a hash of everything that was asked, so every study finds the replies of all others. A
file is written beside, flushed and linked: it is there whole or not at all, and of two processes
that ask the same the first one's reply is everybody's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.evaluate.judging.items import Request
from scalesweep.records import canonical_json, check_schema
from scalesweep.rundir import ABSENT, fsync_directory

log = logging.getLogger(__name__)

SCHEMA = 1
PROBE_BYTES = 64 * 1024
"""More than a reply has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One question to a judge, with all that tells its reply from others."""

    model: str
    request: Request
    source: str
    """JudgeSpec.source: whose model it is."""
    run: int = 0
    """Judge run, from 0."""
    reask: int = 0
    """How many replies to the first request had no verdict."""

    def to_json(self) -> dict[str, Any]:
        request = self.request.to_json()
        # 0 and 0.0 are one temperature.
        request["temperature"] = float(request["temperature"])
        return {
            "model": self.model,
            "source": self.source,
            "run": self.run,
            "reask": self.reask,
            **request,
        }

    @property
    def key(self) -> str:
        return hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredReply:
    """What came of one request."""

    asked: Mapping[str, Any]
    """Asked.to_json()."""
    text: str
    """Of a refused one: what came before the filter cut it off, mostly nothing."""
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    """As the endpoint counted; None where it sent no usage."""
    answered_by: str | None
    """Model that the endpoint named."""
    endpoint: str
    """Its host, no more of the address."""
    at: str
    """When it came, UTC."""
    refused: str | None = None
    """Why the endpoint gave no reply, for good."""

    def to_json(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"schema": SCHEMA, **fields, "digest": _digest(fields)}


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()


@dataclass(frozen=True)
class ReplyStore:
    """All replies of a store. Safe for several processes at once."""

    folder: Path

    def find(self, asked: Asked, *, endpoint: str) -> StoredReply | None:
        """The reply to it, or that this endpoint refuses it; None: it has to be asked.

        A file that is damaged, or is not the reply to this, is put aside and named.

        Raises:
            StoreError: the files cannot be read.
        """
        key = asked.key
        with self._said("read"):
            reply = self._read(self._file(key), key)
            return reply or self._read(self._refused_file(key, endpoint), key)

    def check_writable(self) -> None:
        """Write and remove a file: what cannot be kept must not be paid for.

        Raises:
            StoreError: no file can be written, or the disk is full.
        """
        probe = self.folder / f".probe.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        with self._said("written"):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                with probe.open("wb") as handle:
                    handle.write(b"." * PROBE_BYTES)
                    handle.flush()
                    os.fsync(handle.fileno())
            finally:
                probe.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """What the file system refuses, as one line."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self.folder}: judges' replies cannot be {what} there "
                f"({error.strerror or type(error).__name__}); free or mend it, and the same line "
                "goes on with the rest"
            ) from error

    def add(self, asked: Asked, reply: StoredReply) -> StoredReply:
        """Keep it; what is kept is returned, another's where that one was first.

        Raises:
            StoreError: it cannot be written.
        """
        with self._said("written"):
            return self._added(asked, reply)

    def _added(self, asked: Asked, reply: StoredReply) -> StoredReply:
        key = asked.key
        file = self._file(key)
        if reply.refused is not None:
            file = self._refused_file(key, reply.endpoint)
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
        try:
            with beside.open("w", encoding="utf-8") as handle:
                json.dump(reply.to_json(), handle, indent=1, allow_nan=False)
                handle.flush()
                os.fsync(handle.fileno())
            if not _linked(beside, file) and (first := self._read(file, key)) is not None:
                return first
            if beside.exists():
                beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
        fsync_directory(file.parent)
        return reply

    def all(self) -> Iterator[StoredReply]:
        """Every reply of every study, in the order of their names; damaged files are left out."""
        for file in sorted(self.folder.glob("??/*.json")):
            if (reply := _parsed(file, file.name.partition(".")[0])) is not None:
                yield reply

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _refused_file(self, key: str, endpoint: str) -> Path:
        host = hashlib.sha256(endpoint.encode()).hexdigest()[:8]
        return self.folder / key[:2] / f"{key}.refused-{host}.json"

    def _read(self, file: Path, key: str) -> StoredReply | None:
        if not file.exists():
            return None
        reply = _parsed(file, key)
        if reply is None:
            aside = file.with_name(f"{file.name}.damaged-{uuid.uuid4().hex[:8]}")
            with contextlib.suppress(*ABSENT):  # another process put it aside
                file.rename(aside)
                log.warning("%s is damaged or no reply to its name; now %s", file, aside.name)
        return reply


def _linked(beside: Path, file: Path) -> bool:
    """Give a file its name unless that is taken; False where it is, or links are not known here."""
    try:
        os.link(beside, file)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        return False
    return True


def _parsed(file: Path, key: str) -> StoredReply | None:
    """None unless it is whole and the reply to that key.

    Raises:
        StoreError: a later version wrote it.
    """
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(data["schema"], int):
            check_schema(data, str(file))
        fields = {name: data[name] for name in StoredReply.__dataclass_fields__}
        whole = data["digest"] == _digest(fields)
        named = hashlib.sha256(canonical_json(fields["asked"]).encode()).hexdigest() == key
    except (*ABSENT, IsADirectoryError, ValueError, KeyError, TypeError, AttributeError,
            RecursionError):  # fmt: skip
        return None
    return StoredReply(**fields) if whole and named else None
