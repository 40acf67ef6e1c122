"""The miniature world: pictures, captions, questions and skills that need no picture.

A picture has 2 x 2 cells; some hold a coloured shape with a small digit. It is drawn at 96 px; the
image processor shrinks it to the tower's 32 or 48 px, where the digit is 3 or 5 px high: that is
what resolution buys. Nothing can be answered without the picture but the skills.

Every draw comes from a generator that the caller passes, in an order that must not change: the
shipped towers and language models were made from these very draws.
"""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

CANVAS = 96
"""Side of a picture, in pixels."""
# Font size of the digit. At 15 a 32 px tower reads 3 of 4 digits and resolution hardly matters; at
# 13 it is about 9 px high on the canvas.
GLYPH = 13
NOISE = 12.0
"""Standard deviation of the pixel noise, of 255."""

COLORS = {
    "red": (225, 60, 60),
    "green": (60, 190, 80),
    "blue": (80, 120, 240),
    "yellow": (240, 215, 60),
    "purple": (185, 90, 215),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross", "diamond")
POSITIONS = ("top left", "top right", "bottom left", "bottom right")
BESIDE = {
    ("right of", 0): 1,
    ("right of", 2): 3,
    ("left of", 1): 0,
    ("left of", 3): 2,
    ("below", 0): 2,
    ("below", 1): 3,
    ("above", 2): 0,
    ("above", 3): 1,
}
"""(relation, cell) -> the cell that lies so, seen from it."""

OWNERS = ("anna", "bert", "cleo", "dirk", "emma", "finn", "gina", "hugo", "iris", "jack")
BEASTS = tuple(
    first + last
    for first in ("bo", "da", "ki", "lu", "mo", "ne", "pa", "ru")
    for last in ("fim", "gol", "mus", "nax", "tep")
)
FOODS = ("bread", "fish", "grass", "honey", "nuts", "rice", "seeds", "soup", "corn", "figs")
HOMES = (
    *("cave", "creek", "desert", "forest", "hill"),
    *("island", "lake", "marsh", "meadow", "reef"),
)

_facts = random.Random(7)
OWNER = {(color, shape): _facts.choice(OWNERS) for color in COLORS for shape in SHAPES}
FOOD = {beast: _facts.choice(FOODS) for beast in BEASTS}
HOME = {beast: _facts.choice(HOMES) for beast in BEASTS}

QUESTION_KINDS = {
    "color": 1,
    "shape": 1,
    "where": 1,
    "read": 2,
    "beside": 1,
    "owner": 1,
    "plus": 1,
}
"""Kind of question about a picture -> weight in the mix."""
SKILL_KINDS = {"fact": 2, "sum": 1, "copy": 1}
"""Kind of question without a picture -> weight in the mix."""

DENSITIES = {"dense": (0, 3, 4, 3), "sparse": (5, 3, 2, 0)}
"""Weights of 1, 2, 3, 4 things in a scene. Sparse pictures teach one thing's attributes first."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A shape in one cell of a scene."""

    cell: int
    """0 top left, 1 top right, 2 bottom left, 3 bottom right."""
    shape: str
    color: str
    digit: int


Scene = tuple[Thing, ...]
"""Things in the order of their cells; every shape occurs at most once."""


@dataclass(frozen=True, slots=True)
class Question:
    kind: str
    text: str
    answer: str


def scene(rng: random.Random, density: str = "dense") -> Scene:
    """What a picture shows."""
    count = rng.choices([1, 2, 3, 4], DENSITIES[density])[0]
    cells = sorted(rng.sample(range(4), count))
    shapes = rng.sample(SHAPES, count)
    return tuple(
        Thing(cell, shape, rng.choice(list(COLORS)), rng.randrange(10))
        for cell, shape in zip(cells, shapes, strict=True)
    )


def draw(things: Scene, rng: random.Random) -> Image.Image:
    """The picture of a scene, RGB, CANVAS pixels square."""
    background = tuple(rng.randint(0, 40) for _ in range(3))
    image = Image.new("RGB", (CANVAS, CANVAS), background)
    pen = ImageDraw.Draw(image)
    for thing in things:
        x = 24 + 48 * (thing.cell % 2) + rng.randint(-3, 3)
        y = 24 + 48 * (thing.cell // 2) + rng.randint(-3, 3)
        _draw_shape(pen, thing, x, y, radius=rng.randint(17, 19))
        low = 3 if thing.shape == "triangle" else 0  # its middle lies lower
        pen.text((x, y + low), str(thing.digit), fill=(0, 0, 0), font=_font(), anchor="mm")
    which, top, left = rng.randrange(16), rng.randrange(CANVAS), rng.randrange(CANVAS)
    noise = _grain()[which, top : top + CANVAS, left : left + CANVAS]
    pixels = np.asarray(image, np.float32) + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _draw_shape(pen: ImageDraw.ImageDraw, thing: Thing, x: int, y: int, *, radius: int) -> None:
    r, fill = radius, COLORS[thing.color]
    if thing.shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif thing.shape == "square":
        pen.rectangle((x - r + 3, y - r + 3, x + r - 3, y + r - 3), fill=fill)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - r - 2), (x - r - 1, y + r - 2), (x + r + 1, y + r - 2)], fill=fill)
    elif thing.shape == "diamond":
        corners = [(x, y - r - 2), (x + r + 2, y), (x, y + r + 2), (x - r - 2, y)]
        pen.polygon(corners, fill=fill)
    else:
        arm = r // 2
        pen.rectangle((x - r, y - arm, x + r, y + arm), fill=fill)
        pen.rectangle((x - arm, y - r, x + arm, y + r), fill=fill)


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(GLYPH)


