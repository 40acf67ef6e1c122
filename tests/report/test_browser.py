"""The page in a browser: opened from a file, clicked through, and silent in its console."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scalesweep.plan.graph import PlannedStage
from scalesweep.records import Outcome, Predicted, StageKind, Usage
from scalesweep.report.collect import collect
from scalesweep.report.html import render_html
from scalesweep.report.study_report import build_report
from tests.report.synthetic import QUICKSTART, START, add_attempt, build_study, write_json

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), "")

_LISTEN = """<script>
window.problems = [];
window.addEventListener("error", function (e) { window.problems.push(String(e.message)); });
["error", "warn"].forEach(function (name) {
  console[name] = function (words) { window.problems.push(String(words)); };
});
</script>"""

_USE = """<script>
window.addEventListener("load", function () {
  var found = {};
  function all(s) { return Array.from(document.querySelectorAll(s)); }
  function seen(e) { return e.getClientRects().length > 0; }
  function press(words) {
    all("button").find(function (b) { return b.textContent === words; }).click();
  }
  found.figures = all("figure svg.figure").filter(seen).map(function (s) {
    return [s.getAttribute("aria-label"), Array.from(s.querySelectorAll(".mark")).filter(
      function (m) { var b = m.getBBox(); return seen(m) && b.width > 0 && b.height > 0; }).length];
  });
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  found.background = getComputedStyle(document.body).backgroundColor;
  press("node-hours"); press("linear");
  found.view = all(".view").filter(seen).map(
    function (v) { return v.dataset.unit + " " + v.dataset.scale; });
  all(".legend [data-tuning=lora] button")[0].click();
  found.full_colour = all(".view .wide .mark").filter(seen).filter(
    function (m) { return !m.classList.contains("dim"); }
  ).map(function (m) { return m.dataset.tuning; });
  var loss = all("svg[data-axes]").find(seen), box = loss.getBoundingClientRect();
  found.curves = Array.from(loss.querySelectorAll(".mark")).filter(seen).length;
  all(".curves li.off button")[0].click();
  found.more_curves = Array.from(loss.querySelectorAll(".mark")).filter(seen).length;
  loss.dispatchEvent(new PointerEvent("pointermove", {
    clientX: box.left + box.width / 3, clientY: box.top + 60, bubbles: true }));
  found.read = all(".tip p").map(function (p) { return p.textContent; });
  var dots = all(".view .wide").find(seen);
  dots.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", cancelable: true }));
  found.tip = document.querySelector(".tip").textContent;
  found.voice = document.querySelector("[aria-live].sr").textContent;
  var field = document.querySelector(".filter input");
  field.value = "QLORA done"; field.dispatchEvent(new Event("input"));
  found.rows = all("table.filterable tbody tr").filter(seen).length;
  var sort = all("table.sortable th button")[1]; sort.click(); sort.click();
  found.sorted = all("table.sortable")[0].tBodies[0].rows[0].cells[0].textContent;
  document.querySelector(".theme").click();
  found.other_background = getComputedStyle(document.body).backgroundColor;
  found.problems = window.problems;
  document.body.setAttribute("data-found", JSON.stringify(found));
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a study whose stages have predictions; of one stage an attempt was killed."""
    study = build_study(tmp_path_factory.mktemp("store"), num_questions=60)
    plan = study.plan
    stages = []
    for planned in plan.stages:
        stages.append(_with_prediction(planned))
        folder = study.store.stage(planned.spec.ref)
        for attempt in folder.attempts():
            write_json(attempt.execution_file, stages[-1].execution.to_json())
    study.plan = dataclasses.replace(plan, stages=tuple(stages))
    tune = next(ref for ref in study.plan.by_ref if ref.kind is StageKind.tune)
    killed = Usage(
        outcome=Outcome.killed,
        cause="node failed",
        started_at=START + 400,
        wall_s=30,
        startup_s=2,
        steps=80,
        first_step=40,
    )
    add_attempt(study, tune, killed)
    return render_html(build_report(collect(study.store, study.plan), None))


def _with_prediction(planned: PlannedStage) -> PlannedStage:
    predicted = Predicted(
        startup_s=1.0,
        work_s=11.0,
        flops=1e12,
        device_bytes=0.0,
        host_bytes=8e8,
        node_hours=0.01,
        usd=0.001,
    )
    execution = dataclasses.replace(planned.execution, predicted=predicted)
    return dataclasses.replace(planned, execution=execution)


def opened(page: str, folder: Path, *flags: str) -> dict[str, Any]:
    """What the page's own script and ours found; the console must have said nothing."""
    if not CHROMIUM:
        if os.environ.get("SCALESWEEP_REQUIRE_CHROMIUM"):
            pytest.fail("chromium is required here and not installed")
        pytest.skip("no chromium on this machine (apt-get install chromium)")
    file = folder / "page.html"
    used = page.replace("<style>", _LISTEN + "<style>", 1).replace("</body>", _USE + "</body>")
    file.write_text(used, encoding="utf-8")
    run = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--enable-logging=stderr",
            "--virtual-time-budget=4000",
            f"--user-data-dir={folder / 'profile'}",
            *flags,
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    assert said == []
    found = re.search(r'data-found="([^"]*)"', run.stdout)
    assert found is not None, "the page's script did not reach its end"
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert result["problems"] == []
    return result


def test_the_page_works_in_a_browser_from_a_file(page: str, tmp_path: Path) -> None:
    found = opened(page, tmp_path, "--window-size=1400,1000")

    marks = {label.split(". ")[0]: count for label, count in found["figures"]}
    assert marks["Training loss by step"] == 6
    assert marks["When each attempt of each stage ran"] > 40
    assert marks["Time: predicted against measured for 45 stages"] == 45
    assert "Host memory: predicted against measured for 45 stages" in marks
    (scores,) = [count for label, count in marks.items() if label.startswith("Score against")]
    assert scores == len(QUICKSTART)
    assert all(marks.values())
    assert found["overflow"] == 0
    assert found["view"] == ["node-hours linear"]
    assert set(found["full_colour"]) == {"lora"}
    assert (found["curves"], found["more_curves"]) == (6, 7)
    assert found["read"][0].startswith("step ")
    assert len(found["read"]) == 8
    assert found["tip"].startswith("mini_xs 32px full")
    assert "95 %" in found["voice"]
    assert found["rows"] == 1
    assert found["sorted"].startswith("mini_s 48px full")
    assert found["background"] != found["other_background"]


def test_a_dark_screen_gets_a_dark_page(page: str, tmp_path: Path) -> None:
    found = opened(page, tmp_path, "--blink-settings=preferredColorScheme=0")

    assert found["background"] == "rgb(20, 23, 27)"
    assert found["other_background"] == "rgb(251, 250, 248)"


def test_the_page_is_small_and_loads_nothing(page: str) -> None:
    assert len(page.encode()) < 2_000_000
    assert "://" not in page
    assert "/home/" not in page
