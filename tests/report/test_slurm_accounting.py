"""Slurm's account against the attempts' own: by hand, as a property, and in the reports."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesweep.records import Execution, Outcome, SlurmRun, StageKind, Usage
from scalesweep.report.collect import StudyResults, collect
from scalesweep.report.costs import stage_cost
from scalesweep.report.html import render_html
from scalesweep.report.render_csv import render_csv
from scalesweep.report.render_json import render_json
from scalesweep.report.render_markdown import render_markdown
from scalesweep.report.render_terminal import render_terminal
from scalesweep.report.slurm_accounting import (
    JournaledAttempt,
    Source,
    StageAccount,
    reconcile,
)
from scalesweep.report.study_report import build_report
from scalesweep.slurm_records import Accounting, JobRow, accounting_file
from tests.report.synthetic import (
    Point,
    SyntheticStudy,
    add_attempt,
    build_study,
    publish,
    write_json,
)

PLANNED = Execution(cluster="slurm", devices_per_node=2, node_devices=8, usd_per_node_hour=8.0)
NAME = "study-tune-1"


def run(restarts: int = 0, *, job_id: int = 12, index: int = 3, name: str = NAME) -> SlurmRun:
    return SlurmRun(
        cluster="lab",
        job_id=job_id,
        array_job_id=12,
        array_index=index,
        name=name,
        restarts=restarts,
    )


def attempt(
    number: int, of: SlurmRun | None, at: float = 0.0, wall_s: float | None = None, **fields: Any
) -> JournaledAttempt:
    """wall_s: None for one that wrote nothing."""
    if wall_s is None:
        return JournaledAttempt(number=number, run=of, usage=None)
    usage = Usage(
        **{
            "outcome": Outcome.done,
            "started_at": at,
            "wall_s": wall_s,
            "num_devices": 2,
            "node_devices": 8,
            "usd_per_node_hour": 8.0,
            **fields,
        }
    )
    return JournaledAttempt(number=number, run=of, usage=usage)


def row(start: int, elapsed_s: int, **fields: Any) -> JobRow:
    return JobRow(
        **{
            "job": "12_3",
            "job_id": 12,
            "name": NAME,
            "cluster": "lab",
            "state": "COMPLETED",
            "elapsed_s": elapsed_s,
            "gpus": 2,
            "nodes": 1,
            "cpus": 2,
            "submit": start - 10,
            "eligible": start - 4,
            "start": start,
            "end": start + elapsed_s,
            "exit_code": "0:0",
            "started": True,
            **fields,
        }
    )


def charged_s(account: StageAccount) -> list[float | None]:
    return [c.usage.wall_s if c.usage is not None else None for c in account.charges]


def test_a_run_is_charged_what_sacct_says() -> None:
    account = reconcile(
        [attempt(1, run(), 1002.5, 30.25, startup_s=4.0)], [row(1000, 35)], planned=PLANNED
    )

    (charge,) = account.charges
    assert charge.source is Source.sacct
    assert charge.usage is not None
    assert charge.usage.wall_s == 35
    # 2.5 s from the job's start to the attempt's, and 4 of its own
    assert charge.usage.startup_s == 6.5
    assert account.queued_s == 4


def test_attempts_of_one_run_keep_their_seconds_and_the_last_gets_the_rest() -> None:
    attempts = [attempt(1, run(), 1001, 10.5), attempt(2, run(), 1012, 20.25)]

    account = reconcile(attempts, [row(1000, 35)], planned=PLANNED)

    assert charged_s(account) == [10.5, 24.5]


@pytest.mark.parametrize(
    ("walls", "elapsed_s", "charged"),
    [
        pytest.param([10.4], 10, [10.0], id="rounding"),
        pytest.param([10.0, 5.5], 15, [10.0, 5.0], id="rounding of two"),
        pytest.param([10.0, 2.0, 1.0], 11, [10.0, 1.0, 0.0], id="outlived its row"),
        pytest.param([10.0, 2.0], 4, [4.0, 0.0], id="most of it outlived its row"),
        pytest.param([3.0], 0, [0.0], id="nothing"),
    ],
)
def test_what_the_journal_has_too_much_is_taken_from_the_end(
    walls: list[float], elapsed_s: int, charged: list[float]
) -> None:
    attempts = [attempt(i, run(), 1000.0 + i, wall) for i, wall in enumerate(walls)]

    account = reconcile(attempts, [row(1000, elapsed_s)], planned=PLANNED)

    assert charged_s(account) == charged


def test_a_row_that_runs_on_takes_nothing_from_the_journal() -> None:
    running = row(1000, 20, state="RUNNING", end=None)

    def charged(wall_s: float, outcome: Outcome) -> list[float | None]:
        one = attempt(1, run(), 1001, wall_s, outcome=outcome)
        return charged_s(reconcile([one], [running], planned=PLANNED))

    assert charged(50.0, Outcome.running) == [50.0]
    assert charged(15.0, Outcome.running) == [20.0]
    assert charged(15.0, Outcome.done) == [15.0]  # its end was forgotten, or is not told yet


def test_a_row_that_never_ends_is_not_believed_when_its_job_ran_again() -> None:
    """A controller that was killed forgot to tell the database that the first run was over."""
    rows = [row(1000, 5000, state="RUNNING", end=None), row(1100, 30)]
    attempts = [attempt(1, run(), 1001, 50.0), attempt(2, run(1), 1101, 29.0)]

    account = reconcile(attempts, rows, planned=PLANNED)

    assert charged_s(account) == [50.0, 30.0]
    assert account.idle == ()


def test_runs_before_a_requeue_have_their_own_rows() -> None:
    attempts = [attempt(1, run(0), 1002, 17.0), attempt(2, run(1), 1028, 23.0)]
    rows = [row(1000, 19, state="REQUEUED"), row(1026, 25)]

    account = reconcile(attempts, rows, planned=PLANNED)

    assert charged_s(account) == [19.0, 25.0]
    assert account.queued_s == 8
    assert not account.idle


def test_a_lost_row_leaves_the_journals_figure() -> None:
    attempts = [attempt(1, run(0), 1002, 31.2), attempt(2, run(1), 2002, 23.0)]

    account = reconcile(attempts, [row(2000, 25)], planned=PLANNED)

    assert charged_s(account) == [31.2, 25.0]
    assert [c.source for c in account.charges] == [Source.journal, Source.sacct]
    assert str(account.charges[0]) == "attempt 0001 (job 12_3, restart 0)"


def test_a_run_without_an_attempt_is_charged_to_the_stage() -> None:
    attempts = [attempt(1, run(0), 1002, 17.0)]

    submitted = {row(1000, 19).name: dataclasses.replace(PLANNED, study="earlier")}
    account = reconcile(
        attempts, [row(1000, 19), row(1030, 3)], planned=PLANNED, submitted=submitted
    )

    (idle,) = account.idle
    assert str(idle) == "job 12_3 run 2: no attempt"
    assert (idle.execution.study, idle.is_over) == ("earlier", True)
    assert idle.usage.wall_s == idle.usage.startup_s == 3
    assert idle.usage.node_hours == pytest.approx(3 * 2 / 8 / 3600)
    usages = [c.usage for c in account.charges if c.usage is not None]
    cost = stage_cost(usages, published=0, idle=[idle.usage])
    assert cost.total.device_seconds == 2 * (19 + 3)
    assert cost.startup.device_seconds == 2 * (2 + 3)


def test_an_attempt_that_wrote_nothing_is_charged_its_run() -> None:
    account = reconcile([attempt(1, run())], [row(1000, 9)], planned=PLANNED)

    (charge,) = account.charges
    assert charge.usage is not None
    assert (charge.usage.outcome, charge.usage.wall_s) == (Outcome.killed, 9)
    assert charge.usage.node_hours == pytest.approx(9 * 2 / 8 / 3600)


def test_an_attempt_that_nobody_knows_of_is_charged_nothing() -> None:
    account = reconcile([attempt(1, run())], [], planned=PLANNED)

    assert charged_s(account) == [None]
    assert account.queued_s is None


def test_a_local_attempt_is_its_own_account() -> None:
    attempts = [attempt(1, None, 500, 8.0), attempt(2, run(), 1001, 30.0)]

    account = reconcile(attempts, [row(1000, 33)], planned=PLANNED)

    assert [c.source for c in account.charges] == [Source.local, Source.sacct]
    assert charged_s(account) == [8.0, 33.0]


def test_a_clock_that_is_off_does_not_count_twice() -> None:
    account = reconcile([attempt(1, run(), 880, 30.0)], [row(1000, 33)], planned=PLANNED)

    assert charged_s(account) == [33.0]
    assert not account.idle


def test_a_longer_attempt_is_not_another_runs() -> None:
    """Slurm lost the run that did the work; the next one found the stage done."""
    account = reconcile([attempt(1, run(), 950, 20.0)], [row(1000, 2)], planned=PLANNED)

    assert charged_s(account) == [20.0]
    assert [str(idle) for idle in account.idle] == ["job 12_3 run 1: no attempt"]


def test_rows_of_another_submission_are_not_the_attempts() -> None:
    account = reconcile(
        [attempt(1, run(), 1001, 30.0)], [row(1000, 33, name="other")], planned=PLANNED
    )

    assert account.charges[0].source is Source.journal
    assert len(account.idle) == 1


def test_rows_that_never_started_are_no_runs() -> None:
    waits = dataclasses.replace(row(1000, 0, state="PENDING"), started=False, start=None, end=None)

    account = reconcile([attempt(1, run(), 1001, 30.0)], [waits], planned=PLANNED)

    assert account.charges[0].source is Source.journal
    assert not account.idle
    assert account.queued_s is None


@pytest.mark.parametrize(
    ("gpus", "journal", "devices"),
    [
        pytest.param(8, 2, 8, id="what was allocated"),
        pytest.param(0, 2, 2, id="the site does not account for GPUs"),
        pytest.param(0, 0, 0, id="a stage without a GPU"),
    ],
)
def test_devices_are_those_allocated(gpus: int, journal: int, devices: int) -> None:
    account = reconcile(
        [attempt(1, run(), 1001, 30.0, num_devices=journal)],
        [row(1000, 33, gpus=gpus)],
        planned=PLANNED,
    )

    usage = account.charges[0].usage
    assert usage is not None
    assert usage.num_devices == devices
    assert stage_cost([usage], published=0).total.device_seconds == devices * 33


def test_no_devices_of_none_a_node_cost_nothing() -> None:
    usage = Usage(outcome=Outcome.done, wall_s=9.0, num_devices=0, node_devices=0)

    assert stage_cost([usage], published=0).total.node_ms == 0


@dataclasses.dataclass(frozen=True)
class World:
    attempts: Sequence[JournaledAttempt]
    rows: Sequence[JobRow]
    expected_ms: int
    """Devices x time: of the rows, and of the attempts of runs whose row was lost."""


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Jobs that ran several times, with retries in place, lost rows or runs without an attempt."""
    attempts: list[JournaledAttempt] = []
    rows: list[JobRow] = []
    expected = 0
    for job_id in range(draw(st.integers(1, 3))):
        # A lost row beside a run without an attempt can look like a clock that is far off.
        may_lose = draw(st.booleans())
        devices = draw(st.integers(0, 4))
        clock = 10_000
        for restarts in range(draw(st.integers(1, 4))):
            clock += draw(st.integers(12, 400))
            elapsed = draw(st.integers(0, 90))
            of = run(restarts, job_id=job_id)
            at, wall_ms = clock + draw(st.integers(0, min(elapsed, 9))), 0
            for _ in range(draw(st.integers(1 if may_lose else 0, 3))):
                ms = draw(st.integers(0, 40_000))
                attempts.append(
                    attempt(
                        len(attempts) + 1,
                        of,
                        at + wall_ms / 1000,
                        ms / 1000,
                        num_devices=devices,
                        node_devices=4,
                    )
                )
                wall_ms += ms
            if may_lose and draw(st.booleans()):
                expected += devices * wall_ms
            else:
                rows.append(row(clock, elapsed, job_id=job_id, gpus=devices))
                expected += devices * elapsed * 1000
            clock += elapsed
    return World(attempts, rows, expected)


