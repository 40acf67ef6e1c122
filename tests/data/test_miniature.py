"""Generated data sets: deterministic, official formats, read by the project's own readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scalesweep.data.images import picture_defect
from scalesweep.data.miniature import check_parameters, generate, num_units
from scalesweep.data.readers import IMAGE, read_conversations
from scalesweep.data.samples import load_training_set
from scalesweep.data.tokenizer import miniature_tokenizer
from scalesweep.errors import DataError, Interrupted
from scalesweep.rundir import output_files
from scalesweep.specs import Method
from tests.data.official_files import training_spec

PICTURES = {"seed": 300, "num_pictures": 12, "num_text": 5, "turns": 4, "density": "sparse"}
QUESTIONS = {"seed": 320, "num_questions": 6, "text_seed": 901, "num_text_questions": 4}
LANGUAGE = {"seed": 200, "num_conversations": 40}
TOWERS = {"seed": 100, "num_pictures": 8}
ALL = [
    pytest.param("pictures", PICTURES, id="pictures"),
    pytest.param("questions", QUESTIONS, id="questions"),
    pytest.param("language", LANGUAGE, id="language"),
    pytest.param("tower_pictures", TOWERS, id="tower_pictures"),
]


def made(folder: Path, generator: str, parameters: dict[str, Any]) -> Path:
    generate(generator, parameters, folder, tick=lambda _: None)
    return folder


@pytest.mark.parametrize(("generator", "parameters"), ALL)
def test_equal_parameters_give_equal_bytes(
    tmp_path: Path, generator: str, parameters: dict[str, Any]
) -> None:
    first = made(tmp_path / "first", generator, parameters)
    second = made(tmp_path / "second", generator, parameters)
    other = made(tmp_path / "other", generator, {**parameters, "seed": 7})

    assert output_files(first) == output_files(second)
    assert output_files(first) != output_files(other)


@pytest.mark.parametrize(("generator", "parameters"), ALL)
def test_progress_ends_at_the_announced_total(
    tmp_path: Path, generator: str, parameters: dict[str, Any]
) -> None:
    ticks: list[int] = []

    generate(generator, parameters, tmp_path, tick=ticks.append)

    total, _ = num_units(generator, parameters)
    assert ticks == list(range(1, total + 1))


def test_pictures_come_with_captions_questions_and_skills(tmp_path: Path) -> None:
    folder = made(tmp_path, "pictures", PICTURES)

    captions, broken_captions = read_conversations(folder / "captions.json")
    instructions, broken_instructions = read_conversations(folder / "instruct.json")
    skills, broken_skills = read_conversations(folder / "text.json")

    assert broken_captions == broken_instructions == broken_skills == []
    assert [len(c.turns) for c in captions] == [1] * 12
    assert [len(c.turns) for c in instructions] == [4] * 12
    assert [(len(c.turns), c.image) for c in skills] == [(4, None)] * 5
    assert [c.image for c in captions] == [c.image for c in instructions]
    assert captions[0].turns[0][1] == "purple cross 6 top left , purple triangle 9 bottom left"
    assert all(picture_defect(folder / "images" / str(c.image)) is None for c in captions)


def test_the_image_mark_stands_before_and_after_questions(tmp_path: Path) -> None:
    folder = made(tmp_path, "pictures", PICTURES)

    for name in ("captions.json", "instruct.json"):
        asked = [c.turns[0][0] for c in read_conversations(folder / name)[0]]
        assert any(text.startswith(f"{IMAGE}\n") for text in asked)
        assert any(text.endswith(f"\n{IMAGE}") for text in asked)


def test_questions_hold_what_scoring_needs(tmp_path: Path) -> None:
    folder = made(tmp_path, "questions", QUESTIONS)

    pictures = [json.loads(line) for line in (folder / "vqa.jsonl").read_text("utf-8").splitlines()]
    texts = [json.loads(line) for line in (folder / "text.jsonl").read_text("utf-8").splitlines()]

    assert [row["question_id"] for row in pictures] == list(range(6))
    assert pictures[0] == {
        "question_id": 0,
        "image": "000000.png",
        "text": "what color is the cross ?",
        "answer": "purple",
        "category": "color",
    }
    assert texts[0] == {
        "question_id": 0,
        "text": "what does the damus eat ?",
        "answer": "grass",
        "category": "fact",
    }
    assert len(texts) == 4
    assert all((folder / "images" / row["image"]).is_file() for row in pictures)


def test_language_holds_described_scenes_and_skills(tmp_path: Path) -> None:
    folder = made(tmp_path, "language", LANGUAGE)

    conversations, broken = read_conversations(folder / "text.json")

    assert broken == []
    assert {len(c.turns) for c in conversations} == {4, 6}
    described = [c for c in conversations if len(c.turns) == 4]
    assert 20 <= len(described) <= 36  # 70 % of 40, 3 standard deviations
    # The caption stands before the first question, and the question follows from it.
    first = conversations[0].turns[0]
    assert first == (
        "red diamond 7 top left , white triangle 2 bottom right what color is the triangle ?",
        "white",
    )


def test_towers_get_a_held_out_set_of_other_pictures(tmp_path: Path) -> None:
    folder = made(tmp_path, "tower_pictures", TOWERS)

    learned, _ = read_conversations(folder / "captions.json")
    held_out, _ = read_conversations(folder / "held_out.json")

    assert len(learned) == len(held_out) == 8  # at most 1,000, never more than to learn from
    assert (folder / "held_out_images" / str(held_out[0].image)).is_file()
    assert {c.turns[0][1] for c in learned} != {c.turns[0][1] for c in held_out}


def test_every_word_is_in_the_tokenizer_and_every_row_short_enough(tmp_path: Path) -> None:
    roots = {"d": made(tmp_path / "d", "pictures", {**PICTURES, "num_pictures": 60})}
    tokenizer, cache = miniature_tokenizer(), tmp_path / "cache"

    tuned = load_training_set(
        training_spec(("instruct.json", "images"), ("text.json", ""), side=48),
        roots=roots,
        tokenizer=tokenizer,
        cache=cache,
    )
    aligned = load_training_set(
        training_spec(("captions.json", "images"), method=Method.projector),
        roots=roots,
        tokenizer=tokenizer,
        cache=cache,
    )

    assert len(tuned) == 65
    assert len(aligned) == 60
    assert tuned.skipped == aligned.skipped == []
    assert tuned.lengths.max() < 160


def test_a_stop_is_obeyed_at_once(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done == 3:
            raise Interrupted("stop")

    with pytest.raises(Interrupted):
        generate("pictures", PICTURES, tmp_path, tick=stop)

    assert len(list((tmp_path / "images").iterdir())) == 3
    assert not (tmp_path / "captions.json").exists()


BAD = [
    pytest.param("movies", {}, "generator 'movies' is unknown; known are language", id="unknown"),
    pytest.param("language", {"seed": 1}, "takes the parameters num_conversations, seed", id="few"),
    pytest.param(
        "tower_pictures", {**TOWERS, "size": 3}, "not num_pictures, seed, size", id="many"
    ),
    pytest.param("pictures", {**PICTURES, "density": "none"}, "density='none'", id="density"),
    pytest.param("pictures", {**PICTURES, "num_pictures": 0}, "num_pictures=0 .* >= 1", id="zero"),
    pytest.param("pictures", {**PICTURES, "seed": "1"}, "seed='1' .* an integer", id="text"),
    pytest.param("pictures", {**PICTURES, "num_text": True}, "num_text=True", id="boolean"),
]


@pytest.mark.parametrize(("generator", "parameters", "message"), BAD)
def test_bad_parameters_are_refused_by_name(
    tmp_path: Path, generator: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        generate(generator, parameters, tmp_path / "out", tick=lambda _: None)

    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match=message):
        check_parameters(generator, parameters)
