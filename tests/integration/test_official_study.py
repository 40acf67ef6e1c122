"""A study of a tiny model on all five official benchmarks, judged over HTTP, from one line."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from scalesweep.models.weights import folder_digest
from scalesweep.rundir import read_json
from tests.data.official_files import llama_like_tokenizer, write_picture
from tests.fakes.judge_server import JudgeServer
from tests.integration.tiny_study import COMMAND, environment, plan_in, store_of

SAMPLES = Path(__file__).parents[1] / "evaluate" / "samples"
CANARY = "sk-canary-8d1f0c5e7b3a"
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 4,
    "max_position_embeddings": 2048,
}
BENCHMARKS = ("llava_bench", "mm_vet", "mmbench", "vicuna80", "mmlu")


def verdict(request: Mapping[str, Any], times: int) -> str:
    """A grade for MM-Vet, two scores for the others; another one in each run."""
    if request["max_tokens"] == 3:
        return ("0.5", "1.0")[times % 2]
    return f"8 {6 + times % 2}\nBecause."


@dataclass
class Typed:
    folder: Path
    server: JudgeServer
    words: tuple[str, ...]

    def line(self, *words: str, key: bool = True) -> subprocess.CompletedProcess[str]:
        variables = {
            "SCALESWEEP_DATA": str(self.folder / "data"),
            "OMP_NUM_THREADS": "1",
            **({"OPENAI_BASE_URL": self.server.url, "OPENAI_API_KEY": CANARY} if key else {}),
        }
        return subprocess.run(
            [*COMMAND, *words],
            cwd=self.folder,
            env={**environment(), **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )

    def scores(self, role: str = "judge") -> dict[str, Any]:
        plan = plan_in(self.folder, "official")
        stage = store_of(self.folder).stage(plan.cells[0].stages[role])
        found: dict[str, Any] = read_json(stage.output() / "scores.json")["benchmarks"]
        return found

    def answers(self) -> Path:
        plan = plan_in(self.folder, "official")
        return store_of(self.folder).stage(plan.cells[0].stages["generate"]).output() / "answers"


def toy_weights(folder: Path, *, letters: str = "ABCD") -> dict[str, Any]:
    """A LLaMA of nothing that reads any text; settings that name it.

    letters: those that are one token with the space in front.
    """
    tokenizer = llama_like_tokenizer(extra=[f"▁{letter}" for letter in letters])
    tokenizer.save_pretrained(folder)
    set_seed(3)
    renamed = {"num_layers": "num_hidden_layers", "num_heads": "num_attention_heads"}
    renamed["num_kv_heads"] = "num_key_value_heads"
    shape = {renamed.get(name, name): value for name, value in SHAPE.items()}
    config = LlamaConfig(**shape, vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2)
    LlamaForCausalLM(config).save_pretrained(folder)
    return {**SHAPE, "vocab_size": len(tokenizer)}


def place_data(folder: Path) -> None:
    """The repository's own samples where official files are expected."""
    for name in BENCHMARKS:
        shutil.copytree(SAMPLES / name, folder / name)
    (folder / "mmbench" / "own_dev.tsv").rename(folder / "mmbench" / "mmbench_dev.tsv")
    lines = (folder / "llava_bench" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    pictures = {f"llava_bench/images/{json.loads(line)['image']}" for line in lines}
    asked = json.loads((folder / "mm_vet" / "mm-vet.json").read_text(encoding="utf-8"))
    pictures |= {f"mm_vet/images/{entry['imagename']}" for entry in asked.values()}
    for number, picture in enumerate(sorted(pictures)):
        write_picture(folder / picture, color=(40 * number % 256, 90, 160))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    """Run once: every test looks at what it left."""
    folder = tmp_path_factory.mktemp("official")
    place_data(folder / "data")
    words = settings(folder / "weights")
    with JudgeServer(verdict=verdict, fault_rate=0.2, seed=3) as server:
        typed = Typed(folder, server, words)
        ran = typed.line("run", *words)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        yield typed


def settings(weights: Path, *, letters: str = "ABCD") -> tuple[str, ...]:
    """Words of a line that tunes and asks a toy model."""
    shape = toy_weights(weights, letters=letters)
    digest = folder_digest(weights)
    return (
        "model=smollm2_135m",
        "tuning=lora",
        "evaluation=paper",
        "judge=local",
        "study=official",
        "tracking=none",
        "model.template=vicuna_v1",
        "model.tie_word_embeddings=false",
        f"model.weights={digest}",
        f"model.tokenizer={digest}",
        f"model.path={weights}",
        *(f"model.{name}={value}" for name, value in shape.items()),
        "lora.rank=2",
        "batch={max_seq_len:1024,micro_batch_tokens:2048,global_batch_size:2}",
        "align={max_seq_len:1024,micro_batch_tokens:2048,global_batch_size:2}",
        "optim={max_steps:2,warmup_steps:1}",
        "align.optim={max_steps:2,warmup_steps:1}",
        "datasets.mini_short.parameters={num_pictures:8,num_text:2}",
        "evaluation.max_new_tokens=6",
        "+evaluation.options.mmlu.shots=3",
        "judge.num_runs=2",
        "judge.model=toy-judge",
        "judge.timeout_s=2",
        "judge.backoff_s=0.05",
    )


def test_every_benchmark_has_its_official_number_and_nothing_is_missing(study: Typed) -> None:
    scores = study.scores()

    assert set(scores) == set(BENCHMARKS)
    for name, entry in scores.items():
        assert entry["official"] is not None, name
        assert entry["num_missing"] == 0, name
        if name != "mmbench":  # a model of nothing seldom says a letter
            assert entry["num_unparsable"] == 0, name
    # Each answer gets 6 in one run and 7 in the other, whichever came first, against 8.
    assert len(scores["llava_bench"]["runs"]) == 2
    assert scores["llava_bench"]["official"] == pytest.approx(81.25, abs=0.11)
    assert scores["mm_vet"]["official"] == 75.0
    assert sum(scores["mm_vet"]["runs"]) == pytest.approx(150)


def test_the_language_model_before_tuning_is_asked_what_needs_no_picture(study: Typed) -> None:
    assert set(study.scores("judge_base")) == {"vicuna80", "mmlu"}


def test_typed_again_nothing_runs_and_nobody_is_asked(study: Typed) -> None:
    asked = len(study.server.requests)

    again = study.line("run", *study.words)

    assert again.returncode == 0, again.stderr
    assert len(study.server.requests) == asked


def test_scores_of_the_written_reviews_are_those_of_the_study(study: Typed) -> None:
    """Whoever reads the official files gets the same numbers."""
    plan = plan_in(study.folder, "official")
    reviews = store_of(study.folder).stage(plan.cells[0].stages["judge"]).output() / "reviews"
    files = sorted(str(path) for path in reviews.glob("llava_bench*.jsonl"))

    again = json.loads(study.line("score", "llava_bench", *files, "--json").stdout)

    assert len(files) == 2
    ours = study.scores()["llava_bench"]
    assert again["official"] == ours["official"]
    assert again["runs"] == ours["runs"]


def test_answers_are_written_in_the_official_formats_too(study: Typed) -> None:
    lines = (study.answers() / "llava_bench.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[0])

    assert {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"} <= set(row)
    assert row["question_id"] == 0
    official = list(study.answers().rglob("*"))
    assert any(path.suffix == ".xlsx" for path in official)
    assert any(path.suffix == ".csv" for path in official)
    assert any(path.name == "mm_vet.json" for path in official)


def test_the_papers_tables_show_the_study(study: Typed) -> None:
    for table, values in (("table1", 4), ("table2", 7), ("table3b", 7), ("table5", 4)):
        text = study.line("report", "official", "--paper", table, "--format", "csv").stdout
        here = [row for row in csv.DictReader(text.splitlines()) if row["source"] == "here"]

        assert here, table
        assert sum(not name.endswith("±") for name in here[0]) == 3 + values + 2


def test_the_report_of_official_scores_is_made_in_every_format(study: Typed) -> None:
    for form in ("terminal", "md", "csv", "json", "html"):
        made = study.line("report", "official", "--format", form)

        assert made.returncode == 0, made.stderr
        assert "llava_bench" in made.stdout or form == "html"


def test_the_key_is_in_no_byte_that_was_written(study: Typed) -> None:
    files = [path for path in study.folder.rglob("*") if path.is_file()]

    found = [str(path) for path in files if CANARY.encode() in path.read_bytes()]

    assert len(files) > 100
    assert found == []
    assert {headers.get("authorization") for headers in study.server.headers} == {
        f"Bearer {CANARY}"
    }


def test_without_a_key_the_line_is_refused_before_anything_runs(
    study: Typed, tmp_path: Path
) -> None:
    refused = study.line(
        "run", *study.words, "judge=gpt4", f"store={tmp_path / 'store'}", key=False
    )

    assert refused.returncode == 2
    assert "judge.api_key_variable=OPENAI_API_KEY: is not set" in refused.stderr
    assert not list((tmp_path / "store").glob("stages/*/*/attempts/*"))
    assert os.environ.get("OPENAI_API_KEY") is None


def test_a_tokenizer_without_the_letters_is_refused_before_anything_is_trained(
    study: Typed, tmp_path: Path
) -> None:
    words = settings(tmp_path / "weights", letters="ABC")

    refused = study.line("run", *words, f"store={tmp_path / 'store'}")

    assert refused.returncode == 2
    assert "'Answer: D'" in refused.stderr
    assert not list((tmp_path / "store").glob("stages/*/*/attempts/*"))
