"""The verb `report`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scalesweep.errors import ConfigError, StoreError
from scalesweep.report.command import Format, report
from scalesweep.rundir import Store
from tests.report.synthetic import Point, build_study

POINTS = [Point(score=0.5), Point(score=0.6, pixels=48)]


@pytest.mark.parametrize("format", [f for f in Format if f is not Format.html])
def test_formats_come_back_as_text(tmp_path: Path, format: Format) -> None:
    study = build_study(tmp_path, POINTS, num_questions=40)

    text = report(study.store, "quickstart", format=str(format))

    assert text.endswith("\n")
    assert "0.600" in text or '"score": 0.6' in text


def test_html_is_written_beside_the_plan(tmp_path: Path) -> None:
    study = build_study(tmp_path, POINTS, num_questions=40)

    path = Path(report(study.store, "quickstart", format="html"))

    assert path == tmp_path / "studies" / "quickstart" / "report.html"
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert sorted(p.name for p in path.parent.iterdir()) == ["plan.json", "report.html"]


@pytest.mark.parametrize("format", list(Format))
def test_output_takes_every_format(tmp_path: Path, format: Format) -> None:
    study = build_study(tmp_path / "store", POINTS, num_questions=40)
    path = tmp_path / "made"

    said = report(study.store, "quickstart", format=str(format), output=path)

    assert said == str(path)
    assert len(path.read_text(encoding="utf-8")) > 1000
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE") == (format is Format.html)


def test_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    study = build_study(tmp_path, POINTS, num_questions=40)

    with pytest.raises(ConfigError, match=r"--output=.*none/file: cannot be written"):
        report(study.store, None, format="md", output=tmp_path / "none" / "file")


def test_without_a_name_the_study_launched_last_is_reported(tmp_path: Path) -> None:
    build_study(tmp_path, POINTS, name="newer", num_questions=40)
    build_study(tmp_path, POINTS, name="older", num_questions=40)
    os.utime(tmp_path / "studies" / "older" / "plan.json", (1.0, 1.0))

    data = json.loads(report(Store(tmp_path), None, format="json"))

    assert data["study"] == "newer"


def test_unknown_study_lists_the_known_ones(tmp_path: Path) -> None:
    build_study(tmp_path, POINTS, name="one", num_questions=40)
    build_study(tmp_path, POINTS, name="two", num_questions=40)

    with pytest.raises(ConfigError, match=r"study=three: .* known are one, two"):
        report(Store(tmp_path), "three")


def test_empty_store_says_how_to_run_a_study(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no study in the store"):
        report(Store(tmp_path / "none"), None)


def test_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--format=pdf: .* terminal, md, csv, json, html"):
        report(Store(tmp_path), None, format="pdf")


def test_damaged_plan_is_named(tmp_path: Path) -> None:
    study = build_study(tmp_path, POINTS, num_questions=40)
    (study.store.study("quickstart") / "plan.json").write_text('{"schema": 1}')

    with pytest.raises(StoreError, match=r"plan\.json is damaged"):
        report(study.store, "quickstart")


def test_reporting_imports_nothing_heavy(tmp_path: Path) -> None:
    study = build_study(tmp_path, POINTS, num_questions=40)
    program = (
        "import sys; from pathlib import Path; from scalesweep.rundir import Store;"
        "from scalesweep.report.command import report;"
        f"[report(Store(Path({str(study.store.root)!r})), None, format=f)"
        " for f in ('terminal', 'md', 'csv', 'json', 'html')];"
        "heavy = {'torch', 'numpy', 'matplotlib', 'transformers', 'deepspeed', 'wandb', 'PIL'};"
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
