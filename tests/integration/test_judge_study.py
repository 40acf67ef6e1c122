"""A whole study with a judge: trained, answered, judged, reported; and no key in any byte of it."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesweep.data.miniature import generate
from scalesweep.rundir import read_json
from tests.fakes.judge_server import JudgeServer
from tests.integration.tiny_study import COMMAND, TINY, environment, store_of

KEY, PASSWORD, CODE = "sk-CANARY1/k+8h", "pwCANARY2:x", "codeCANARY3"
LINE = (
    "study=judged",
    *(word for word in TINY if not word.startswith("tracking=")),
    "tracking=wandb_offline",
    "tuning=lora",
    "optim.max_steps=2",
    "align.optim.max_steps=2",
    "+datasets.judged={root:questions,files:{question_v1.jsonl:'',answer_gpt35.jsonl:''}}",
    "evaluation.benchmarks=[{name:vicuna80,dataset:judged,file:question_v1.jsonl}]",
    "evaluation.base_benchmarks=[]",
    "evaluation.primary=vicuna80",
    "judge=local",
    "judge.num_runs=2",
    "judge.backoff_s=0.02",
    "judge.timeout_s=5",
)
OTHERS = (
    "status judged",
    "report judged",
    "logs 1 judged --stage judge",
    "judge calibrate judge=local judge.num_runs=1 judge.backoff_s=0.02",
)


def make_questions(folder: Path) -> None:
    """Six in the words that a miniature knows, in Vicuna-80's format, with reference answers."""
    generate("questions", {"seed": 6, "num_questions": 1, "text_seed": 8, "num_text_questions": 6},
             folder, tick=lambda _: None)  # fmt: skip
    rows = [json.loads(line) for line in (folder / "text.jsonl").read_text("utf-8").splitlines()]
    for file, fields in (
        ("question_v1.jsonl", [{"text": row["text"], "category": "generic"} for row in rows]),
        ("answer_gpt35.jsonl", [{"text": row["answer"], "model_id": "mine"} for row in rows]),
    ):
        lines = [json.dumps({"question_id": n, **row}) for n, row in enumerate(fields, start=1)]
        (folder / file).write_text("\n".join(lines) + "\n", "utf-8")


def typed(folder: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.run(
        [*COMMAND, *words],
        cwd=folder,
        env={
            **environment(),
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": url,
            "TMPDIR": str(folder / "tmp"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@contextlib.contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """Of every process that lives meanwhile, as `ps` shows them."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(entry.read_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow  # one cell trained, and a handful of commands
def test_a_planted_key_is_in_no_byte_of_a_whole_run(tmp_path: Path) -> None:
    (tmp_path / "questions").mkdir()
    make_questions(tmp_path / "questions")
    written: list[str] = []
    with command_lines() as lines, JudgeServer(everybody=("500", "401")) as server:
        # The server quotes in its refusals what it was sent.
        whole = server.url.replace("//", f"//me:{PASSWORD}@") + f"?code={CODE}"
        refused = typed(tmp_path, whole, *LINE)
        server.everybody, server.fault_rate = (), 0.5
        server.faults = ("500", "not-json", "no-choices")
        done = typed(tmp_path, f"{server.url}?code={CODE}", *LINE)
        others = [typed(tmp_path, whole, *words.split()) for words in OTHERS]

    for ended in (refused, done, *others):
        written += [ended.stdout, ended.stderr]
    assert refused.returncode == 1, refused.stderr
    assert "401 authentication: the endpoint does not take the key in OPENAI_API_KEY" in "".join(
        written
    )
    assert [ended.returncode for ended in (done, *others)] == [0] * 5, "".join(written)
    assert "500 server error: broke, you sent" in others[2].stdout
    # The secrets were there to be found: they were sent, and the server quoted them.
    sent = {headers["authorization"] for headers in server.headers}
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert sent == {f"Bearer {KEY}", f"Basic {basic}"}
    assert {path.partition("?")[2] for path in server.paths} == {f"code={CODE}"}
    assert server.did["401"] >= 1
    assert server.did["500"] + server.did["not-json"] >= 5

    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    kinds = {file.suffix for file in files}
    assert {".json", ".jsonl", ".html", ".wandb"} <= kinds  # replies, rows, report, W&B
    for secret in (KEY, PASSWORD, CODE, basic, "CANARY", "CANARY".lower()):
        for form in {secret, json.dumps(secret)[1:-1], secret.encode().hex()}:
            assert [str(file) for file in files if form.encode() in file.read_bytes()] == []
            assert form not in "".join(written)
            assert not [line for line in lines if form.encode() in line]

    judge = next(
        stage
        for stage in (store_of(tmp_path).root / "stages" / "judge").iterdir()
        if (stage / "done.json").exists()
    )
    score = read_json(next(judge.glob("attempts/*/output/scores.json")))["benchmarks"]["vicuna80"]
    assert len(score["runs"]) == 2
    assert score["num_missing"] == 0
    assert score["judge_model"] == "Qwen/Qwen2.5-72B-Instruct"
    replies = list((store_of(tmp_path).root / "judge_replies").glob("??/*.json"))
    assert len(replies) == 2 * score["num_questions"] + 60  # and those of the calibration
