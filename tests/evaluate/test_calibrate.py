"""Answers with a published score are judged again, and the offset is worked out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scalesweep.cli import REFUSED, run
from scalesweep.evaluate.calibrate import FIXED, FOLDER
from tests.fakes.judge_server import JudgeServer

MODEL = "Qwen/Qwen2.5-72B-Instruct"
QUESTIONS = [
    json.loads(line)
    for line in (FOLDER / "llava_bench" / "questions.jsonl").read_text("utf-8").splitlines()
]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "SCALESWEEP_STORE"):
        monkeypatch.delenv(name, raising=False)


def calibrated(store: Path, server: JudgeServer | str, *words: str) -> int:
    url = server if isinstance(server, str) else server.url
    return run(
        ["judge", "calibrate", "judge=local", f"judge.base_url={url}", f"store={store}", *words]
    )


def lower_each_run(request: Mapping[str, Any], times: int) -> str:
    """8 for the reference; 6 for the candidate, 4 where detail is asked; half a point less in each
    run after the first."""
    text = request["messages"][-1]["content"]
    (question,) = [q for q in QUESTIONS if f"[Question]\n{q['text']}\n\n" in text][:1]
    return f"8 {(4 if question['category'] == 'detail' else 6) - 0.5 * times}\nSo so."


def test_the_shipped_files_are_what_their_page_says_to_the_byte() -> None:
    page = (FOLDER / "README.md").read_text("utf-8")
    named = dict(re.findall(r"\| (llava_bench/\S+) \|.*\| (\w{64}) \|", page))

    assert len(named) == 4
    for name, digest in named.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
    assert sorted(named) == sorted(
        f"llava_bench/{path.name}" for path in (FOLDER / "llava_bench").iterdir()
    )


@pytest.mark.parametrize("number", ["nan", "inf", "-inf", "0", "-70"])
def test_a_published_number_that_none_can_be_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text("", encoding="utf-8")
    words = ["--answers", str(answers), f"--published={number}"]

    assert calibrated(tmp_path / "store", "http://127.0.0.1:9/v1", *words) == REFUSED

    said = capsys.readouterr().err
    assert f"--published={float(number):g}: must be a finite number above zero" in said
    assert not (tmp_path / "store").exists()


def test_the_published_number_is_that_of_table_1() -> None:
    published = FIXED["llava_bench"].published

    assert published.whole == 77.8
    assert published.categories == {"complex": 78.7, "conv": 83.7, "detail": 69.7}


def test_the_offset_of_each_run_and_category_is_against_the_published_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with JudgeServer(verdict=lower_each_run) as server:
        assert calibrated(tmp_path, server, "--json") == 0
        asked = len(server.requests)
        texts = {r["messages"][-1]["content"] for r in server.requests}
    found = json.loads(capsys.readouterr().out)

    assert (asked, len(texts)) == (180, 60)
    # 15 of 60 are detail: mean candidate (45 x 6 + 15 x 4) / 60 = 5.5, then 5.0, 4.5; 8 the
    # reference: 68.75, 62.5, 56.25, which the rule prints as 68.8, 62.5, 56.2.
    assert found["score"]["runs"] == [68.8, 62.5, 56.2]
    assert found["offset_of_runs"] == [-9.0, -15.3, -21.6]
    assert found["offset"] == pytest.approx((68.8 + 62.5 + 56.2) / 3 - 77.8, abs=0.051)
    # stdev of -9.0, -15.3, -21.6 with n - 1 is 6.3; by the root of 3.
    assert found["offset_standard_error"] == pytest.approx(6.3 / 3**0.5, abs=1e-3)
    assert found["score"]["categories"]["detail"]["official"] == pytest.approx(43.8, abs=0.051)
    assert found["offset_of_categories"]["detail"] == pytest.approx(43.8 - 69.7, abs=0.051)
    assert found["offset_of_categories"]["conv"] == pytest.approx(68.8 - 83.7, abs=0.051)
    assert found["judge"] == MODEL
    assert found["answers_of"] == "bard-0718"
    assert found["judging"]["metered"]["replies"] == 180


def test_calibrating_again_pays_nothing_and_needs_no_endpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with JudgeServer(verdict=lower_each_run) as server:
        calibrated(tmp_path, server, "judge.num_runs=1")
    first = capsys.readouterr()

    assert calibrated(tmp_path, "http://127.0.0.1:9/v1", "judge.num_runs=1") == 0
    second = capsys.readouterr()

    table = first.out.partition("Paid")[0]
    assert second.out.startswith(table)
    assert "whole          77.8   68.8     -9.0" in table
    assert "Judge runs (offset): 68.8 (-9.0)" in table
    assert max(len(line) for line in first.out.splitlines()) <= 80
    assert "Paid: $0.00 for 60 replies" in first.out
    assert "Paid: $0.00 for 0 replies (estimated $0.00); 60 were stored" in second.out
    assert "60 replies wanted, 0 stored, 60 to ask" in first.err
    assert second.err == ""


def test_other_answers_are_calibrated_by_their_own_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.jsonl"
    rows = [
        {"question_id": q["question_id"], "text": f"Mine {n}.", "model_id": "mine"}
        for n, q in enumerate(QUESTIONS)
    ]
    mine.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    with JudgeServer(verdict=lambda *_: "8 4") as server:
        calibrated(
            tmp_path, server, "judge.num_runs=1", f"--answers={mine}", "--published", "51", "--json"
        )
    found = json.loads(capsys.readouterr().out)

    assert (found["answers_of"], found["offset"]) == ("mine", -1.0)  # 4 / 8 = 50.0
    assert set(found["offset_of_categories"].values()) == {None}


def test_missing_and_unreadable_replies_are_told_beside_the_offset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = QUESTIONS[0]["text"], QUESTIONS[4]["text"]
    script = {first: ("filter",), second: ("invalid",)}
    with JudgeServer(verdict=lambda *_: "8 4", script=script) as server:
        calibrated(tmp_path, server, "judge.num_runs=1")
    out = capsys.readouterr().out

    line = next(line for line in out.splitlines() if line.startswith("whole"))
    assert line.split()[-2:] == ["1", "1"]
    assert "1 replies are missing, so the offset is of the others alone" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["llava_bench"], "name the judge, as in judge=gpt4o"),
        (["mmlu", "judge=gpt4o"], "judge calibrate mmlu: choose one of llava_bench"),
        (["judge=exact_match"], "judge=exact_match: asks no model"),
        (["judge=gpt5o"], "judge=gpt5o: no such option; did you mean gpt4o?"),
        (["judge=gpt4o", "judge.rnus=1"], "judge.rnus: no such setting; did you mean judge.runs?"),
        (["judge=gpt4o", "judge.num_runs=0"], "judge.num_runs=0"),
        (["judge=gpt4o", "model=7b"], "model=7b: judge calibrate takes a benchmark"),
        (["judge=gpt4o", "--published=3"], "--published=3: of which answers?"),
        (["judge=gpt4o", "--answers=no.jsonl"], "--answers=no.jsonl: is no file"),
        (["judge=gpt4o", "--answers", __file__], "add --published N"),
        (["judge=gpt4o", "--published=much"], "--published=much: must be a number"),
        (["a", "b", "judge=gpt4o"], "b: judge calibrate takes one benchmark"),
        (["judge=gpt4o"], "judge.api_key_variable=OPENAI_API_KEY: the environment has no such"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_calibrated_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert run(["judge", "calibrate", *words, f"store={tmp_path}"]) == 2

    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
