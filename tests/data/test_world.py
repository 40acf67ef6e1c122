"""The miniature world, against scenes and answers worked out by hand."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from scalesweep.data.world import (
    BEASTS,
    CANVAS,
    COLORS,
    FOOD,
    HOME,
    OWNER,
    QUESTION_KINDS,
    Question,
    Scene,
    Thing,
    caption,
    draw,
    question,
    scene,
    skill,
    vocabulary,
)

TWO = (Thing(0, "circle", "red", 4), Thing(1, "cross", "blue", 7))
"""A red circle 4 top left, and right of it a blue cross 7."""
LONE = (Thing(3, "diamond", "white", 0),)


def asked(things: Scene, *, times: int = 300) -> dict[str, set[tuple[str, str]]]:
    """All (question, answer) pairs drawn, by kind."""
    rng = random.Random(1)
    found: dict[str, set[tuple[str, str]]] = {}
    for _ in range(times):
        q = question(things, rng)
        found.setdefault(q.kind, set()).add((q.text, q.answer))
    return found


def test_a_caption_names_everything_in_the_order_of_the_cells() -> None:
    assert caption(TWO) == "red circle 4 top left , blue cross 7 top right"
    assert caption(LONE) == "white diamond 0 bottom right"


def test_every_answer_follows_from_the_scene() -> None:
    found = asked(TWO)

    assert found == {
        "color": {
            ("what color is the circle ?", "red"),
            ("what color is the cross ?", "blue"),
        },
        "shape": {
            ("what shape is top left ?", "circle"),
            ("what shape is top right ?", "cross"),
        },
        "where": {
            ("where is the circle ?", "top left"),
            ("where is the cross ?", "top right"),
        },
        "read": {
            ("what digit is on the circle ?", "4"),
            ("what digit is on the cross ?", "7"),
        },
        "beside": {
            ("what color is right of the circle ?", "blue"),
            ("what color is left of the cross ?", "red"),
        },
        "owner": {
            ("who owns the circle ?", OWNER["red", "circle"]),
            ("who owns the cross ?", OWNER["blue", "cross"]),
        },
        "plus": {
            (f"what is the digit on the {shape} plus {more} ?", str(digit + more))
            for shape, digit in (("circle", 4), ("cross", 7))
            for more in (1, 2, 3, 4)
        },
    }


def test_a_lone_thing_has_no_neighbour_to_ask_for() -> None:
    found = asked(LONE)

    assert "beside" not in found
    assert found.keys() == QUESTION_KINDS.keys() - {"beside"}


def test_facts_and_sums_are_right() -> None:
    rng = random.Random(2)
    for _ in range(300):
        q = skill(rng)
        words = q.text.split()
        if words[:2] == ["what", "is"]:
            assert int(q.answer) == int(words[2]) + int(words[4])
        elif words[0] == "repeat":
            assert words[1:-1] == q.answer.split()
        elif words[0] == "who":
            assert q.answer == OWNER[words[3], words[4]]
        else:
            assert q.answer == {"what": FOOD, "where": HOME}[words[0]][words[3]]


@pytest.mark.parametrize(
    ("density", "shares"), [("sparse", [0.5, 0.3, 0.2, 0.0]), ("dense", [0.0, 0.3, 0.4, 0.3])]
)
def test_scenes_hold_as_many_things_as_their_density_says(
    density: str, shares: list[float]
) -> None:
    rng = random.Random(3)
    scenes = [scene(rng, density) for _ in range(2000)]

    counts = Counter(len(things) for things in scenes)
    for number, share in enumerate(shares, start=1):
        # 4 standard deviations of a share of 2,000 draws
        assert abs(counts[number] / 2000 - share) < 4 * 0.0112
    for things in scenes:
        assert [t.cell for t in things] == sorted({t.cell for t in things})
        assert len({t.shape for t in things}) == len(things)


def test_a_picture_shows_the_colours_where_the_scene_has_them() -> None:
    pixels = np.asarray(draw(TWO, random.Random(4)), dtype=np.float32)

    assert pixels.shape == (CANVAS, CANVAS, 3)
    # A patch above the digit, within the shape; noise has deviation 12, so 5 x 9 pixels average.
    for x, color in ((24, "red"), (72, "blue")):
        patch = pixels[10:15, x - 4 : x + 5].mean(axis=(0, 1))
        assert np.abs(patch - COLORS[color]).max() < 15
    assert pixels[52:, :].mean() < 50  # nothing below


def test_drawing_leaves_the_stream_of_scenes_alone() -> None:
    with_pictures, without = random.Random(5), random.Random(5)
    brush = random.Random(6)

    drawn = []
    for _ in range(20):
        things = scene(with_pictures)
        draw(things, brush)
        drawn.append((things, question(things, with_pictures)))

    plain = [(things := scene(without), question(things, without)) for _ in range(20)]
    assert drawn == plain


def test_draws_are_the_ones_the_shipped_models_were_made_from() -> None:
    # Seed 300 is the training set's. A change here makes shipped weights and data disagree.
    rng = random.Random(300)

    first = scene(rng, "sparse")

    assert caption(first) == "purple cross 6 top left , purple triangle 9 bottom left"
    assert question(first, rng) == Question("shape", "what shape is top left ?", "cross")
    assert skill(random.Random(901)) == Question("fact", "what does the damus eat ?", "grass")
    assert OWNER["red", "circle"] == "finn"
    assert FOOD["bofim"] == "bread"
    assert HOME["rutep"] == "cave"


def test_the_vocabulary_is_whole_and_its_places_are_fixed() -> None:
    words = vocabulary()

    assert len(words) == len(set(words)) == 132
    assert words[:5] == ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    assert words[-19:] == [str(number) for number in range(19)]
    assert len(BEASTS) == 40
    rng = random.Random(7)
    for _ in range(500):
        things = scene(rng)
        for q in (question(things, rng), skill(rng)):
            text = f"USER: {caption(things)} {q.text} ASSISTANT: {q.answer}"
            assert set(text.split()) <= set(words)
