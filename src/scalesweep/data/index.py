"""One file of conversations, checked and in tokens: made once, then read from the cache.

The index knows neither resolution nor batch: pictures are one token each. Nor does it know the
sequence length, unless long conversations are to be split; what is too long is found by whoever
knows the limit. So all stages of a study share it.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL

from scalesweep.data.arrays import Array, read_arrays, write_arrays
from scalesweep.data.images import picture_defect
from scalesweep.data.readers import IMAGE, BrokenItem, Conversation, read_conversations
from scalesweep.data.splitting import encode_all, split_long
from scalesweep.data.tokenize import EncodedText, TextEncoder
from scalesweep.errors import DataError
from scalesweep.records import canonical_json
from scalesweep.rundir import sha256_of

log = logging.getLogger(__name__)

_VERSION = 1
"""Raised when the same file would give another index."""
_NO_TOKENS = EncodedText(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.uint8))


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """What an index is made of."""

    root: Path
    """Folder of the data set."""
    file: str
    """The JSON file below root."""
    picture_folder: str
    """Folder below root that "image" fields are relative to; "" is root itself."""
    max_items: int | None
    template: str | None
    """None: no tokens, only pictures and captions (the tower's training)."""
    split_tokens: int | None = None
    """A text-only conversation of more tokens becomes several, of whole turns; None: never."""

    @property
    def path(self) -> Path:
        return self.root / self.file

    def picture(self, name: str) -> Path:
        return self.root / self.picture_folder / name


class Texts:
    """Many strings in two arrays, so that they can be mapped from a file."""

    def __init__(self, content: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> None:
        self.content = content
        self.starts = starts

    @classmethod
    def of(cls, texts: Sequence[str]) -> Texts:
        parts = [text.encode() for text in texts]
        starts = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=starts[1:])
        return cls(np.frombuffer(b"".join(parts), dtype=np.uint8), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.content[self.starts[index] : self.starts[index + 1]].tobytes().decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceIndex:
    """All good items of a file, in file order, and all broken ones."""

    source: SourceFile
    num_items: int
    """Good and broken."""
    num_unanswered: int
    """Items whose last question was left out, as it has no answer."""
    positions: npt.NDArray[np.int32]
    """[N] place of each good item in the file; the parts of a split one have the same."""
    token_ids: npt.NDArray[np.int32]
    """[all tokens] one item after the other; a picture is one token."""
    token_kinds: npt.NDArray[np.uint8]
    """[all tokens] as in tokenize.py"""
    token_starts: npt.NDArray[np.int64]
    """[N + 1]"""
    ids: Texts
    """[N]"""
    says: Texts
    """[N] what the model is to say, answers joined."""
    picture_rows: npt.NDArray[np.int32]
    """[N] row in pictures; -1: text only."""
    pictures: Texts
    """[P] every picture the file names, once, sorted; those of broken items too."""
    stamps: npt.NDArray[np.int64]
    """[P, 2] see picture_stamps"""
    broken: tuple[BrokenItem, ...]

    def __len__(self) -> int:
        return len(self.positions)

    def tokens(self, row: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        """Ids and kinds of one item, each [T]."""
        inside = slice(self.token_starts[row], self.token_starts[row + 1])
        return self.token_ids[inside], self.token_kinds[inside]

    def picture(self, picture_row: int) -> Path:
        return self.source.picture(self.pictures[picture_row])

    def describe(self, row: int) -> str:
        """Names an item in messages."""
        return f"{self.source.path}, item {self.positions[row]} (id {self.ids[row]!r})"


def source_index(source: SourceFile, encoder: TextEncoder | None, *, cache: Path) -> SourceIndex:
    """The index of a file, from the cache where the same one was made before.

    It is made anew when file, template, tokenizer or any picture's size or time changed, and when
    the cached one is damaged.

    Raises:
        DataError: the file as a whole cannot be read. Broken items are listed, not raised.
    """
    cached = cache / f"index-{_key(source, encoder)}.arrays"
    if (index := _read(cached, source)) is not None:
        return index
    log.info("reading and checking %s", source.path)
    index = _build(source, encoder)
    _write(cached, index)
    return index


def _key(source: SourceFile, encoder: TextEncoder | None) -> str:
    try:
        content = sha256_of(source.path)
    except OSError as error:
        raise DataError(
            f"{source.path} cannot be read ({error.strerror}); "
            "check the data set's root and the file name"
        ) from error
    parts = [
        _VERSION,
        content,
        str(source.root.absolute()),
        source.picture_folder,
        source.max_items,
        source.template,
        encoder.fingerprint if encoder else None,
        PIL.__version__,
    ]
    if source.split_tokens is not None:
        parts.append(f"split at {source.split_tokens}")
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:24]


def picture_stamps(paths: Sequence[Path]) -> npt.NDArray[np.int64]:
    """Size and time of change of each file, -1 where there is none: [n, 2].

    Only compared for equality with what the same file showed before, never with a clock.
    """
    stamps = np.full((len(paths), 2), -1, dtype=np.int64)
    for row, path in enumerate(paths):
        try:
            status = os.stat(path)  # noqa: PTH116 (half the time of Path.stat, over 558,000 files)
        except OSError:
            continue
        stamps[row] = status.st_size, status.st_mtime_ns
    return stamps


def _build(source: SourceFile, encoder: TextEncoder | None) -> SourceIndex:
    splits = source.split_tokens is not None
    conversations, broken = read_conversations(
        source.path, max_items=source.max_items, drop_unanswered=splits
    )
    num_items = len(conversations) + len(broken)
    if source.template in (None, "plain", "mini_caption"):
        conversations = _sift(conversations, _not_a_caption(conversations), broken)
    pictures = sorted({c.image for c in conversations if c.image is not None})
    stamps = picture_stamps([source.picture(name) for name in pictures])
    conversations = _sift(conversations, _damaged(conversations, pictures, source), broken)
    encoded = [_NO_TOKENS] * len(conversations)
    if encoder is not None and source.template is not None:
        results = list(_checked(conversations, source.template, encoder))
        defects = [result if isinstance(result, str) else None for result in results]
        conversations = _sift(conversations, defects, broken)
        encoded = [result for result in results if not isinstance(result, str)]
        if source.split_tokens is not None:
            conversations, encoded = split_long(
                conversations, encoded, source.template, encoder, limit=source.split_tokens
            )
    starts = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(item.ids) for item in encoded], out=starts[1:])
    rows = {name: row for row, name in enumerate(pictures)}
    return SourceIndex(
        source=source,
        num_items=num_items,
        num_unanswered=len({c.position for c in conversations if c.unanswered}),
        positions=np.array([c.position for c in conversations], dtype=np.int32),
        token_ids=np.concatenate([_NO_TOKENS.ids, *(item.ids for item in encoded)]),
        token_kinds=np.concatenate([_NO_TOKENS.kinds, *(item.kinds for item in encoded)]),
        token_starts=starts,
        ids=Texts.of([c.item_id for c in conversations]),
        says=Texts.of([" ".join(answer for _, answer in c.turns) for c in conversations]),
        picture_rows=np.array(
            [-1 if c.image is None else rows[c.image] for c in conversations], dtype=np.int32
        ),
        pictures=Texts.of(pictures),
        stamps=stamps,
        broken=tuple(sorted(broken, key=lambda item: item.position)),
    )


