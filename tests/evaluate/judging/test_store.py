"""Replies are kept for ever, by all that was asked; nothing half-written is one."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from scalesweep.errors import StoreError
from scalesweep.evaluate.judging.store import Asked, ReplyStore, StoredReply
from tests.evaluate.judging.panels import request

ASKED = Asked(model="m", request=request("?"), source="openai", run=0, reask=0)
HOST = "api.example"


def reply(asked: Asked = ASKED, **changes: Any) -> StoredReply:
    made = StoredReply(
        asked=asked.to_json(),
        text="8 9\n\ud83d é",  # half of a surrogate pair, as broken endpoints send
        finish_reason="stop",
        input_tokens=10,
        output_tokens=3,
        answered_by="m-1",
        endpoint=HOST,
        at="2025-01-01T00:00:00+00:00",
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def store(tmp_path: Path) -> ReplyStore:
    return ReplyStore(tmp_path / "judge_replies")


def file_of(store: ReplyStore) -> Path:
    return store.folder / ASKED.key[:2] / f"{ASKED.key}.json"


def test_a_reply_is_found_again_whole_and_by_every_study(store: ReplyStore) -> None:
    store.add(ASKED, reply())

    assert store.find(ASKED, endpoint=HOST) == reply()
    assert store.find(ASKED, endpoint="another host") == reply()
    assert list(store.all()) == [reply()]
    assert [p.name for p in file_of(store).parent.iterdir()] == [f"{ASKED.key}.json"]


def test_the_key_is_the_hash_of_the_whole_request_and_of_run_and_reask() -> None:
    by_hand = (
        '{"max_tokens":64,"messages":[{"content":"Judge.","role":"system"},'
        '{"content":"?","role":"user"}],"model":"m","reask":0,"run":0,"source":"openai",'
        '"temperature":0.2}'
    )

    assert ASKED.key == hashlib.sha256(by_hand.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"source": "vllm"},
        {"run": 1},
        {"reask": 1},
        {"request": request("??")},
        {"request": request("?", temperature=0.3)},
        {"request": request("?", max_tokens=65)},
        {"request": request("?", messages=(("user", "?"),))},
    ],
    ids=str,
)
def test_whatever_is_asked_otherwise_has_a_reply_of_its_own(
    store: ReplyStore, change: dict[str, Any]
) -> None:
    store.add(ASKED, reply())

    assert store.find(dataclasses.replace(ASKED, **change), endpoint=HOST) is None


def test_a_temperature_of_0_is_that_of_0_0() -> None:
    whole, real = (
        dataclasses.replace(ASKED, request=request("?", temperature=t)).key for t in (0, 0.0)
    )

    assert whole == real


def test_the_first_of_two_writers_wins_and_both_go_on_with_its_reply(store: ReplyStore) -> None:
    first = store.add(ASKED, reply(text="8 9"))
    second = store.add(ASKED, reply(text="1 2"))

    assert (first.text, second.text) == ("8 9", "8 9")
    assert len(list(file_of(store).parent.iterdir())) == 1


def spoiled(file: Path, how: str) -> None:
    whole = file.read_text("utf-8")
    text = {
        "torn": whole[: len(whole) // 2],
        "empty": "",
        "zeros": "\0" * len(whole),
        "edited": whole.replace('"text": "8 9', '"text": "9 9'),
        "of another request": whole.replace('"model": "m"', '"model": "n"'),
        "no object": "[]",
        "something else": '{"schema": "none"}',
    }[how]
    assert text != whole
    file.write_text(text, "utf-8")


@pytest.mark.parametrize(
    "how",
    ["torn", "empty", "zeros", "edited", "of another request", "no object", "something else"],
)
def test_a_file_that_is_no_whole_reply_to_its_name_is_named_and_asked_again(
    store: ReplyStore, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.add(ASKED, reply())
    spoiled(file_of(store), how)

    assert list(store.all()) == []
    assert store.find(ASKED, endpoint=HOST) is None
    assert store.add(ASKED, reply(text="7 7")).text == "7 7"

    assert store.find(ASKED, endpoint=HOST) == reply(text="7 7")
    (line,) = caplog.messages
    assert str(file_of(store)) in line
    assert "is damaged or no reply to its name" in line
    assert len(list(file_of(store).parent.glob("*.damaged-*"))) == 1  # kept, for people


def test_a_whole_reply_under_another_name_is_no_reply_to_it(store: ReplyStore) -> None:
    other = dataclasses.replace(ASKED, run=1)
    store.add(other, reply(other))
    file_of(store).parent.mkdir(exist_ok=True)
    (store.folder / other.key[:2] / f"{other.key}.json").rename(file_of(store))

    assert store.find(ASKED, endpoint=HOST) is None


def test_a_reply_of_a_later_version_is_left_alone(store: ReplyStore) -> None:
    store.add(ASKED, reply())
    data = json.loads(file_of(store).read_text("utf-8"))
    file_of(store).write_text(json.dumps({**data, "schema": 99}), "utf-8")

    with pytest.raises(StoreError, match="schema 99"):
        store.find(ASKED, endpoint=HOST)

    assert file_of(store).exists()


def test_a_write_that_fails_leaves_nothing_that_looks_like_a_reply(
    store: ReplyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(StoreError, match="no space"):
        store.add(ASKED, reply())

    assert list(file_of(store).parent.iterdir()) == []


def test_without_hard_links_a_reply_is_kept_all_the_same(
    store: ReplyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("not supported")

    monkeypatch.setattr(os, "link", refused)
    store.add(ASKED, reply(text="8 9"))

    assert store.add(ASKED, reply(text="1 2")).text == "8 9"
    assert store.find(ASKED, endpoint=HOST) == reply(text="8 9")


def test_a_refusal_is_that_endpoints_alone_and_a_reply_goes_before_it(store: ReplyStore) -> None:
    store.add(ASKED, reply(text="", refused="filtered"))

    refused = store.find(ASKED, endpoint=HOST)
    assert refused is not None
    assert refused.refused == "filtered"
    assert store.find(ASKED, endpoint="another host") is None

    store.add(ASKED, reply(endpoint="another host"))
    found = store.find(ASKED, endpoint=HOST)
    assert found is not None
    assert found.refused is None


def test_a_folder_or_a_bottomless_file_by_the_name_of_a_reply_is_put_aside(
    store: ReplyStore,
) -> None:
    file_of(store).mkdir(parents=True)
    assert store.find(ASKED, endpoint=HOST) is None
    file_of(store).write_text("[" * 100_000)
    assert store.find(ASKED, endpoint=HOST) is None

    assert store.add(ASKED, reply()) == reply()
    assert store.find(ASKED, endpoint=HOST) == reply()
    assert len(list(file_of(store).parent.glob("*.damaged-*"))) == 2


def test_what_the_file_system_refuses_is_one_line(
    store: ReplyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.check_writable()
    assert list(store.folder.iterdir()) == []

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for refused in (store.check_writable, lambda: store.add(ASKED, reply())):
        with pytest.raises(StoreError, match=r"cannot be written there \(No space left"):
            refused()
    assert not [path for path in store.folder.rglob("*") if path.is_file()]
