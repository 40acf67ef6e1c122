"""Reads the official JSON formats of conversations, and names every broken item.

One reader for LLaVA-Instruct, the 558K captions and ShareGPT: a JSON array of
    {"id": ..., "image": "folder/file.jpg" (absent: text only),
     "conversations": [{"from": "human" | "gpt", "value": "..."}]}

Rules where the official code is silent or lenient:
- A conversation that starts with gpt loses that turn (LLaVA train.py does the same). Any other
  order than human, gpt, human, gpt is a defect, and so is a last question without an answer: the
  official code masks such a sample wholly, with nothing but a printed warning.
  FastChat's split_long_conversation.py leaves such a question out; drop_unanswered does so here.
- An item with a picture holds <image> exactly once, in its first question. A text-only one never.
- Fields of unknown meaning are a defect ("images", "video"): what they hold would be lost silently.
- Ids may repeat (LLaVA-Instruct asks several things about one picture).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from scalesweep.errors import DataError

IMAGE = "<image>"
"""Where a picture goes in the text of all official formats."""

# "model" and what follows is seen in ShareGPT exports and in LLaVA's mixed files; it says where an
# item is from and changes nothing that is trained on.
_ITEM_FIELDS = {"id", "image", "conversations"} | {
    *("model", "type", "lang", "language", "category", "source", "title")
}
_TURN_FIELDS = {"from", "value"} | {"markdown", "text"}  # the latter are null, in raw ShareGPT


@dataclass(frozen=True, slots=True)
class Conversation:
    """One item without a defect in its structure."""

    position: int
    """Its place in the file, from 0."""
    item_id: str
    image: str | None
    """Path below the image folder; None: text only."""
    turns: tuple[tuple[str, str], ...]
    """(question, answer) pairs as in the file; <image> still stands in the first question."""
    unanswered: bool = False
    """It ended with a question that was left out."""


@dataclass(frozen=True, slots=True)
class BrokenItem:
    """One item that cannot be trained on."""

    position: int
    item_id: str
    """Empty when it has none."""
    defect: str

    def __str__(self) -> str:
        name = f" (id {self.item_id!r})" if self.item_id else ""
        return f"item {self.position}{name}: {self.defect}"


class _Defect(Exception):
    """Carries the defect of the item being read; never leaves this module."""


def read_conversations(
    path: Path, *, max_items: int | None = None, drop_unanswered: bool = False
) -> tuple[list[Conversation], list[BrokenItem]]:
    """All good and all broken items of a file (of its first max_items), each in file order.

    drop_unanswered: a last question without an answer is left out instead of a defect.

    Raises:
        DataError: the file as a whole cannot be read: missing, not UTF-8, cut, not an array, empty.
    """
    good: list[Conversation] = []
    broken: list[BrokenItem] = []
    for position, item in enumerate(read_json_array(path)[:max_items]):
        try:
            good.append(_conversation(position, item, drop_unanswered=drop_unanswered))
        except _Defect as defect:
            broken.append(BrokenItem(position, _item_id(item), str(defect)))
    return good, broken


def read_json_array(path: Path) -> list[Any]:
    """The items of a JSON array file.

    Raises:
        DataError: it is missing, not UTF-8, cut or otherwise not JSON, not an array, or empty.
    """
    items = read_json_file(path)
    if not isinstance(items, list):
        raise DataError(
            f"{path} holds a JSON {_json_type(items)}; expected an array of conversations, "
            '[{"id": ..., "conversations": [...]}, ...]'
        )
    if not items:
        raise DataError(f"{path} holds no item: the array is empty")
    return items


def read_json_file(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        DataError: it is missing, not UTF-8, cut or otherwise not JSON.
    """
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); check the data set's root and the file name"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start} "
            f"({error.reason}); convert it to UTF-8 or fetch it again"
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not whole JSON: {error.msg} at line {error.lineno} column {error.colno} "
            f"(character {error.pos} of {len(error.doc)}); it was probably cut: fetch it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON that can be read: {error}") from error