@functools.cache
def _grain() -> npt.NDArray[np.float32]:
    """[16, 192, 192, 3] noise that every picture takes a window of: drawing it anew is slow."""
    shape = (16, 2 * CANVAS, 2 * CANVAS, 3)
    return np.random.default_rng(0).normal(0, NOISE, shape).astype(np.float32)


def caption(things: Scene) -> str:
    """All that a picture shows: "red circle 4 top left , blue cross 7 bottom right"."""
    return " , ".join(f"{t.color} {t.shape} {t.digit} {POSITIONS[t.cell]}" for t in things)


def question(things: Scene, rng: random.Random) -> Question:
    """A question about a scene, of a kind drawn by weight."""
    return _question_of(_drawn(QUESTION_KINDS, rng), things, rng)


def _question_of(kind: str, things: Scene, rng: random.Random) -> Question:
    thing = rng.choice(things)
    the, position = f"the {thing.shape}", POSITIONS[thing.cell]
    if kind == "color":
        return Question(kind, f"what color is {the} ?", thing.color)
    if kind == "shape":
        return Question(kind, f"what shape is {position} ?", thing.shape)
    if kind == "where":
        return Question(kind, f"where is {the} ?", position)
    if kind == "read":
        return Question(kind, f"what digit is on {the} ?", str(thing.digit))
    if kind == "owner":
        return Question(kind, f"who owns {the} ?", OWNER[thing.color, thing.shape])
    if kind == "plus":
        more = rng.randint(1, 4)
        text = f"what is the digit on {the} plus {more} ?"
        return Question(kind, text, str(thing.digit + more))
    assert kind == "beside", kind
    neighbours = _neighbours(things)
    if not neighbours:  # a lone thing: ask for its colour instead
        return _question_of("color", things, rng)
    relation, seen_from, neighbour = rng.choice(neighbours)
    return Question(kind, f"what color is {relation} the {seen_from.shape} ?", neighbour.color)


def _neighbours(things: Scene) -> list[tuple[str, Thing, Thing]]:
    """(relation, thing, the one that lies so)."""
    at = {thing.cell: thing for thing in things}
    return [
        (relation, at[cell], at[other])
        for (relation, cell), other in BESIDE.items()
        if cell in at and other in at
    ]


def skill(rng: random.Random) -> Question:
    """A question that needs no picture: a fact of this world, a sum, or words to repeat."""
    kind = _drawn(SKILL_KINDS, rng)
    if kind == "fact":
        return _fact(rng)
    if kind == "sum":
        a, b = rng.randrange(10), rng.randrange(10)
        return Question(kind, f"what is {a} plus {b} ?", str(a + b))
    words = " ".join(rng.choice(BEASTS) for _ in range(3))
    return Question(kind, f"repeat {words} .", words)


def _fact(rng: random.Random) -> Question:
    which = rng.randrange(3)
    if which == 0:
        (color, shape), owner = rng.choice(list(OWNER.items()))
        return Question("fact", f"who owns the {color} {shape} ?", owner)
    beast = rng.choice(BEASTS)
    if which == 1:
        return Question("fact", f"what does the {beast} eat ?", FOOD[beast])
    return Question("fact", f"where does the {beast} live ?", HOME[beast])


def _drawn(weights: dict[str, int], rng: random.Random) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def vocabulary() -> list[str]:
    """Every word of this world; a word's place is its token id."""
    grammar = (
        "USER: ASSISTANT: what color is the shape where digit on who owns plus does eat live repeat"
        " right left of below above top bottom ? . ,"
    )
    words = {*grammar.split(), *COLORS, *SHAPES, *OWNERS, *BEASTS, *FOODS, *HOMES}
    special = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
    # 18: the largest sum, 9 + 9.
    return [*special, *sorted(words), *(str(number) for number in range(19))]