@settings(deadline=None, max_examples=200)  # machines are busy
@given(worlds(), st.randoms(use_true_random=False))
def test_charges_are_the_rows_and_what_has_no_row(world: World, random: Any) -> None:
    account = reconcile(world.attempts, world.rows, planned=PLANNED_WITHOUT_DEVICES)

    usages = [c.usage for c in account.charges if c.usage is not None]
    idle = [idle.usage for idle in account.idle]
    cost = stage_cost(usages, published=None, idle=idle)
    assert cost.total.device_ms == world.expected_ms
    assert all(usage.wall_s >= 0 and usage.startup_s <= usage.wall_s for usage in usages)
    by_sacct = {
        (c.run.job_id, c.run.restarts)
        for c in account.charges
        if c.run is not None and c.source is Source.sacct
    }
    assert len(by_sacct) + len(idle) == len(world.rows)
    mixed_attempts, mixed_rows = list(world.attempts), list(world.rows)
    random.shuffle(mixed_attempts)
    random.shuffle(mixed_rows)
    assert reconcile(mixed_attempts, mixed_rows, planned=PLANNED_WITHOUT_DEVICES) == account


PLANNED_WITHOUT_DEVICES = dataclasses.replace(PLANNED, held_devices=0)


# ---- in the reports


TWO = (Point(score=0.5), Point(score=0.75, pixels=48, step_s=0.3))


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    """Two cells; Slurm ran their tune stages, the second one twice after a requeue."""
    study = build_study(tmp_path, TWO, num_questions=40)
    for index, cell in enumerate(study.plan.cells):
        ref = cell.stages["tune"]
        folder = study.store.stage(ref)
        of = run(job_id=20 + index, index=index)
        _lease(study, ref, 1, of)
        (folder.path / "jobs").mkdir()
        submitted = {"schema": 1, "submission": NAME, "index": index}
        execution = dataclasses.replace(study.plan.stage(ref).execution, cluster="slurm")
        write_json(
            folder.path / "jobs" / "0001.json", {**submitted, "execution": execution.to_json()}
        )
    second = study.plan.cells[1].stages["tune"]
    usage = study.store.stage(second).attempt(1).usage()
    assert usage is not None
    again = dataclasses.replace(
        usage, started_at=usage.started_at + 200, wall_s=11.2, first_step=140, steps=10
    )
    number = add_attempt(study, second, again)
    _lease(study, second, number, run(1, job_id=21, index=1))
    publish(study, second, number)
    return study


