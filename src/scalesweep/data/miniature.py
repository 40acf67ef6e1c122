"""The miniature's data sets, drawn from seeds and written in the official formats.

Generators (DataSpec.generator) and what they write:
    pictures        images/, captions.json (558K format), instruct.json (LLaVA-Instruct format),
                    text.json (ShareGPT format): what the sweep trains on
    questions       images/, vqa.jsonl, text.jsonl: held-out questions, in LLaVA-Bench's format
    language        text.json: what a language model learns from before it ever sees a picture
    tower_pictures  images/, captions.json, held_out_images/, held_out.json: for vision towers

Equal parameters give equal bytes (with equal versions of Pillow and numpy).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from scalesweep.data.readers import IMAGE
from scalesweep.data.world import (
    DENSITIES,
    Question,
    Scene,
    caption,
    draw,
    question,
    scene,
    skill,
)
from scalesweep.errors import DataError

Tick = Callable[[int], None]
"""Called with the number of units done; raises Interrupted to stop."""
Parameters = Mapping[str, Any]
Item = dict[str, Any]

_TURNS = 4
"""Questions drawn about every picture, used or not: the stream of scenes depends on it."""
_BRUSH_SEED = 10**6
"""Added to a set's seed for the generator that draws: scenes do not depend on pixels."""
_WORDING_SEED = 2 * 10**6
"""Added to a set's seed for the generator that words requests and places <image>."""
_SKILL_SEED = 50
"""Added to a set's seed for its text-only conversations."""

# Some of the requests in LLaVA's 558K file. The caption templates leave them out.
_CAPTION_REQUESTS = (
    "Give a brief description of the image.",
    "Provide a brief description of the given image.",
    "Render a clear and concise summary of the photo.",
    "Share a concise interpretation of the image provided.",
    "What is this?",
)

# Share of described scenes among the conversations of "language", and turns of each kind.
_DESCRIBED_SHARE = 0.7
_DESCRIBED_TURNS, _SKILL_TURNS = 4, 6
_MOST_HELD_OUT = 1000


@dataclass(frozen=True, kw_only=True)
class _Generator:
    write: Callable[[Path, Parameters, Tick], None]
    parameters: tuple[str, ...]
    unit: str
    num_units: Callable[[Parameters], int]


def check_parameters(generator: str, parameters: Parameters) -> None:
    """Refuse what a generator cannot understand.

    Raises:
        DataError: the generator is unknown, or a parameter is missing, unknown or out of range.
    """
    if generator not in _GENERATORS:
        raise DataError(
            f"generator {generator!r} is unknown; known are {', '.join(sorted(_GENERATORS))}"
        )
    expected = set(_GENERATORS[generator].parameters)
    if set(parameters) != expected:
        raise DataError(
            f"generator {generator} takes the parameters {', '.join(sorted(expected))}, "
            f"not {', '.join(sorted(parameters)) or 'none'}"
        )
    for name, value in parameters.items():
        if name == "density":
            if value not in DENSITIES:
                raise DataError(f"density={value!r}; known are {', '.join(DENSITIES)}")
            continue
        least = 1 if name in ("num_pictures", "num_questions", "num_conversations", "turns") else 0
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise DataError(
                f"{name}={value!r} of generator {generator} must be an integer >= {least}"
            )


def num_units(generator: str, parameters: Parameters) -> tuple[int, str]:
    """How much there is to do, and what a unit is."""
    found = _GENERATORS[generator]
    return found.num_units(parameters), found.unit


def generate(generator: str, parameters: Parameters, folder: Path, *, tick: Tick) -> None:
    """Write a data set into a folder.

    Raises:
        DataError: see check_parameters.
        Interrupted: tick raised it.
    """
    check_parameters(generator, parameters)
    folder.mkdir(parents=True, exist_ok=True)
    _GENERATORS[generator].write(folder, parameters, tick)


def _write_pictures(folder: Path, parameters: Parameters, tick: Tick) -> None:
    seed, turns = parameters["seed"], parameters["turns"]
    wording = random.Random(seed + _WORDING_SEED)
    captions, instructions = [], []
    drawn = _pictures(parameters["num_pictures"], seed, parameters["density"], turns=turns)
    for number, (things, picture, questions) in enumerate(drawn):
        name = _save(picture, folder / "images", number)
        request = _with_picture(wording.choice(_CAPTION_REQUESTS), wording)
        captions.append(_item(number, [(request, caption(things))], image=name))
        first = _with_picture(questions[0].text, wording)
        said = [(first, questions[0].answer), *((q.text, q.answer) for q in questions[1:])]
        instructions.append(_item(number, said, image=name))
        tick(number + 1)
    _write_array(folder / "captions.json", captions)
    _write_array(folder / "instruct.json", instructions)
    rng = random.Random(seed + _SKILL_SEED)
    skills = (
        _item(f"skill_{number}", [(q.text, q.answer) for q in _skills(turns, rng)])
        for number in range(parameters["num_text"])
    )
    _write_array(folder / "text.json", skills)


