"""Cells become a graph in which equal stages stand once, and keys change only with outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from scalesweep.config.sweep import expand, load_sweep
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import Cell, Plan
from tests.config.composing import cell


def plan_of(*cells: Sequence[str]) -> Plan:
    requests = [
        CellRequest(point={"cell": i}, config=cell(*words)) for i, words in enumerate(cells)
    ]
    return build_plan(requests, study="test")


def kinds(plan: Plan) -> dict[str, int]:
    return dict(Counter(str(stage.spec.kind) for stage in plan.stages))


def keys(cell_: Cell) -> dict[str, str]:
    return {role: str(ref) for role, ref in cell_.stages.items()}


def test_a_grid_of_tuning_methods_shares_one_align() -> None:
    plan = plan_of(
        ["model=33b", "tuning=full"], ["model=33b", "tuning=lora"], ["model=33b", "tuning=qlora"]
    )

    assert kinds(plan)["align"] == 1
    assert kinds(plan)["tune"] == 3


def test_the_papers_grid_has_24_cells_8_aligns_and_one_base() -> None:
    cells = expand(
        None,
        {
            "model": ("7b", "13b", "33b", "65b"),
            "resolution": ("224px", "336px"),
            "tuning": ("lora", "qlora", "full"),
        },
    )

    plan = plan_of(*cells)

    assert len(plan.cells) == 24
    assert kinds(plan)["tune"] == 24
    assert kinds(plan)["align"] == 8
    assert kinds(plan)["base"] == 1


CHANGES_TUNE = [
    "optim.lr=1e-3",
    "seed=2",
    "batch.global_batch_size=64",
    "lora.rank=16",
    "lora.dropout=0.1",
    "optim.max_steps=10",
    "precision=bf16",
    "data_mix=mini",
    "resolution.blind=true",
    "resolution=48px",
    "model=mini_m",
    "align.optim.lr=1e-3",
]
KEEPS_TUNE = [
    "nodes=2",
    "batch.micro_batch_size=8",
    "zero.stage=2",
    "zero.gradient_checkpointing=full",
    "cluster.usd_per_node_hour=7",
    "cluster.checkpoint_every_steps=3",
    "store=elsewhere",
    "study=other",
    "model.path=/elsewhere",
    "evaluation.num_beams=5",
    "evaluation.batch_size=3",
    "tracking=none",
    "budget.usd=1",
]


@pytest.mark.parametrize("change", CHANGES_TUNE)
def test_what_changes_the_output_changes_the_key(change: str) -> None:
    plan = plan_of(["tuning=lora"], ["tuning=lora", change])

    first, second = plan.cells
    assert first.stages["tune"] != second.stages["tune"]


@pytest.mark.parametrize("change", KEEPS_TUNE)
def test_what_does_not_change_the_output_keeps_the_key(change: str) -> None:
    first = plan_of(["tuning=lora"]).cells[0]
    second = plan_of(["tuning=lora", change]).cells[0]

    assert first.stages["tune"] == second.stages["tune"]


def test_alignment_does_not_know_the_tuning_method() -> None:
    words = ["optim.lr=1", "batch.global_batch_size=64", "data_mix=mini", "tuning=qlora"]

    aligns = {plan_of([word]).cells[0].stages["align"] for word in words}

    assert len(aligns) == 1


def test_beams_change_the_answers_but_not_the_checkpoint() -> None:
    first, second = plan_of(["model=33b"], ["model=33b", "evaluation.num_beams=5"]).cells

    assert first.stages["tune"] == second.stages["tune"]
    assert first.stages["generate"] != second.stages["generate"]


def test_an_axis_over_execution_enters_the_key_of_what_it_varies() -> None:
    requests = [
        CellRequest(point={"zero.stage": stage}, config=cell("model=33b", f"zero.stage={stage}"))
        for stage in (2, 3)
    ]

    first, second = build_plan(requests, study="x").cells

    assert first.stages["tune"] != second.stages["tune"]
    assert first.stages["align"] == second.stages["align"]


def test_bases_made_here_feed_everything_after_them() -> None:
    plan = plan_of(["base=mini"])

    roles = plan.cells[0].stages
    made = {roles["base"], roles["tower"]}
    assert made <= plan.ancestors(roles["align"])
    assert made <= plan.ancestors(roles["judge"])
    assert roles["base"] in plan.ancestors(roles["judge_base"])
    assert roles["tower"] not in plan.ancestors(roles["judge_base"])


def test_a_tower_does_not_depend_on_the_language_model() -> None:
    plan = plan_of(["base=mini", "until=base"], ["base=mini", "until=base", "model=mini_m"])

    assert kinds(plan) == {"data": 2, "base": 3}


def test_a_study_without_a_name_is_named_after_its_cells() -> None:
    request = CellRequest(point={}, config=cell("model=mini_s"))
    other = CellRequest(point={}, config=cell("model=mini_m"))

    name = build_plan([request], study=None).study

    assert name == build_plan([request], study=None).study
    assert name != build_plan([other], study=None).study


@pytest.mark.parametrize("place", ["/home/somebody/w1", "local:/home/somebody/w1/", "~/w1"])
def test_of_a_path_that_is_varied_a_cells_name_has_the_last_name(place: str) -> None:
    requests = [
        CellRequest(point={"model.weights": value}, config=cell("model=mini_s", f"seed={i}"))
        for i, value in enumerate((place, "hub:owner/name@main"))
    ]

    first, second = (found.name for found in build_plan(requests, study="test").cells)

    assert first.endswith("-weightsw1")
    assert second.endswith("-weightshub_owner_name_main")


def test_a_plan_survives_json() -> None:
    plan = plan_of(["tuning=lora"], ["tuning=full"])

    again = Plan.from_json(plan.to_json())

    assert again.to_json() == plan.to_json()


# Cells and stages of every shipped sweep; a change here changes what people reproduce.
SWEEPS = {
    "quickstart": (11, {"data": 2, "align": 5, "tune": 11, "generate": 14, "judge": 14}),
    "quickstart_seeds": (33, {"data": 2, "align": 15, "tune": 33, "generate": 36, "judge": 36}),
    "miniature": (4, {"data": 2, "base": 5}),
    "table1": (6, {"data": 8, "base": 1, "align": 3, "tune": 3, "generate": 12, "judge": 12}),
    "table2": (4, {"data": 8, "base": 1, "align": 2, "tune": 4, "generate": 6, "judge": 6}),
    "table3a": (10, {"data": 8, "base": 1, "align": 8, "tune": 10, "generate": 14, "judge": 14}),
    "table3b": (3, {"data": 8, "base": 1, "align": 3, "tune": 3, "generate": 6, "judge": 6}),
    "table4": (9, {"data": 8, "base": 1, "align": 4, "tune": 9, "generate": 13, "judge": 13}),
    "table5": (6, {"data": 8, "base": 1, "align": 4, "tune": 6, "generate": 10, "judge": 10}),
    "lora_hyperparameters": (4, {"data": 7, "align": 1, "tune": 4, "generate": 5, "judge": 5}),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_shipped_sweeps_keep_their_cells_and_stages(name: str) -> None:
    plan = plan_of(*expand(load_sweep(name), {}))

    found = (len(plan.cells), kinds(plan))
    assert found == SWEEPS[name]


def test_table4_is_the_nine_published_rows() -> None:
    cells = [cell(*words) for words in expand(load_sweep("table4"), {})]

    rows = [(c.model.name, c.tuning.method, c.lora.rank) for c in cells]
    assert rows == [
        ("7b", "full", None),
        ("13b", "lora", 64),
        ("13b", "full", None),
        ("33b", "lora", 8),
        ("33b", "qlora", 64),
        ("33b", "lora", 64),
        ("33b", "full", None),
        ("65b", "lora", 64),
        ("65b", "full", None),
    ]
    assert {(c.resolution.name, c.data_mix.name) for c in cells} == {("336px", "llava80k")}


# arXiv 2309.09958 table 4, in billions, within 0.01
@pytest.mark.parametrize(
    ("words", "billions"),
    [
        (["model=13b", "tuning=lora"], 0.26),
        (["model=33b", "tuning=lora", "lora.rank=8"], 0.06),
        (["model=33b", "tuning=qlora"], 0.49),
        (["model=33b", "tuning=lora"], 0.49),
        (["model=65b", "tuning=lora"], 0.81),
    ],
)
def test_trainable_parameters_are_the_papers(words: list[str], billions: float) -> None:
    found = plan_of(words).cells[0].num_trainable_params / 1e9

    assert found == pytest.approx(billions, abs=0.01)