def _lease(study: SyntheticStudy, ref: Any, number: int, of: SlurmRun) -> None:
    lease = study.store.stage(ref).attempt(number).lease
    write_json(lease, {"schema": 1, "slurm": dataclasses.asdict(of)})


def keep(study: SyntheticStudy, *rows: JobRow, problem: str = "") -> None:
    path = accounting_file(study.store, NAME)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, Accounting(rows=rows, problem=problem).to_json())


def rows_of(study: SyntheticStudy) -> list[JobRow]:
    """Each run of the tune stages as sacct has it, 5 s longer than the journal."""
    rows = []
    for cell in study.plan.cells:
        for one in study.store.stage(cell.stages["tune"]).attempts():
            usage = one.usage()
            of = json.loads(one.lease.read_text(encoding="utf-8"))["slurm"]
            assert usage is not None
            rows.append(
                row(
                    int(usage.started_at) - 3,
                    int(usage.wall_s) + 5,
                    job=f"12_{of['array_index']}",
                    job_id=of["job_id"],
                    gpus=1,
                )
            )
    return rows


def texts(results: StudyResults) -> dict[str, str]:
    report = build_report(results, None)
    return {
        "terminal": " ".join(render_terminal(report).split()),
        "md": render_markdown(report),
        "html": render_html(report),
    }


