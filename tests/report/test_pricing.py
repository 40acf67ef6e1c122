"""A study at another price than it was charged at: the same node-hours, other dollars."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from scalesweep.errors import ConfigError
from scalesweep.records import Execution, StageKind
from scalesweep.report.collect import StudyResults, collect
from scalesweep.report.command import report
from scalesweep.report.pricing import Pricing, parsed_pricing
from scalesweep.report.slurm_accounting import IdleRun, StageAccount
from scalesweep.report.study_report import build_report
from scalesweep.report.summary import price_notes
from scalesweep.rundir import read_json, write_json
from tests.report.synthetic import Point, SyntheticStudy, build_study
from tests.report.test_costs import usage


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    """Charged $0.10 per node-hour; its tuning ran on a cluster whose own price is on record."""
    made = build_study(tmp_path, [Point(score=0.5)], num_questions=8)
    for stage in made.plan.stages:
        path = made.store.stage(stage.spec.ref).attempt(1).execution_file
        prices = {"cloud": 0.1, "own": 3.0 if stage.spec.ref.kind is StageKind.tune else 1.0}
        write_json(path, {**read_json(path), "prices": prices})
    return made


def priced(study: SyntheticStudy, text: str) -> StudyResults:
    return collect(study.store, study.plan, pricing=parsed_pricing(text))


def test_dollars_are_the_same_node_hours_at_the_price_asked_for(study: SyntheticStudy) -> None:
    charged = collect(study.store, study.plan)
    found = priced(study, "7.2")

    (cell,) = found.cells
    # tune: 39 s on one of two devices
    assert cell.costs.tune.micro_usd == round(39.0 / 2 / 3600 * 7.2 * 1e6) == 39_000
    assert found.total.total.node_ms == charged.total.total.node_ms
    assert found.total.total.micro_usd == pytest.approx(
        72 * charged.total.total.micro_usd, rel=0.01
    )
    assert sum(row.cost.total.micro_usd for row in found.ledger) == found.total.total.micro_usd
    assert [price.is_example for price in found.prices] == [False]


def test_each_attempt_takes_its_own_clusters_price_of_a_name(study: SyntheticStudy) -> None:
    (cell,) = priced(study, "own").cells

    # tune at $3; all else (84.8 s less 39 s) at $1
    assert cell.costs.tune.micro_usd == 16_250
    assert cell.costs.standalone.micro_usd - 16_250 == pytest.approx(
        (84.8 - 39.0) / 2 / 3600 * 1e6, abs=8
    )


def test_the_report_says_that_it_was_repriced_and_from_what(study: SyntheticStudy) -> None:
    made = build_report(priced(study, "own"), None)
    text = report(study.store, None, format="md", price="own")
    data = json.loads(report(study.store, None, format="json", price="7.2", ledger=True))

    assert any(
        "--price=own" in note and "$0.10 per node-hour" in note for note in price_notes(made)
    )
    assert "Repriced for this report (--price=own)" in text
    assert any("--price=7.2" in note for note in data["notes"])
    assert {row["usd_per_node_hour"] for row in data["rows"]} == {7.2}


def test_free_leaves_node_hours(study: SyntheticStudy) -> None:
    made = build_report(priced(study, "free"), None)

    assert made.has_prices is False
    assert made.results.total.total.micro_usd == 0
    assert made.cost(made.settings[0]) == pytest.approx(84.8 / 2 / 3600)


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "nan", "inf", "rent"])
def test_what_is_no_price_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--price={text}"):
        parsed_pricing(text)


def test_a_price_that_nobody_wrote_down_is_refused(study: SyntheticStudy) -> None:
    path = study.store.stage(study.plan.stages[0].spec.ref).attempt(1).execution_file
    write_json(path, {**read_json(path), "prices": {}})

    with pytest.raises(ConfigError, match=r"--price=own: attempts on cluster local have no price"):
        priced(study, "own")


def test_a_jobs_run_without_an_attempt_is_repriced_as_it_was_submitted(
    study: SyntheticStudy,
) -> None:
    results = collect(study.store, study.plan)
    submitted = Execution(cluster="slurm", prices={"own": 2.0})
    held = usage(wall_s=1800.0, startup_s=1800.0, num_devices=8, usd_per_node_hour=9.0)
    run = IdleRun(job="7_1", number=1, usage=held, execution=submitted)
    (stage, *_) = results.stages.values()
    with_run = dataclasses.replace(stage, account=StageAccount(charges=(), idle=(run,)))
    planned = study.plan.stage(stage.ref).execution

    before = Pricing(asked="own", usd_per_node_hour=None).stage(stage, planned=planned)
    found = Pricing(asked="own", usd_per_node_hour=None).stage(with_run, planned=planned)

    # half an hour of a node of 8 at $2
    assert found.cost.total.micro_usd - before.cost.total.micro_usd == 1_000_000