def _write_questions(folder: Path, parameters: Parameters, tick: Tick) -> None:
    rows = []
    drawn = _pictures(parameters["num_questions"], parameters["seed"], "sparse", turns=_TURNS)
    for number, (_, picture, questions) in enumerate(drawn):
        name = _save(picture, folder / "images", number)
        rows.append(_question_row(number, questions[0], image=name))
        tick(number + 1)
    _write_lines(folder / "vqa.jsonl", rows)
    skills = _skills(parameters["num_text_questions"], random.Random(parameters["text_seed"]))
    _write_lines(
        folder / "text.jsonl", (_question_row(number, q) for number, q in enumerate(skills))
    )


def _write_language(folder: Path, parameters: Parameters, tick: Tick) -> None:
    rng = random.Random(parameters["seed"])

    def conversations() -> Iterator[Item]:
        for number in range(parameters["num_conversations"]):
            if rng.random() < _DESCRIBED_SHARE:
                things = scene(rng)
                questions = [question(things, rng) for _ in range(_DESCRIBED_TURNS)]
                said = [(q.text, q.answer) for q in questions]
                said[0] = f"{caption(things)} {questions[0].text}", questions[0].answer
            else:
                said = [(q.text, q.answer) for q in _skills(_SKILL_TURNS, rng)]
            yield _item(f"language_{number}", said)
            tick(number + 1)

    _write_array(folder / "text.json", conversations())


def _write_tower_pictures(folder: Path, parameters: Parameters, tick: Tick) -> None:
    count, seed = parameters["num_pictures"], parameters["seed"]
    parts = [
        (count, seed, "images", "captions.json", 0),
        (_num_held_out(parameters), seed + 1, "held_out_images", "held_out.json", count),
    ]
    for num_pictures, part_seed, images, file, done in parts:
        wording = random.Random(part_seed + _WORDING_SEED)
        items = []
        drawn = _pictures(num_pictures, part_seed, "dense", turns=_TURNS)
        for number, (things, picture, _) in enumerate(drawn):
            name = _save(picture, folder / images, number)
            request = _with_picture(wording.choice(_CAPTION_REQUESTS), wording)
            items.append(_item(number, [(request, caption(things))], image=name))
            tick(done + number + 1)
        _write_array(folder / file, items)


def _num_held_out(parameters: Parameters) -> int:
    """Never more than there are to learn from."""
    return min(_MOST_HELD_OUT, int(parameters["num_pictures"]))


_GENERATORS = {
    "pictures": _Generator(
        write=_write_pictures,
        parameters=("seed", "num_pictures", "num_text", "turns", "density"),
        unit="picture",
        num_units=lambda p: p["num_pictures"],
    ),
    "questions": _Generator(
        write=_write_questions,
        parameters=("seed", "num_questions", "text_seed", "num_text_questions"),
        unit="picture",
        num_units=lambda p: p["num_questions"],
    ),
    "language": _Generator(
        write=_write_language,
        parameters=("seed", "num_conversations"),
        unit="conversation",
        num_units=lambda p: p["num_conversations"],
    ),
    "tower_pictures": _Generator(
        write=_write_tower_pictures,
        parameters=("seed", "num_pictures"),
        unit="picture",
        num_units=lambda p: p["num_pictures"] + _num_held_out(p),
    ),
}


def _pictures(
    count: int, seed: int, density: str, *, turns: int
) -> Iterator[tuple[Scene, Image.Image, list[Question]]]:
    """Scenes with their pictures and questions."""
    rng, brush = random.Random(seed), random.Random(seed + _BRUSH_SEED)
    for _ in range(count):
        things = scene(rng, density)
        yield things, draw(things, brush), [question(things, rng) for _ in range(turns)]


def _skills(count: int, rng: random.Random) -> list[Question]:
    return [skill(rng) for _ in range(count)]


def _with_picture(text: str, rng: random.Random) -> str:
    """A first question with <image> before or after it, as both stand in the official files."""
    return f"{IMAGE}\n{text}" if rng.random() < 0.5 else f"{text}\n{IMAGE}"


def _save(picture: Image.Image, folder: Path, number: int) -> str:
    """Write a picture; its name. Level 1 saves a fifth of the bytes at twice the time: noise."""
    if number == 0:
        folder.mkdir()
    name = f"{number:06d}.png"
    picture.save(folder / name, compress_level=0)
    return name


def _item(number: int | str, said: Iterable[tuple[str, str]], *, image: str | None = None) -> Item:
    """An item of an official file."""
    turns = []
    for asked, answer in said:
        turns += [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}]
    name = f"{number:09d}" if isinstance(number, int) else number
    picture = {} if image is None else {"image": image}
    return {"id": name, **picture, "conversations": turns}


def _question_row(number: int, asked: Question, *, image: str | None = None) -> Item:
    picture = {} if image is None else {"image": image}
    return {
        "question_id": number,
        **picture,
        "text": asked.text,
        "answer": asked.answer,
        "category": asked.kind,
    }


def _write_array(path: Path, items: Iterable[Item]) -> None:
    """A JSON array, one item a line so that a person can look at it."""
    with path.open("w", encoding="utf-8") as file:
        gap = "[\n"
        for item in items:
            file.write(gap + json.dumps(item, ensure_ascii=False))
            gap = ",\n"
        file.write("\n]\n" if gap == ",\n" else "[]\n")


def _write_lines(path: Path, rows: Iterable[Item]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
