"""Conversations over max_seq_len: refused, cut as LLaVA does, or split as FastChat does."""

from __future__ import annotations

import itertools
import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalesweep.data.samples import LongItems, TrainingSet, load_training_set
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import DataError
from scalesweep.specs import Method, TrainingSpec
from tests.data.official_files import (
    item,
    llama_like_tokenizer,
    training_spec,
    write_items,
    write_picture,
)

QUESTION, ANSWER = "what is 1 plus 2 ?", "3"
# USER: what is 1 plus 2 ? ASSISTANT: 3 </s>
TURN_TOKENS = 10


def spec_of(on_long_item: str, max_seq_len: int, *, file: str = "text.json", **changes: Any) -> Any:
    folder = "images" if file == "instruct.json" else ""
    spec = training_spec((file, folder), max_seq_len=max_seq_len, **changes)
    return replace(spec, data=[replace(spec.data[0], on_long_item=on_long_item)])


def loaded(root: Path, spec: TrainingSpec, tokenizer: Any = None) -> TrainingSet:
    return load_training_set(
        spec,
        roots={"d": root},
        tokenizer=tokenizer or miniature_tokenizer(),
        cache=root.parent / "cache",
    )


def conversation(num_turns: int, item_id: str) -> dict[str, Any]:
    """Turns of 10 tokens each with the miniature's tokenizer; answers 0, 1, 2, ..."""
    said = [text for n in range(num_turns) for text in (QUESTION, str(n % 10))]
    return item(*said, item_id=item_id)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Text-only conversations of 1, 3 and 5 turns; two with a picture and three turns."""
    folder = tmp_path / "d"
    write_items(
        folder / "text.json",
        [conversation(1, "one"), conversation(3, "three"), conversation(5, "five")],
    )
    for name in ("a.png", "b.png"):
        write_picture(folder / "images" / name)
    shown = [conversation(3, name) | {"image": f"{name}.png"} for name in ("a", "b")]
    for each in shown:
        each["conversations"][0]["value"] += "\n<image>"
    write_items(folder / "instruct.json", shown)
    return folder


def words(tokens: Any) -> str:
    return str(miniature_tokenizer().decode(tokens))


def learned(samples: TrainingSet, number: int) -> str:
    ids, weights = samples.sequence(number)
    return words(ids[weights > 0])


def test_what_is_too_long_stops_the_stage_unless_told_otherwise(root: Path) -> None:
    with pytest.raises(DataError, match=r"item 1 \(id 'three'\): is 30 tokens long, over max_seq"):
        loaded(root, spec_of("stop", 25))


def test_a_conversation_is_split_into_as_many_whole_turns_as_fit(root: Path) -> None:
    samples = loaded(root, spec_of("split", 25))

    assert [samples[n].sample_id for n in range(len(samples))] == [
        *("one", "three_0", "three_4", "five_0", "five_4", "five_8"),
    ]
    assert samples.lengths.tolist() == [10, 20, 10, 20, 20, 10]
    assert [learned(samples, n) for n in (1, 2, 5)] == ["0 </s> 1 </s>", "2 </s>", "4 </s>"]
    assert words(samples[2].input_ids) == f"USER: {QUESTION} ASSISTANT: 2 </s>"
    assert samples.long_items == LongItems(split=2, parts=5)
    assert samples.text(2) == "2"


def test_no_turn_is_lost_in_a_split(root: Path) -> None:
    for limit in (10, 11, 19, 20, 21, 39, 40, 49):
        samples = loaded(root, spec_of("split", limit))

        everything = " ".join(learned(samples, n) for n in range(len(samples)))
        assert everything == " ".join(f"{answer} </s>" for answer in ["0", *"012", *"01234"])
        assert samples.lengths.max() <= limit


def test_what_fits_is_not_touched_by_a_split(root: Path) -> None:
    kept, split = loaded(root, spec_of("stop", 50)), loaded(root, spec_of("split", 50))

    assert [split[n].sample_id for n in range(3)] == ["one", "three", "five"]
    assert split.long_items == LongItems()
    for number in range(3):
        for ours, theirs in zip(split.sequence(number), kept.sequence(number), strict=True):
            assert np.array_equal(ours, theirs)


def test_a_single_turn_that_is_too_long_is_cut_after_the_split(root: Path) -> None:
    write_items(
        root / "text.json",
        [item(QUESTION, "1 2 3 4 5 6 7 8", QUESTION, "9", item_id="long"), conversation(1, "b")],
    )

    samples = loaded(root, spec_of("split", 12))

    assert [samples[n].sample_id for n in range(len(samples))] == ["long_0", "long_2", "b"]
    assert learned(samples, 0) == "1 2 3 4"
    assert samples.lengths.tolist() == [12, 10, 10]
    assert samples.loss_weight_sums.tolist() == [4.0, 2.0, 2.0]
    assert samples.long_items == LongItems(split=1, parts=2, cut=1)


def test_a_cut_conversation_is_the_beginning_of_the_whole_one(root: Path) -> None:
    whole = loaded(root, spec_of("stop", 256))
    for limit in range(TURN_TOKENS, 50):
        cut = loaded(root, spec_of("cut", limit))

        assert cut.long_items.cut == sum(whole.lengths > limit)
        for number in range(3):
            ids, weights = cut.sequence(number)
            assert ids.tolist() == whole.sequence(number)[0][:limit].tolist()
            assert weights.tolist() == whole.sequence(number)[1][:limit].tolist()
            assert cut.loss_weight_sums[number] == weights.sum()
            assert cut.lengths[number] == len(ids)
            assert cut.num_supervised[number] == (weights > 0).sum()


@pytest.mark.parametrize("on_long_item", ["cut", "split"])
def test_a_conversation_with_a_picture_is_cut_behind_it(root: Path, on_long_item: str) -> None:
    whole = loaded(root, spec_of("stop", 256, file="instruct.json"))
    for limit in (26, 30, 45, 46):  # 16 image tokens, 10 of each turn
        cut = loaded(root, spec_of(on_long_item, limit, file="instruct.json"))

        assert [cut[n].sample_id for n in range(len(cut))] == ["a", "b"]
        ids, weights = cut.sequence(0)
        assert len(ids) == cut.lengths[0] == min(limit, 46)
        assert (ids == 4).sum() == 16
        assert ids.tolist() == whole.sequence(0)[0][:limit].tolist()
        assert cut.loss_weight_sums[0] == weights.sum() > 0
        assert cut.has_image(0)


def test_a_sample_whose_answers_are_all_cut_is_left_out_counted_and_named(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_items(
        root / "text.json",
        [item(f"{QUESTION} " * 3 + QUESTION, "3", item_id="late"), conversation(1, "b")],
    )

    with caplog.at_level(logging.INFO, logger="scalesweep"):
        samples = loaded(root, spec_of("cut", 16))

    assert [samples[n].sample_id for n in range(len(samples))] == ["b"]
    defect = "is 28 tokens long and has no answer in the first 16"
    assert samples.long_items.left_out == (f"d/text.json, item 0 (id 'late'): {defect}",)
    assert samples.long_items.cut == 0
    assert samples.skipped == []
    assert f"left out: d/text.json, item 0 (id 'late'): {defect}" in caplog.text
    assert samples.long_items.to_json() == {
        "split": 0,
        "parts": 0,
        "cut": 0,
        "left_out": 1,
        "unanswered": 0,
        "left_out_items": list(samples.long_items.left_out),
    }


@pytest.mark.parametrize("limit", [1, 10, 17, 24, 25])
def test_no_cut_goes_through_a_picture(root: Path, limit: int) -> None:
    # 16 image tokens behind USER:, the first answer's first token is the 25th
    if limit < 25:
        with pytest.raises(DataError, match="no item has an answer within max_seq_len"):
            loaded(root, spec_of("cut", limit, file="instruct.json"))
    else:
        samples = loaded(root, spec_of("cut", limit, file="instruct.json"))
        assert learned(samples, 0) == "0"


def test_prompts_that_are_learned_too_count_up_to_the_cut(root: Path) -> None:
    spec = spec_of("cut", 25, method=Method.language, prompt_loss_weight=0.25)

    samples = loaded(root, spec)

    for number in range(3):
        weights = samples.sequence(number)[1]
        assert samples.loss_weight_sums[number] == pytest.approx(weights.sum())


@pytest.mark.parametrize("template", ["vicuna_v1", "llama_2"])
@pytest.mark.parametrize("legacy", [True, False])
def test_parts_are_what_their_turns_would_be_alone(
    tmp_path: Path, template: str, legacy: bool
) -> None:
    said = [
        text
        for n in range(7)
        for text in (f"Who are you ? {'red ' * (5 * n % 11)}", f"I am Vicuna .{' white' * (n % 3)}")
    ]
    tokenizer = llama_like_tokenizer(legacy=legacy)
    root = tmp_path / "d"
    write_items(root / "text.json", [item(*said, item_id="long")])
    alone = [item(*said[2 * n : 2 * n + 2], item_id=str(n)) for n in range(7)]
    write_items(root / "alone.json", alone)
    longest = int(loaded(root, with_template("alone.json", "stop", 2048, template), tokenizer)
                  .lengths.max())  # fmt: skip
    limit = longest + 60

    split = loaded(root, with_template("text.json", "split", limit, template), tokenizer)

    assert len(split) > 1
    starts = [int(split[n].sample_id.removeprefix("long_")) for n in range(len(split))]
    parts = [said[a:b] for a, b in zip(starts, [*starts[1:], len(said)], strict=True)]
    write_items(root / "parts.json", [item(*part, item_id=str(n)) for n, part in enumerate(parts)])
    by_hand = loaded(root, with_template("parts.json", "stop", limit, template), tokenizer)
    for number in range(len(split)):
        for ours, theirs in zip(split.sequence(number), by_hand.sequence(number), strict=True):
            assert np.array_equal(ours, theirs)
    # One more turn would not have fitted.
    longer = [said[a : b + 2] for a, b in itertools.pairwise(starts)]
    write_items(root / "longer.json", [item(*part, item_id="x") for part in longer])
    too_long = loaded(root, with_template("longer.json", "stop", 2048, template), tokenizer)
    assert (too_long.lengths > limit).all()


def with_template(file: str, on_long_item: str, max_seq_len: int, template: str) -> TrainingSpec:
    spec: TrainingSpec = spec_of(
        on_long_item, max_seq_len, file=file, template=template, method=Method.language
    )
    return spec


SHAREGPT = [
    item("Who are you ?", "I am Vicuna .", "Who are you ?", item_id="open"),
    item("I am Vicuna .", "Who are you ?", "I am Vicuna .", item_id="gpt first",
         speakers=("gpt", "human", "gpt")),
    item("Who are you ?", item_id="question only"),
    item("Who are you ?", "I am Vicuna .", item_id="system", speakers=("system", "gpt")),
    item("Who are you ?", "I am Vicuna .", item_id="other", speakers=("human", "bing")),
    item(item_id="empty"),
    item("Who are you ?", "I am Vicuna .", item_id="good"),
]  # fmt: skip


def test_sharegpt_s_defects_are_skipped_by_name_and_open_questions_dropped(tmp_path: Path) -> None:
    root = tmp_path / "d"
    write_items(root / "text.json", SHAREGPT)
    spec = with_template("text.json", "split", 2048, "vicuna_v1")
    spec = replace(spec, data=[replace(spec.data[0], on_broken_item="skip")])

    samples = loaded(root, spec, llama_like_tokenizer())

    assert [samples[n].sample_id for n in range(len(samples))] == ["open", "gpt first", "good"]
    same = samples.sequence(2)
    for number in (0, 1):
        assert np.array_equal(samples.sequence(number)[0], same[0])
    assert samples.long_items == LongItems(unanswered=1)
    assert [line.split(": ", 1) for line in samples.skipped] == [
        ["d/text.json, item 2 (id 'question only')", "ends with a question that has no answer"],
        ["d/text.json, item 3 (id 'system')", "turn 1 is from 'system', expected human or gpt"],
        ["d/text.json, item 4 (id 'other')", "turn 2 is from 'bing', expected human or gpt"],
        ["d/text.json, item 5 (id 'empty')", "has no turns"],
    ]


def test_a_file_s_own_rule_for_broken_items_leaves_the_others_alone(root: Path) -> None:
    write_items(root / "broken.json", SHAREGPT)
    write_items(root / "also.json", SHAREGPT)
    spec = training_spec(("text.json", ""), ("broken.json", ""), max_seq_len=256)
    text, broken = spec.data
    broken = replace(broken, on_broken_item="skip", on_long_item="split")

    with pytest.raises(DataError, match=r"also\.json, item 0 \(id 'open'\)"):
        loaded(root, replace(spec, data=[text, replace(text, file="also.json"), broken]))


def test_splits_come_from_the_cache_of_their_own_length(root: Path) -> None:
    first = loaded(root, spec_of("split", 25))
    other = loaded(root, spec_of("split", 35))
    again = loaded(root, spec_of("split", 25))

    assert len(list((root.parent / "cache").glob("index-*"))) == 2
    assert len(first) == len(again) == 6
    assert len(other) == 4  # one, three, and five in two parts
    assert again.long_items == first.long_items == LongItems(split=2, parts=5)


def test_only_what_is_set_enters_the_key() -> None:
    stop = spec_of("stop", 64).to_identity()
    cut = spec_of("cut", 64)

    assert set(stop["data"][0]) == {"dataset", "file", "image_folder", "max_items"}
    assert cut.to_identity()["data"][0]["on_long_item"] == "cut"
    assert TrainingSpec.from_identity(json.loads(json.dumps(cut.to_identity()))) == cut


def test_thousands_of_conversations_are_split_in_seconds(tmp_path: Path) -> None:
    root = tmp_path / "d"
    items = [conversation(1 + n % 12, str(n)) for n in range(4000)]
    write_items(root / "text.json", items)
    whole = loaded(root, spec_of("stop", 256))  # and whatever is done once

    begin = time.process_time()
    split = loaded(root, spec_of("split", 45))
    cpu_s = time.process_time() - begin

    assert split.loss_weight_sums.sum() == whole.loss_weight_sums.sum()
    assert split.lengths.max() == 40
    assert cpu_s < 8.0  # 1.5 s on a quiet machine
