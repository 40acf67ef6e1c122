"""The paper's tables, with a study's scores beside the published numbers."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scalesweep.errors import ConfigError
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import Plan
from scalesweep.records import Done, Outcome, StageRef, Usage
from scalesweep.report.command import report
from scalesweep.report.paper.published import TABLES
from scalesweep.rundir import Store, output_files, write_json
from tests.config.composing import cell

Scores = Mapping[str, Mapping[str, Any]]


def part(official: float, error: float | None = 0.01, **more: Any) -> dict[str, Any]:
    return {
        "score": official / 100,
        "official": official,
        "standard_error": error,
        "num_questions": 60,
        "num_missing": 0,
        "num_unparsable": 0,
        **more,
    }


def llava_bench(overall: float, complex_: float, conv: float, detail: float) -> dict[str, Any]:
    return part(
        overall,
        0.021,
        rule="the official rule",
        judge_model="gpt-4-0314",
        runs=[overall - 1, overall + 1],
        run_spread=1.0,
        categories={
            "llava_bench_complex": part(complex_),
            "llava_bench_conv": part(conv),
            "llava_bench_detail": part(detail),
        },
    )


class Judged:
    """A store with a study of which some cells are judged, and nothing else ran."""

    def __init__(self, root: Path, cells: Mapping[str, tuple[str, ...]]) -> None:
        self.store = Store(root)
        requests = [
            CellRequest(point={"name": name}, config=cell(*words)) for name, words in cells.items()
        ]
        self.plan: Plan = build_plan(requests, study="tables")
        self.stages = dict(zip(cells, (c.stages for c in self.plan.cells), strict=True))
        self.store.study("tables").mkdir(parents=True)
        write_json(self.store.study("tables") / "plan.json", self.plan.to_json())

    def score(self, name: str, scores: Scores, *, role: str = "judge") -> None:
        attempt = self._publish(
            self.stages[name][role], {"scores.json": json.dumps({"benchmarks": scores})}
        )
        for benchmark in scores:
            (attempt / "output" / "items").mkdir(exist_ok=True)
            (attempt / "output" / "items" / f"{benchmark}.jsonl").write_text("")

    def time(self, name: str, benchmark: str, **numbers: float) -> None:
        attempt = self._publish(self.stages[name]["generate"], {"answers": ""})
        write_json(attempt / "generation.json", {"benchmarks": {benchmark: numbers}})

    def tune(self, name: str, *hours: float, devices: int, is_done: bool = True) -> None:
        """One attempt for each of the hours, the last of which publishes."""
        ref = self.stages[name]["tune"]
        for number, taken in enumerate(hours, start=1):
            attempt = self.store.stage(ref).attempt(number)
            attempt.output.mkdir(parents=True)
            usage = Usage(
                outcome=Outcome.done if is_done and number == len(hours) else Outcome.failed,
                wall_s=taken * 3600,
                num_devices=devices,
                node_devices=8,
                usd_per_node_hour=13.63,
            )
            write_json(attempt.usage_file, usage.to_json())
        write_json(self.store.stage(ref).stage_file, self.plan.stage(ref).spec.to_json())
        if is_done:
            (attempt.output / "model").write_text("")
            done = Done(attempt=len(hours), files=output_files(attempt.output), inputs={})
            write_json(self.store.stage(ref).done_file, done.to_json())

    def _publish(self, ref: StageRef, files: Mapping[str, str]) -> Path:
        stage = self.store.stage(ref)
        attempt = stage.attempt(1)
        attempt.output.mkdir(parents=True)
        for file, text in files.items():
            (attempt.output / file).write_text(text)
        write_json(attempt.usage_file, Usage(outcome=Outcome.done).to_json())
        write_json(stage.stage_file, self.plan.stage(ref).spec.to_json())
        done = Done(attempt=1, files=output_files(attempt.output), inputs={})
        write_json(stage.done_file, done.to_json())
        return attempt.path

    def table(self, name: str) -> dict[str, Any]:
        text = report(self.store, "tables", paper=name, format="json")
        found: dict[str, Any] = json.loads(text)
        return found

    def lines(self, name: str) -> dict[tuple[str, str], list[float | None]]:
        return {(x["model"], x["source"]): x["values"] for x in self.table(name)["lines"]}


MIX = ("model=33b", "data_mix=llava80k_sharegpt", "evaluation=paper")


@pytest.fixture
def beams(tmp_path: Path) -> Judged:
    study = Judged(tmp_path, {"one": MIX, "five": (*MIX, "evaluation.num_beams=5")})
    study.score("one", {"llava_bench": llava_bench(73.0, 82.0, 70.0, 61.0)})
    study.time("one", "llava_bench", latency_s=3.25, tokens_per_second=81.5, seconds_per_answer=1)
    return study


def test_a_cell_stands_under_the_published_row_that_it_reproduces(beams: Judged) -> None:
    lines = beams.lines("table1")

    assert lines["LLaVA-33B beam 1", "paper"] == [82.9, 70.2, 62.6, 73.9]
    assert lines["LLaVA-33B beam 1", "here"] == [82.0, 70.0, 61.0, 73.0]
    assert ("LLaVA-33B beam 5", "here") not in lines  # not judged yet
    assert ("LLaVA-65B beam 1", "here") not in lines


def test_table_1_shows_how_fast_answers_came(beams: Judged) -> None:
    (line,) = [x for x in beams.table("table1")["lines"] if x["source"] == "here"]

    assert (line["latency_s"], line["tokens_per_second"]) == (3.25, 81.5)


def test_the_judge_its_runs_and_the_rule_are_said(beams: Judged) -> None:
    notes = " ".join(beams.table("table1")["notes"])

    assert "llava_bench: the official rule." in notes
    assert "judged by gpt-4-0314, 2 judge run(s)" in notes
    assert "judge runs 72.0, 74.0 (spread 1.0)" in notes


def test_missing_and_unparsable_verdicts_are_counted_below(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"one": MIX})
    scored = {**llava_bench(73.0, 82.0, 70.0, 61.0), "num_missing": 2, "num_unparsable": 1}
    study.score("one", {"llava_bench": scored})

    assert any(
        "2 missing, 1 unparsable of 60 questions in 2 judge runs" in note
        for note in study.table("table1")["notes"]
    )


def test_a_cell_that_is_no_row_of_the_paper_stands_below_by_its_own_name(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"small": ("model=7b", "tuning=lora", "evaluation=paper")})
    study.score("small", {"llava_bench": llava_bench(60.0, 61.0, 62.0, 63.0)})

    table = study.table("table1")

    assert table["lines"][-1]["source"] == "here"
    assert table["lines"][-1]["values"] == [61.0, 62.0, 63.0, 60.0]
    assert "7b" in table["lines"][-1]["model"]


def test_the_language_model_before_tuning_stands_in_its_own_row(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"mix": MIX})
    study.score("mix", {"vicuna80": part(80.0), "mmlu": part(58.0)})
    study.score("mix", {"vicuna80": part(85.0), "mmlu": part(59.5)}, role="judge_base")

    lines = study.lines("table5")

    assert lines["Vicuna-33B", "paper"] == [None, None, 85.6, 59.0]
    assert lines["Vicuna-33B", "here"] == [None, None, 85.0, 59.5]
    assert lines["LLaVA-33B (mix)", "here"] == [None, None, 80.0, 58.0]
    assert ("LLaVA-33B", "here") not in lines


def test_table_3a_is_a_grid_of_sizes_and_pictures(tmp_path: Path) -> None:
    grid = ("evaluation=llava_bench", "data_mix=llava80k")
    study = Judged(
        tmp_path,
        {
            "7": ("model=7b", "resolution=224px", *grid),
            "13": ("model=13b", "resolution=224px", *grid),
        },
    )
    study.score("7", {"llava_bench": llava_bench(60.0, 61.0, 62.0, 63.0)})
    study.score("13", {"llava_bench": llava_bench(66.0, 61.0, 62.0, 63.0)})

    lines = study.lines("table3a")

    assert lines["224px", "paper"] == [63.6, 67.1, 69.3, 70.3]
    assert lines["224px", "here"] == [60.0, 66.0, None, None]
    assert lines["336px (mix)", "paper"] == [None, None, 73.9, 74.2]
    assert ("336px", "here") not in lines


def test_where_several_cells_fit_one_place_each_has_a_line_of_its_own(tmp_path: Path) -> None:
    one = ("model=33b", "data_mix=llava80k", "evaluation=llava_bench")
    cells = {"slow": (*one, "optim.lr=1e-5"), "usual": one, "7": ("model=7b", *one[1:])}
    study = Judged(tmp_path, cells)
    for name, score in (("slow", 10.0), ("usual", 72.0), ("7", 60.0)):
        study.score(name, {"llava_bench": llava_bench(score, 1.0, 2.0, 3.0)})

    lines = study.lines("table3a")

    assert lines["336px", "here"] == [60.0, None, None, None]
    alone = {label: values for (label, _), values in lines.items() if label.startswith("336px: ")}
    assert sorted(values[2] or 0.0 for values in alone.values()) == [10.0, 72.0]


def test_what_has_no_place_in_a_grid_is_said_below(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"70": ("model=70b", "evaluation=llava_bench")})
    study.score("70", {"llava_bench": llava_bench(69.8, 1.0, 2.0, 3.0)})

    notes = " ".join(study.table("table3a")["notes"])

    assert "69.8, in no place of this table" in notes


def test_the_language_model_before_tuning_was_asked_as_the_row_says(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"five": (*MIX, "evaluation.num_beams=5"), "one": MIX})
    study.score("five", {"vicuna80": part(11.0)}, role="judge_base")
    study.score("one", {"vicuna80": part(85.0)}, role="judge_base")

    lines = study.lines("table5")

    assert lines["Vicuna-33B", "here"] == [None, None, 85.0, None]


@pytest.fixture
def tuned(tmp_path: Path) -> Judged:
    one = ("model=33b", "data_mix=llava80k", "evaluation=llava_bench")
    study = Judged(
        tmp_path,
        {
            "full": (*one, "tuning=full"),
            "lora": (*one, "tuning=lora", "lora.rank=64"),
            "qlora": (*one, "tuning=qlora", "lora.rank=64"),
        },
    )
    study.tune("full", 1.5, devices=32)
    study.tune("lora", 1.0, 4.0, devices=8)  # the first attempt failed and counts
    study.tune("qlora", 3.0, devices=8, is_done=False)
    study.score("lora", {"llava_bench": llava_bench(71.0, 1.0, 2.0, 3.0)})
    return study


def test_table_4_has_time_and_trained_parameters_beside_the_score(tuned: Judged) -> None:
    lines = tuned.lines("table4")

    assert lines["33B LoRA-64", "paper"] == [71.8, 4.79, None, 0.49]
    assert lines["65B full", "paper"] == [72.3, 13.5, None, 65]
    # 4 nodes for 1.5 hours; 1 node for 1 + 4 hours; nothing but the tune stage ran
    assert lines["33B full", "here"][:3] == [None, 6.0, 6.0]
    assert lines["33B LoRA-64", "here"][:3] == [71.0, 5.0, 5.0]
    assert lines["33B LoRA-64", "here"][3] == pytest.approx(0.49, abs=0.02)
    assert lines["33B full", "here"][3] == pytest.approx(32.5, abs=0.5)
    assert ("65B full", "here") not in lines


def test_a_cost_that_still_grows_is_called_a_lower_bound(tuned: Judged) -> None:
    data = tuned.table("table4")
    found = {(x["model"], x["source"]): x["are_lower_bounds"] for x in data["lines"]}
    text = report(tuned.store, "tables", paper="table4", width=80)

    assert found["33B LoRA-64", "here"] == [False, False, True, False]  # align did not run
    assert found["33B QLoRA-64", "here"] == [False, True, True, False]
    assert re.search(
        r"^33B QLoRA-64 +71.6 +4.68 +– +0.49\n  here +– +≥3.00 +≥3.00 +0.4", text, re.M
    )
    assert max(map(len, text.splitlines())) <= 80


def test_table_4_of_a_study_before_its_first_tune_stage_is_refused(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"one": MIX})

    with pytest.raises(ConfigError, match="--paper=table4: nothing of study tables is tuned yet"):
        study.table("table4")


def test_missing_verdicts_of_several_runs_are_set_against_all_runs(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"one": MIX})
    scored = {**llava_bench(73.0, 82.0, 70.0, 61.0), "num_missing": 90}
    study.score("one", {"llava_bench": scored})

    assert any(
        "90 missing of 60 questions in 2 judge runs" in n for n in study.table("table1")["notes"]
    )


def test_a_study_without_the_benchmark_is_told_what_it_has(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"one": ("model=7b", "evaluation=mmlu")})
    study.score("one", {"mmlu": part(40.0)})

    with pytest.raises(
        ConfigError, match=r"table2: shows mm_vet, but study tables has scores of mmlu"
    ):
        study.table("table2")
    with pytest.raises(ConfigError, match="--paper=table6: choose one of table1, table2, table3a"):
        study.table("table6")


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_one_number_per_column(name: str) -> None:
    published = TABLES[name]

    assert all(len(row.values) == len(published.measures) for row in published.rows)
    labels = [row.label for row in published.rows]
    assert len(set(labels)) == len(labels)


def test_the_table_fits_eighty_columns_and_an_editor(beams: Judged) -> None:
    text = report(beams.store, "tables", paper="table1", width=80)

    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"^LLaVA-33B beam 1 +82.9 +70.2 +62.6 +73.9\n  here +82.0 +70.0", text, re.M)
    assert re.search(r"^  here +82.0 +70.0 +61.0 +73.0±2.1 +3.25 +81.5$", text, re.M)


def test_markdown_and_csv_hold_the_same_numbers(beams: Judged) -> None:
    md = report(beams.store, "tables", paper="table1", format="md")
    rows = list(
        csv.DictReader(io.StringIO(report(beams.store, "tables", paper="table1", format="csv")))
    )

    assert "| LLaVA-33B beam 1 | 82.9 | 70.2 | 62.6 | 73.9 |" in md
    (here,) = [row for row in rows if row["source"] == "here"]
    assert (here["Overall"], here["Overall ±"], here["latency_s"]) == ("73.0", "2.1", "3.25")
    with pytest.raises(ConfigError, match="--format=html: a paper's table comes as terminal"):
        report(beams.store, "tables", paper="table1", format="html")


def test_what_judges_were_paid_is_said_apart_from_the_costs(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"one": MIX})
    study.score("one", {"llava_bench": llava_bench(73.0, 82.0, 70.0, 61.0)})
    stage = study.store.stage(study.stages["one"]["judge"])
    for number, usd in ((1, 1.25), (2, 0.5)):  # every attempt is paid for
        stage.attempt(number).path.mkdir(exist_ok=True)
        metered = {"metered": {"replies": 90}}
        account = {"usd": usd, "unsure_usd": 0.0, "benchmarks": {"llava_bench": metered}}
        write_json(stage.attempt(number).path / "judging.json", account)

    found = json.loads(report(study.store, "tables", format="json"))["costs"]["judging"]
    text = report(study.store, "tables", format="md")

    assert (found["usd"], found["unsure_usd"], found["num_replies"]) == (1.75, 0.0, 180)
    assert "Judges were paid $1.75 for 180 replies. No other column has that in it." in text
    (row,) = csv.DictReader(io.StringIO(report(study.store, "tables", format="csv")))
    assert (row["judge_usd"], row["judge_share_usd"]) == ("1.750000", "1.750000")


def test_a_judge_without_a_price_cost_what_nobody_knows(tmp_path: Path) -> None:
    study = Judged(tmp_path, {"one": MIX})
    study.score("one", {"llava_bench": llava_bench(73.0, 82.0, 70.0, 61.0)})
    attempt = study.store.stage(study.stages["one"]["judge"]).attempt(1)
    account = {"usd": None, "unsure_usd": None, "benchmarks": {"m": {"metered": {"replies": 1}}}}
    write_json(attempt.path / "judging.json", account)

    assert "Judges gave 1 reply; what they cost is not known" in report(
        study.store, "tables", format="md"
    )