def raise_or_list(
    broken: Sequence[BrokenItem], *, path: Path, name: str, num_items: int, on_broken_item: str
) -> list[str]:
    """One line per skipped item, with the file's name; with "stop" there must be none.

    name: the file as it is called wherever it lies ("mini_train/instruct.json").

    Raises:
        DataError: names the first broken item and how many more there are; or nothing is left.
    """
    if broken and on_broken_item == "stop":
        others = len(broken) - 1
        more = f"; {others} more of {num_items} items are broken" if others else ""
        raise DataError(
            f"{path}, {broken[0]}{more}. Mend the file, or set on_broken_item to skip to leave "
            "broken items out"
        )
    if len(broken) == num_items:
        raise DataError(f"{path}: all {num_items} items are broken; the first is {broken[0]}")
    return [f"{name}, {item}" for item in broken]


def _conversation(position: int, item: Any, *, drop_unanswered: bool) -> Conversation:
    if not isinstance(item, dict):
        raise _Defect(f"is a JSON {_json_type(item)}, expected an object")
    if unknown := sorted(item.keys() - _ITEM_FIELDS):
        raise _Defect(f"has a field {unknown[0]!r} whose meaning is unknown here")
    item_id = item.get("id")
    if not isinstance(item_id, str | int) or isinstance(item_id, bool):
        raise _Defect(f"has no id (a string or an integer): {item_id!r}")
    image = _image(item)
    turns, unanswered = _turns(item, drop_unanswered=drop_unanswered)
    _check_image_mark(turns, has_image=image is not None)
    return Conversation(position, str(item_id), image, turns, unanswered)


def _image(item: dict[str, Any]) -> str | None:
    if "image" not in item:
        return None
    image = item["image"]
    if not isinstance(image, str) or not image.strip():
        raise _Defect(f"has image {image!r}, expected a file name (or no such field for text only)")
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise _Defect(f"has image {image!r}, which does not lie below the image folder")
    return image


def _turns(
    item: dict[str, Any], *, drop_unanswered: bool
) -> tuple[tuple[tuple[str, str], ...], bool]:
    """(question, answer) pairs, and whether a last question was left out."""
    raw = item.get("conversations")
    if not isinstance(raw, list):
        raise _Defect('has no list "conversations"')
    said = [_turn(number, turn) for number, turn in enumerate(raw, start=1)]
    if said and said[0][0] == "gpt":
        del said[0]
    if not said:
        raise _Defect("has no turns")
    for number, (speaker, _) in enumerate(said):
        expected = ("human", "gpt")[number % 2]
        if speaker != expected:
            order = ", ".join(name for name, _ in said)
            raise _Defect(f"has its turns in the order {order}; expected human, gpt, human, gpt")
    unanswered = len(said) % 2 == 1
    if unanswered:
        if not drop_unanswered or len(said) == 1:
            raise _Defect("ends with a question that has no answer")
        del said[-1]
    for number, (speaker, text) in enumerate(said):
        if not text.strip():
            what = "question" if speaker == "human" else "answer"
            raise _Defect(f"{what} {number // 2 + 1} is empty")
    texts = [text for _, text in said]
    return tuple(zip(texts[::2], texts[1::2], strict=True)), unanswered


def _turn(number: int, turn: Any) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise _Defect(f"turn {number} is a JSON {_json_type(turn)}, expected an object")
    if unknown := sorted(turn.keys() - _TURN_FIELDS):
        raise _Defect(f"turn {number} has a field {unknown[0]!r} whose meaning is unknown here")
    speaker, text = turn.get("from"), turn.get("value")
    if speaker not in ("human", "gpt"):
        raise _Defect(f"turn {number} is from {speaker!r}, expected human or gpt")
    if not isinstance(text, str):
        raise _Defect(f"turn {number} has value {text!r}, expected a string")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise _Defect(f"turn {number} holds half a character (a lone surrogate)") from None
    return speaker, text


def _check_image_mark(turns: Sequence[tuple[str, str]], *, has_image: bool) -> None:
    marks = [text.count(IMAGE) for turn in turns for text in turn]
    expected = 1 if has_image else 0
    if sum(marks) != expected:
        what = "one picture" if has_image else "no picture"
        raise _Defect(f"holds {IMAGE} {sum(marks)} times but has {what}")
    if has_image and not marks[0]:
        raise _Defect(
            f"holds {IMAGE} in turn {marks.index(1) + 1}, expected it in the first question"
        )


def _item_id(item: Any) -> str:
    item_id = item.get("id") if isinstance(item, dict) else None
    return str(item_id) if isinstance(item_id, str | int) else ""


def _json_type(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