def test_the_report_takes_sacct_s_figures(study: SyntheticStudy) -> None:
    keep(study, *rows_of(study))

    results = collect(study.store, study.plan)

    # 39.0 s -> 44; 46.5 s -> 51 and 11.2 s -> 16: one device each
    tune = results.cost_by_kind[StageKind.tune].total
    assert tune.device_seconds == 44 + 51 + 16
    assert results.queued_s(StageKind.tune) == 3 * 4
    assert results.queued_s(StageKind.align) is None
    assert [cell.queued_s for cell in results.cells] == [4, 8]
    for text in texts(results).values():
        assert "Costs: sacct for 3 of 3 attempts." in text
        assert "attempts of local commands: by their own journals." in text
        assert "Jobs waited 12 s in the queue" in text


def test_the_queue_is_a_column_where_there_is_room(study: SyntheticStudy) -> None:
    keep(study, *rows_of(study))
    report = build_report(collect(study.store, study.plan), None)

    assert "| queue |" in render_markdown(report)
    assert "queue" in render_html(report)
    narrow, wide = render_terminal(report, width=80), render_terminal(report, width=110)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "lost  node-h" in narrow
    assert "lost  queue  node-h" in wide


def test_attempts_that_sacct_lost_are_named(study: SyntheticStudy) -> None:
    keep(study, *rows_of(study)[:2])

    results = collect(study.store, study.plan)

    (lost,) = results.account.by_journal if results.account else ()
    assert lost.stage == study.plan.stage(study.plan.cells[1].stages["tune"]).spec.label
    assert (lost.what, lost.seconds) == ("attempt 0002 (job 12_1, restart 1)", 11.2)
    said = (
        f"Costs: sacct for 2 of 3 attempts; by its own journal: {lost.stage} "
        "attempt 0002 (job 12_1, restart 1), 11.2 s."
    )
    for text in texts(results).values():
        assert said in text


