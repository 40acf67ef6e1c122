"""The ledger: every attempt with its parts and who paid, by hand and as a property of what is
shown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesweep.cost_model.cost import NOTHING, Cost
from scalesweep.records import Execution, Outcome, StageKind, StageRef, Usage
from scalesweep.report.collect import StudyResults, collect
from scalesweep.report.costs import JudgePay, StageCost
from scalesweep.report.html import render_html
from scalesweep.report.ledger import LedgerRow
from scalesweep.report.render_json import report_json
from scalesweep.report.render_ledger import render, tables
from scalesweep.report.render_markdown import render_markdown
from scalesweep.report.study_report import StudyReport, build_report
from scalesweep.report.table import Table
from scalesweep.report.tables import kinds_table
from scalesweep.rundir import read_json, write_json
from tests.report.synthetic import Point, SyntheticStudy, add_attempt, build_study, publish

START = 1_790_000_000.0


def report_of(study: SyntheticStudy) -> StudyReport:
    return build_report(collect(study.store, study.plan), None)


def paid_by(study: SyntheticStudy, ref: StageRef, number: int, payer: str) -> None:
    path = study.store.stage(ref).attempt(number).execution_file
    write_json(path, {**read_json(path), "study": payer, "device": "A100-80GB"})


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    """Of one cell: its tuning was killed at step 60, went on from step 40, and was finished by this
    study; all before was paid by an earlier one, but for the answers and their judge."""
    made = build_study(tmp_path, [Point(score=0.5, state="missing")], num_questions=8)
    cell = made.plan.cells[0]
    for stage in made.plan.stages:
        if stage.spec.ref.kind is not StageKind.tune and made.store.stage(stage.spec.ref).done():
            paid_by(made, stage.spec.ref, 1, "earlier")
    usage = Usage(
        outcome=Outcome.killed,
        failure="out_of_memory",
        started_at=START,
        wall_s=3600.0,
        startup_s=720.0,
        num_devices=1,
        node_devices=2,
        usd_per_node_hour=10.0,
        steps=60,
    )
    tune = cell.stages["tune"]
    add_attempt(made, tune, usage)
    again = dataclasses.replace(
        usage, outcome=Outcome.done, failure="", first_step=40, steps=110, startup_s=360.0
    )
    publish(made, tune, add_attempt(made, tune, again))
    paid_by(made, tune, 1, "earlier")
    paid_by(made, tune, 2, "quickstart")
    generate = add_attempt(
        made, cell.stages["generate"], dataclasses.replace(again, wall_s=1800.0, startup_s=0.0)
    )
    publish(made, cell.stages["generate"], generate)
    paid_by(made, cell.stages["generate"], generate, "quickstart")
    judge = add_attempt(
        made, cell.stages["judge"], dataclasses.replace(again, num_devices=0, wall_s=60.0)
    )
    folder = made.store.stage(cell.stages["judge"]).attempt(judge).path
    write_json(
        folder / "judging.json",
        {"usd": 0.75, "unsure_usd": 0.0, "benchmarks": {"b": {"metered": {"replies": 8}}}},
    )
    paid_by(made, cell.stages["judge"], judge, "quickstart")
    return made


def column(table: Table, title: str) -> list[str]:
    place = [column.title for column in table.columns].index(title)
    return [row[place].text for row in table.rows]


def test_a_killed_attempt_by_hand(study: SyntheticStudy) -> None:
    rows = list(csv.DictReader(io.StringIO(render(report_of(study), "csv"))))
    killed, done = (row for row in rows if row["kind"] == "tune")

    # half a node for an hour at $10: $5. Start-up 12 of 60 minutes: $1. Of the 48 minutes of
    # steps 1 to 60 those after step 40 were done again: a third, $1.3333.
    assert (killed["outcome"], killed["failure"]) == ("killed", "out_of_memory")
    assert (killed["usd"], killed["startup_usd"]) == ("5.000000", "1.000000")
    assert (killed["lost_usd"], killed["work_usd"]) == ("1.333333", "2.666667")
    assert (killed["device_seconds"], killed["node_hours"]) == ("3600.000", "0.500000000")
    assert (killed["paid_by"], killed["paid_here"]) == ("earlier", "0")
    assert killed["began"] == "2026-09-21 14:13:20"
    assert (killed["cluster"], killed["device"]) == ("local", "A100-80GB")
    assert (done["usd"], done["startup_usd"], done["lost_usd"]) == (
        "5.000000",
        "0.500000",
        "0.000000",
    )


def test_totals_by_payer_and_by_what_for(study: SyntheticStudy) -> None:
    found = json.loads(render(report_of(study), "json"))
    here, total = found["by_payer"]["quickstart"], found["total"]

    # here: the second attempt ($5, of it $0.5 start-up), half an hour of answering ($2.5), $0.75
    assert here["usd"] == 8.25
    assert (here["work_usd"], here["startup_usd"]) == (4.5, 0.5)
    assert (here["evaluation_usd"], here["judges_usd"], here["lost_usd"]) == (2.5, 0.75, 0.0)
    parts = ("work", "evaluation", "startup", "lost", "judges")
    for whole in (total, *found["by_payer"].values()):
        assert sum(round(whole[f"{part}_usd"] * 1e6) for part in parts) == round(whole["usd"] * 1e6)
    assert sum(round(row["usd"] * 1e6) for row in found["rows"]) == round(total["usd"] * 1e6)
    assert set(found["by_payer"]) == {"quickstart", "earlier"}


def test_every_format_tells_of_every_attempt(study: SyntheticStudy) -> None:
    report = report_of(study)
    text = render(report, "terminal", width=80)

    assert max(map(len, text.splitlines())) <= 80
    for shown in (text, render(report, "md"), render_markdown(report), render_html(report)):
        assert "killed: out" in shown
        assert "Who paid, and what for" in shown or "who paid, and what for" in shown
        assert "earlier (reused)" in " ".join(shown.split())
    assert "local A100-80GB, began 2026-09-21 14:13:20 UTC" in render_html(report)
    wide = render(report, "terminal", width=180)
    assert "local A100-80GB" in wide
    assert "2026-09-21 14:13:20" in wide


def test_costs_of_a_running_attempt_are_so_far(study: SyntheticStudy) -> None:
    tune = study.plan.cells[0].stages["tune"]
    study.store.stage(tune).done_file.unlink()
    path = study.store.stage(tune).attempt(2).usage_file
    write_json(path, {**read_json(path), "outcome": "running"})
    report = report_of(study)

    found = json.loads(render(report, "json"))
    attempts, payers = tables(report)

    assert found["is_so_far"] is True
    assert [row["is_so_far"] for row in found["rows"] if row["kind"] == "tune"] == [False, True]
    assert [text for text in column(attempts, "all $") if "≥" in text] == ["≥5.00", "≥13.25"]
    assert column(payers, "all $") == ["5.00", "≥8.25", "≥13.25"]
    (cell,) = report.results.cells
    assert cell.costs_are_whole is False
    kinds = kinds_table(report)
    assert [text for text in column(kinds, "$") if "≥" in text] == ["≥10.000000", "≥12.500548"]
    assert report_json(report)["costs"]["is_so_far"] is True
    assert any("1 attempt still runs" in note for note in attempts.notes)
    assert any("1 attempt still runs" in note for note in found["notes"])


ATTEMPTS = st.lists(
    st.builds(
        LedgerRow,
        stage=st.builds(StageRef, kind=st.sampled_from(StageKind), key=st.just("k")),
        label=st.just("stage"),
        number=st.sampled_from([None, 1, 2]),
        outcome=st.sampled_from(["done", "failed"]),
        payer=st.sampled_from(["", "earlier", "quickstart"]),
        cost=st.builds(
            lambda kept, startup, lost: StageCost(
                total=kept + startup + lost, startup=startup, lost=lost
            ),
            *[
                st.builds(
                    Cost,
                    micro_usd=st.integers(0, 10**8),
                    node_ms=st.integers(0, 10**8),
                    device_ms=st.integers(0, 10**8),
                )
            ]
            * 3,
        ),
        judges=st.builds(
            JudgePay, micro_usd=st.sampled_from([0, 1, 7_654_321]), num_asked=st.just(1)
        ),
        usd_per_node_hour=st.just(1.0),
    ),
    min_size=1,
    max_size=20,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    study = build_study(tmp_path_factory.mktemp("store"), [Point(score=0.5)], num_questions=8)
    return collect(study.store, study.plan)


@settings(deadline=None, max_examples=50)
@given(rows=ATTEMPTS, has_prices=st.booleans())
def test_what_is_shown_adds_up_by_row_by_column_and_by_payer(
    results: StudyResults, rows: list[LedgerRow], has_prices: bool
) -> None:
    prices = results.prices if has_prices else ()
    results = dataclasses.replace(results, prices=prices)
    results.__dict__["ledger"] = tuple(rows)

    attempts, payers = tables(build_report(results, None))

    unit, whole = ("$", "all $") if has_prices else ("h", "node-h")
    names = ["work", "evaluation", "start-up", "lost", *(["judges"] if has_prices else [])]
    hours = ["device-h", *(["node-h"] if has_prices else [])]
    numbers = {name: amounts(column(attempts, name)) for name in (*names, whole, *hours)}
    for *parts, total in numbers.values():
        assert sum(parts) == total
    for i in range(len(rows) + 1):
        assert sum(numbers[name][i] for name in names) == numbers[whole][i]
    sums = {name: amounts(column(payers, f"{name} {unit}")) for name in names}
    for name, (*parts, total) in sums.items():
        assert sum(parts) == total == numbers[name][-1]
    paid = amounts(column(payers, f"all {unit}"))
    assert paid[-1] == numbers[whole][-1]
    shown_by = column(attempts, "paid by")
    for i, payer in enumerate(column(payers, "paid by")[:-1]):
        word = {"not told apart": "unknown", "quickstart (this study)": "here"}.get(
            payer, "earlier"
        )
        assert paid[i] == sum(
            value for value, by in zip(numbers[whole], shown_by, strict=True) if by == word
        )
    # and it is the exact total, to the last digit shown
    exact = sum((sum(row.parts.values(), NOTHING) for row in rows), NOTHING)
    value = exact.usd if has_prices else exact.node_hours
    text = column(attempts, whole)[-1]
    assert abs(float(text.replace(",", "")) - value) < 10.0 ** -len(text.partition(".")[2])


def amounts(texts: list[str]) -> list[int]:
    """In units of the last digit shown."""
    decimals = len(texts[-1].partition(".")[2])
    return [round(float(text.replace(",", "")) * 10**decimals) for text in texts]


def test_a_job_that_made_no_attempt_is_paid_by_who_submitted_it() -> None:
    from scalesweep.report.ledger import ledger_rows
    from scalesweep.report.slurm_accounting import IdleRun, StageAccount
    from scalesweep.report.stage_results import StageResult, StageState

    held = Usage(
        outcome=Outcome.killed,
        wall_s=360.0,
        startup_s=360.0,
        num_devices=8,
        node_devices=8,
        usd_per_node_hour=20.0,
    )
    execution = Execution(cluster="slurm", device="A100-80GB", study="earlier")
    run = IdleRun(job="7_1", number=2, usage=held, execution=execution)
    stage = StageResult(
        ref=StageRef(kind=StageKind.tune, key="k"),
        label="tune",
        kind=StageKind.tune,
        state=StageState.missing,
        cause="",
        attempts=(),
        num_cells=1,
        cost=StageCost(),
        output=None,
        account=StageAccount(charges=(), idle=(run,)),
    )

    (row,) = ledger_rows([stage])

    # a node for six minutes at $20 an hour
    assert (row.payer, row.number, row.job) == ("earlier", None, "7_1")
    assert row.cost.startup.micro_usd == row.cost.total.micro_usd == 2_000_000


def test_a_study_of_which_nothing_was_tried_says_so(tmp_path: Path) -> None:
    study = build_study(tmp_path, [Point(score=0.5)], num_questions=8)
    shutil.rmtree(tmp_path / "stages")
    report = report_of(study)

    assert render(report, "terminal") == "Nothing of study quickstart was tried yet.\n"
    assert len(render(report, "csv").splitlines()) == 1
    assert json.loads(render(report, "json"))["total"]["usd"] == 0.0
