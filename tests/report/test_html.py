"""The page: well-formed, self-contained, and silent about this machine."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from scalesweep.report.collect import collect
from scalesweep.report.html import render_html
from scalesweep.report.markup import Markup, tag
from scalesweep.report.study_report import StudyReport, build_report
from scalesweep.report.tables import all_tables
from tests.report.synthetic import QUICKSTART, Point, build_study
from tests.report.test_verdicts import RECORD


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> StudyReport:
    study = build_study(tmp_path_factory.mktemp("store"), num_questions=100)
    return build_report(collect(study.store, study.plan), RECORD)


@pytest.fixture(scope="module")
def page(report: StudyReport) -> str:
    return render_html(report)


def parsed(page: str) -> ElementTree.Element:
    doctype, _, rest = page.partition("\n")
    assert doctype == "<!DOCTYPE html>"
    return ElementTree.fromstring(rest)  # our own text, just written


def test_page_is_well_formed(page: str) -> None:
    root = parsed(page)

    assert root.tag == "html"
    assert root.get("lang") == "en"
    assert [heading.text for heading in root.iter("h1")] == [
        "What do size, resolution and tuning buy?"
    ]


def test_page_loads_nothing(page: str) -> None:
    root = parsed(page)

    assert "://" not in page
    assert "@import" not in page
    assert "url(" not in page
    for element in root.iter():
        assert not {"src", "href", "srcset", "data"} & set(element.attrib), element.tag
    assert not list(root.iter("link"))
    assert not list(root.iter("img"))


def test_page_says_nothing_of_this_machine(page: str) -> None:
    assert "somebody" not in page
    assert re.findall(r"(?<![\w<.…])/(?:home|root|tmp|work|usr|var|Users)\b", page) == []


def test_page_is_the_same_every_time(report: StudyReport, page: str) -> None:
    assert render_html(report) == page


def test_page_has_all_cells_findings_and_figures(report: StudyReport, page: str) -> None:
    root = parsed(page)

    articles = [article for article in root.iter("article") if article.get("class") == "finding"]
    assert len(articles) == len(report.findings)
    for setting in report.settings:
        assert setting.label in page
    labels = {figure.get("aria-label") or "" for figure in root.iter("svg")}
    assert "Training loss by step" in labels
    assert "When each attempt of each stage ran" in labels
    assert any(label.startswith("Score against standalone cost") for label in labels)
    assert sum(label.startswith("Score by ") for label in labels) == 6


def test_every_table_of_the_other_formats_has_its_section_once(
    report: StudyReport, page: str
) -> None:
    titles = [heading.text for heading in parsed(page).iter("h2")]

    assert all(titles.count(table.title) == 1 for table in all_tables(report))


def test_every_figure_for_wide_screens_has_one_for_narrow(page: str) -> None:
    classes = [figure.get("class") for figure in parsed(page).iter("svg")]

    assert (
        classes.count("figure wide") == classes.count("figure narrow") == 6
    )  # 4 views of the costs


def test_tables_sort_by_number(page: str) -> None:
    (table, *_) = [
        table for table in parsed(page).iter("table") if "sortable" in (table.get("class") or "")
    ]
    rows = list(table.iter("tr"))[1:]

    scores = [float(row[1].get("data-sort", "nan")) for row in rows]

    assert scores == [round(point.score * 100) / 100 for point in QUICKSTART]
    assert all(head.find("button") is not None for head in table.iter("th"))


def test_verdicts_are_told_by_more_than_colour(page: str) -> None:
    chips = [e for e in parsed(page).iter("span") if (e.get("class") or "").startswith("chip")]

    said = {"".join(chip.itertext()) for chip in chips}

    assert said <= {"✓shown", "≈not shown here", "✕contrary to the paper here"}
    assert "✓shown" in said


def test_text_from_outside_is_escaped(tmp_path: Path) -> None:
    study = build_study(
        tmp_path,
        [Point(score=0.5)],
        num_questions=40,
        question='<script>alert("x")</script> & what?',
        notes=["a <b> note", "key WANDB_API_KEY=abcdef012345 in /root/.netrc"],
    )
    cell = dataclasses.replace(study.plan.cells[0], name='"><img src=x onerror=y>')
    plan = dataclasses.replace(study.plan, cells=(cell,))

    page = render_html(build_report(collect(study.store, plan), None))

    root = parsed(page)
    assert len(list(root.iter("script"))) == 1
    assert not list(root.iter("img"))
    assert "abcdef012345" not in page
    assert "/root" not in page


def test_an_unfinished_study_says_what_is_missing(tmp_path: Path) -> None:
    points = [Point(score=0.5), Point(score=0.6, pixels=48, state="failed")]
    study = build_study(tmp_path, points, num_questions=40)

    page = render_html(build_report(collect(study.store, study.plan), None))

    assert "Not finished: 1 of 2 cells done, 1 failed." in page
    assert "loss is NaN at step 41" in page
    assert "Cannot be judged:" in page


def test_a_study_that_has_not_begun_is_a_page_too(tmp_path: Path) -> None:
    study = build_study(tmp_path, [Point(score=0.5)], num_questions=40)
    for ref in study.plan.by_ref:
        study.store.stage(ref).path.rename(tmp_path / f"{ref.kind}-{ref.key}")

    page = render_html(build_report(collect(study.store, study.plan), None))

    assert "No setting is finished and scored yet." in page
    parsed(page)


def test_markup_is_written_as_given_and_text_is_escaped() -> None:
    made = tag("p", "a < b", Markup("<br/>"), None, ["x", tag("b", "&")], class_="c", hidden=None)

    assert made == '<p class="c">a &lt; b<br/>x<b>&amp;</b></p>'
