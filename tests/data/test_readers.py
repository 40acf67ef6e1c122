"""Official formats are read, and every defect is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scalesweep.data.readers import BrokenItem, raise_or_list, read_conversations
from scalesweep.errors import DataError
from tests.data.official_files import item, write_items

GOOD = item("<image>\nWhat is it?", "A cup.", image="a.png")

DEFECTS = [
    pytest.param(["a"], "is a JSON array, expected an object", id="not an object"),
    pytest.param({**GOOD, "images": ["b.png"]}, "field 'images' whose meaning", id="unknown field"),
    pytest.param({**GOOD, "id": None}, "has no id", id="no id"),
    pytest.param({**GOOD, "image": 7}, "has image 7, expected a file name", id="image is a number"),
    pytest.param({**GOOD, "image": None}, "has image None", id="image is null"),
    pytest.param({**GOOD, "image": "../a.png"}, "not lie below the image folder", id="image above"),
    pytest.param(
        {**GOOD, "image": "/a.png"}, "not lie below the image folder", id="absolute image"
    ),
    pytest.param({"id": "a"}, 'has no list "conversations"', id="no conversations"),
    pytest.param(item(), "has no turns", id="no turns"),
    pytest.param(item("a", speakers=["gpt"]), "has no turns", id="only a turn that is dropped"),
    pytest.param(item("a", "b", "c"), "ends with a question that has no answer", id="odd turns"),
    pytest.param(
        item("a", "b", "c", speakers=["human", "human", "gpt"]),
        "in the order human, human, gpt; expected human, gpt",
        id="turns out of order",
    ),
    pytest.param(
        item("a", "b", "c", speakers=["gpt", "gpt", "human"]),
        "in the order gpt, human",
        id="two gpt turns in front",
    ),
    pytest.param(
        item("a", "b", speakers=["human", "bard"]), "turn 2 is from 'bard'", id="unknown speaker"
    ),
    pytest.param(item("a", " \n"), "answer 1 is empty", id="empty answer"),
    pytest.param(item("a", "b", "", "d"), "question 2 is empty", id="empty question"),
    pytest.param(
        {"id": "a", "conversations": [{"from": "human", "value": 3}]},
        "turn 1 has value 3, expected a string",
        id="value is a number",
    ),
    pytest.param(
        {"id": "a", "conversations": [{"from": "human", "value": "a", "audio": 1}]},
        "turn 1 has a field 'audio'",
        id="unknown field of a turn",
    ),
    pytest.param(
        {"id": "a", "conversations": ["hi"]}, "turn 1 is a JSON string", id="turn is text"
    ),
    pytest.param(item("\ud83d", "b"), "half a character", id="lone surrogate"),
    pytest.param(
        item("what?", "b", image="a.png"), "<image> 0 times but has one picture", id="no mark"
    ),
    pytest.param(item("<image><image>", "b", image="a.png"), "<image> 2 times", id="two marks"),
    pytest.param(
        item("<image>", "b"), "<image> 1 times but has no picture", id="mark without picture"
    ),
    pytest.param(
        item("a", "b", "<image>", "d", image="a.png"),
        "in turn 3, expected it in the first question",
        id="late mark",
    ),
    pytest.param(
        item("a", "<image>", image="a.png"),
        "in turn 2, expected it in the first question",
        id="mark in an answer",
    ),
]


@pytest.mark.parametrize(("broken", "defect"), DEFECTS)
def test_a_broken_item_is_named_and_the_others_are_read(
    tmp_path: Path, broken: Any, defect: str
) -> None:
    file = write_items(tmp_path / "f.json", [GOOD, broken, GOOD])

    good, found = read_conversations(file)

    assert [c.position for c in good] == [0, 2]
    assert len(found) == 1
    assert found[0].position == 1
    assert defect in found[0].defect


def test_the_three_official_formats_are_read(tmp_path: Path) -> None:
    llava = item("What?\n<image>", "A.", "And?", "B.", image="coco/1.jpg", item_id="000000033471")
    caption = item("<image>\nDescribe.", "a cup", image="00453/004539375.jpg")
    sharegpt = {**item("Hi", "Ho"), "id": "identity_0", "model": ""}
    file = write_items(tmp_path / "f.json", [llava, caption, sharegpt])

    good, broken = read_conversations(file)

    assert broken == []
    assert [(c.item_id, c.image, len(c.turns)) for c in good] == [
        ("000000033471", "coco/1.jpg", 2),
        ("a", "00453/004539375.jpg", 1),
        ("identity_0", None, 1),
    ]
    assert good[0].turns == (("What?\n<image>", "A."), ("And?", "B."))


def test_a_leading_gpt_turn_is_dropped(tmp_path: Path) -> None:
    said = item("Welcome!", "Hi", "Ho", speakers=["gpt", "human", "gpt"])

    good, broken = read_conversations(write_items(tmp_path / "f.json", [said]))

    assert broken == []
    assert good[0].turns == (("Hi", "Ho"),)


def test_ids_may_repeat_and_be_numbers(tmp_path: Path) -> None:
    items = [item("a", "b"), item("c", "d"), {**item("e", "f"), "id": 7}]

    good, broken = read_conversations(write_items(tmp_path / "f.json", items))

    assert broken == []
    assert [c.item_id for c in good] == ["a", "a", "7"]


def test_max_items_counts_broken_ones_too(tmp_path: Path) -> None:
    file = write_items(tmp_path / "f.json", [item("a", ""), item("a", "b"), item("c", "d")])

    good, broken = read_conversations(file, max_items=2)

    assert [c.position for c in good] == [1]
    assert [b.position for b in broken] == [0]


def test_a_byte_order_mark_is_no_defect(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    file.write_bytes(b'\xef\xbb\xbf[{"id": 1, "conversations": []}]')

    assert len(read_conversations(file)[1]) == 1


FILES = [
    pytest.param(b'[{"id": "a", "conver', "is not whole JSON: .* at line 1 column", id="cut"),
    pytest.param(b"", "is not whole JSON", id="empty file"),
    pytest.param('[{"id": "Größe"}]'.encode("latin-1"), "is not UTF-8: byte 0xf6 at", id="latin-1"),
    pytest.param(b'{"a": 1}', "holds a JSON object; expected an array", id="object"),
    pytest.param(b"[]", "holds no item", id="empty array"),
    pytest.param(b"[" * 100_000, "is not JSON that can be read", id="bottomless"),
]


@pytest.mark.parametrize(("content", "message"), FILES)
def test_a_file_that_is_broken_as_a_whole_is_named(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "f.json"
    file.write_bytes(content)

    with pytest.raises(DataError, match=message) as caught:
        read_conversations(file)

    assert str(caught.value).startswith(str(file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing\.json cannot be read \(No such file"):
        read_conversations(tmp_path / "missing.json")


def test_stop_names_the_first_and_counts_the_others() -> None:
    broken = [BrokenItem(3, "x", "answer 1 is empty"), BrokenItem(5, "", "has no id")]

    with pytest.raises(DataError) as caught:
        raise_or_list(
            broken, path=Path("/x/f.json"), name="d/f.json", num_items=9, on_broken_item="stop"
        )

    assert str(caught.value) == (
        "/x/f.json, item 3 (id 'x'): answer 1 is empty; 1 more of 9 items are broken. "
        "Mend the file, or set on_broken_item to skip to leave broken items out"
    )


def test_skip_lists_every_broken_item_and_keeps_at_least_one_good() -> None:
    broken = [BrokenItem(3, "x", "answer 1 is empty"), BrokenItem(5, "", "has no id")]

    lines = raise_or_list(
        broken, path=Path("/x/f.json"), name="d/f.json", num_items=9, on_broken_item="skip"
    )

    assert lines == ["d/f.json, item 3 (id 'x'): answer 1 is empty", "d/f.json, item 5: has no id"]
    with pytest.raises(DataError, match="all 2 items are broken; the first is item 3"):
        raise_or_list(
            broken, path=Path("f.json"), name="d/f.json", num_items=2, on_broken_item="skip"
        )
