"""Short names of settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from scalesweep.plan.graph import Cell
from scalesweep.report.labels import (
    setting_key,
    setting_labels,
    short_labels,
    usual_values,
    value_at,
)
from tests.report.synthetic import QUICKSTART, Point, build_study


def cells_of(tmp_path: Path, *points: Point) -> tuple[Cell, ...]:
    return build_study(tmp_path, points, num_questions=8).plan.cells


def test_labels_say_what_is_not_usual(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, *QUICKSTART)

    assert list(setting_labels(cells).values()) == [
        "mini_xs 32px full",
        "mini_s 32px full",
        "mini_m 32px full",
        "mini_s 48px full",
        "mini_s 32px full mix=mini",
        "mini_s 32px lora",
        "mini_s 32px qlora",
        "mini_s 32px lora lr=0.0015",
        "mini_s 32px lora r64 lr=0.0015",
        "mini_s 32px lora a1",
        "mini_s 32px full blind",
    ]
    assert usual_values(cells)[:3] == ["mix=mini_text", "r8", "a16"]


def test_seeds_of_a_setting_share_label_and_key(tmp_path: Path) -> None:
    one, two = cells_of(tmp_path, Point(score=0.5, seed=1), Point(score=0.5, seed=2))

    assert setting_key(one) == setting_key(two)
    assert set(setting_labels([one, two]).values()) == {"mini_s 32px full"}


def test_settings_that_a_label_cannot_tell_apart_keep_their_cells_names(tmp_path: Path) -> None:
    (one,) = cells_of(tmp_path, Point(score=0.5))
    other = dataclasses.replace(one, name="other", config={**one.config, "precision": "bf16"})

    assert setting_labels([one, other]) == {one.name: one.name, "other": "other"}


def test_an_unknown_axis_is_said_by_its_key(tmp_path: Path) -> None:
    (one,) = cells_of(tmp_path, Point(score=0.5))
    beams = [
        dataclasses.replace(
            one,
            name=f"beams{n}",
            point={"evaluation.num_beams": n},
            config={**one.config, "evaluation": {"num_beams": n}},
        )
        for n in (1, 5)
    ]

    assert setting_labels(beams)["beams5"] == "mini_s 32px full evaluation.num_beams=5"


def test_figures_leave_out_what_all_names_begin_with() -> None:
    assert short_labels(["mini_s 32px", "mini_xs 32px"]) == {
        "mini_s 32px": "s 32px",
        "mini_xs 32px": "xs 32px",
    }
    assert short_labels(["mini_s full", "mini_s lora"]) == {
        "mini_s full": "s full",
        "mini_s lora": "s lora",
    }
    assert short_labels(["33b full", "65b full"])["33b full"] == "33b full"


def test_value_at_a_key_that_is_not_there_is_none() -> None:
    assert value_at({"lora": None}, "lora.rank") is None
    assert value_at({"a": {"b": 1}}, "a.b") == 1


def test_of_a_path_that_was_varied_a_label_has_the_last_name(tmp_path: Path) -> None:
    (one,) = cells_of(tmp_path, Point(score=0.5))
    point = {"model.weights": "/home/somebody/runs/last"}

    labels = setting_labels([dataclasses.replace(one, point=point)])

    assert labels == {one.name: "mini_s 32px full model.weights=…/last"}