def _sift(
    conversations: Sequence[Conversation],
    defects: Sequence[str | None],
    broken: list[BrokenItem],
) -> list[Conversation]:
    """Conversations without a defect; the others are added to broken."""
    good = []
    for conversation, defect in zip(conversations, defects, strict=True):
        if defect is None:
            good.append(conversation)
        else:
            broken.append(BrokenItem(conversation.position, conversation.item_id, defect))
    return good


def _not_a_caption(conversations: Sequence[Conversation]) -> list[str | None]:
    return [
        None
        if c.image is not None and len(c.turns) == 1
        else f"has {len(c.turns)} answers and {'no' if c.image is None else 'a'} picture; "
        "an item of a caption file has one picture and one caption"
        for c in conversations
    ]


def _damaged(
    conversations: Sequence[Conversation], pictures: Sequence[str], source: SourceFile
) -> list[str | None]:
    # Threads: on a network file system each file is a wait, and Pillow lets go of the lock.
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(picture_defect, [source.picture(name) for name in pictures]))
    # Named below root, so that a list of skipped items is the same wherever the data lies.
    defects = {
        name: f"picture {PurePosixPath(source.picture_folder, name)} {defect}" if defect else None
        for name, defect in zip(pictures, found, strict=True)
    }
    return [None if c.image is None else defects[c.image] for c in conversations]


def _checked(
    conversations: Sequence[Conversation], template: str, encoder: TextEncoder
) -> Iterator[EncodedText | str]:
    """Each conversation in tokens, or its defect."""
    encoded = encode_all([c.turns for c in conversations], template, encoder)
    for conversation, result in zip(conversations, encoded, strict=True):
        yield _special_token_defect(conversation, encoder) or result


def _special_token_defect(conversation: Conversation, encoder: TextEncoder) -> str | None:
    for question, answer in conversation.turns:
        for text in (question.replace(IMAGE, "", 1), answer):
            if (token := encoder.special_token_in(text)) is not None:
                return f"holds the special token {token!r} as plain text"
    return None


_ARRAYS = ("positions", "token_ids", "token_kinds", "token_starts", "picture_rows", "stamps")
_TEXTS = ("ids", "says", "pictures")


def _write(path: Path, index: SourceIndex) -> None:
    arrays: dict[str, Array] = {name: getattr(index, name) for name in _ARRAYS}
    for name in _TEXTS:
        texts: Texts = getattr(index, name)
        arrays |= {name: texts.content, f"{name}_starts": texts.starts}
    broken = [(item.position, item.item_id, item.defect) for item in index.broken]
    counts = {"num_items": index.num_items, "num_unanswered": index.num_unanswered}
    write_arrays(path, arrays, meta={**counts, "broken": broken})


def _read(path: Path, source: SourceFile) -> SourceIndex | None:
    """A cached index, or None when it is missing, damaged, or any picture has changed."""
    found = read_arrays(path)
    if found is None:
        return None
    arrays, meta = found
    fields: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
    fields |= {name: Texts(arrays[name], arrays[f"{name}_starts"]) for name in _TEXTS}
    index = SourceIndex(
        source=source,
        num_items=meta["num_items"],
        num_unanswered=meta.get("num_unanswered", 0),
        broken=tuple(BrokenItem(*item) for item in meta["broken"]),
        **fields,
    )
    now = picture_stamps([index.picture(row) for row in range(len(index.pictures))])
    return index if np.array_equal(now, index.stamps) else None