def test_without_accounting_the_journals_count_and_the_report_says_so(
    study: SyntheticStudy,
) -> None:
    keep(study, problem="Slurm accounting storage is disabled")

    results = collect(study.store, study.plan)

    assert results.cost_by_kind[StageKind.tune].total.device_seconds == pytest.approx(96.7)
    said = (
        "Costs: from the attempts' own journals (no Slurm accounting: Slurm accounting "
        "storage is disabled)."
    )
    assert said in texts(results)["terminal"]


def test_an_account_that_was_never_asked_for_is_told(study: SyntheticStudy) -> None:
    (study.store.root / "jobs" / NAME).mkdir(parents=True)

    assert (
        "(no Slurm accounting: sacct was not asked yet)"
        in texts(collect(study.store, study.plan))["terminal"]
    )


def test_kept_rows_count_while_sacct_is_away(study: SyntheticStudy) -> None:
    keep(study, *rows_of(study), problem="slurmdbd refuses connections")

    said = texts(collect(study.store, study.plan))["terminal"]

    assert (
        "sacct for 3 of 3 attempts, as kept from earlier (now: slurmdbd refuses connections)."
        in said
    )


def test_runs_without_an_attempt_are_named_and_paid(study: SyntheticStudy) -> None:
    rows = rows_of(study)
    assert rows[0].end is not None
    idle = row(rows[0].end + 50, 2, job="12_0", job_id=20, gpus=1)
    keep(study, *rows, idle)

    results = collect(study.store, study.plan)

    assert results.cost_by_kind[StageKind.tune].total.device_seconds == 44 + 51 + 16 + 2
    assert "job 12_0 run 2: no attempt, 2.0 s" in texts(results)["terminal"]


def test_json_and_csv_have_the_account(study: SyntheticStudy) -> None:
    keep(study, *rows_of(study)[:2])
    report = build_report(collect(study.store, study.plan), None)

    data = json.loads(render_json(report))
    rows = list(csv.DictReader(io.StringIO(render_csv(report))))

    account = data["costs"]["accounting"]
    assert account["attempts_by_sacct"] == 2
    assert account["attempts_by_journal"][0]["seconds"] == 11.2
    assert account["problem"] == ""
    assert data["costs"]["queued_s"] == data["costs"]["by_kind"]["tune"]["queued_s"] == 8
    attempts = [a for stage in data["stages"] for a in stage["attempts"] if "charged_by" in a]
    assert [(a["charged_by"], a["charged_s"], a["job"]) for a in attempts] == [
        ("sacct", 44.0, "12_0"),
        ("sacct", 51.0, "12_1"),
        ("journal", 11.2, "12_1"),
    ]
    assert [r["queued_s"] for r in rows] == ["4", "4"]
    assert {"lost_node_hours", "startup_node_hours"} <= rows[0].keys()


def test_shares_still_add_up(study: SyntheticStudy) -> None:
    keep(study, *rows_of(study))
    results = collect(study.store, study.plan)

    assert (
        sum(cell.costs.share.device_ms for cell in results.cells) == results.total.total.device_ms
    )


def test_a_local_study_says_nothing_of_accounting(tmp_path: Path) -> None:
    study = build_study(tmp_path, TWO, num_questions=40)
    results = collect(study.store, study.plan)
    report = build_report(results, None)

    assert results.account is None
    for text in (*texts(results).values(), render_json(report), render_csv(report)):
        assert "sacct" not in text
        assert "queue" not in text


def test_stages_without_devices_cost_nothing_in_every_format(study: SyntheticStudy) -> None:
    for planned in study.plan.stages:
        for one in study.store.stage(planned.spec.ref).attempts():
            usage = one.usage()
            assert usage is not None
            free = dataclasses.replace(usage, num_devices=0, node_devices=0)
            write_json(one.usage_file, free.to_json())
    keep(study, *(dataclasses.replace(r, gpus=0) for r in rows_of(study)))

    results = collect(study.store, study.plan)

    assert results.total.total.node_ms == 0
    report = build_report(results, None)
    assert all(texts(results).values())
    assert render_json(report)
    assert render_csv(report)
