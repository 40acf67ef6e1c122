"""One checkpoint outside any study: what the line says, and what is planned of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import LlavaForConditionalGeneration

from scalesweep.cli import DONE, REFUSED
from scalesweep.cli import run as run_line
from scalesweep.config.paths import conf_dir
from scalesweep.errors import ConfigError, StoreError
from scalesweep.evaluate.scores import BenchmarkScore, PartScore
from scalesweep.plan.build import CellRequest, build_plan
from scalesweep.plan.graph import Cell, Plan, PlannedStage
from scalesweep.records import Done, Outcome, StageKind, Usage
from scalesweep.report.command import report
from scalesweep.rundir import Store, output_files, write_json
from scalesweep.specs import GenerateSpec, JudgeSpec, Method, Precision
from scalesweep.study_command import Request, planned
from scalesweep.study_evaluate import asked
from tests.config.composing import cell as cell_of
from tests.config.composing import composed
from tests.models.test_external import VICUNA_CHAT, adapters, changed, llama_folder, llava_folder


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALESWEEP_STORE", str(tmp_path / "own store"))


def plan_of(*words: str) -> Plan:
    """What `evaluate` plans for a line."""
    found = asked(words)
    request = Request(verb="evaluate", checkpoint=found.checkpoint)
    plan, _, _ = planned([(found.words, composed(found.words))], request)
    return plan


def generated(plan: Plan) -> GenerateSpec:
    (cell,) = plan.cells
    return GenerateSpec.from_identity(plan.stage(cell.stages["generate"]).spec.identity)


@dataclass(frozen=True)
class Studied:
    """A study of the real settings, of which all is done; nothing was computed."""

    store: Store
    plan: Plan

    def folder(self, cell: Cell, role: str = "tune") -> Path:
        return self.store.stage(cell.stages[role]).path


@pytest.fixture
def study(tmp_path: Path) -> Studied:
    requests = [
        CellRequest(point={"tuning": tuning}, config=cell_of("model=mini_xs", f"tuning={tuning}"))
        for tuning in ("lora", "full")
    ]
    plan, store = build_plan(requests, study="small"), Store(tmp_path / "store")
    for planned_stage in plan.stages:
        finish(store, planned_stage)
    return Studied(store, plan)


def done_study(root: Path, *words: str) -> tuple[Plan, Store]:
    """A study of one cell, of which all is done."""
    plan, store = (
        build_plan([CellRequest(point={}, config=cell_of(*words))], study="s"),
        Store(root),
    )
    for planned_stage in plan.stages:
        finish(store, planned_stage)
    return plan, store


def finish(store: Store, planned_stage: PlannedStage) -> None:
    """As if a stage had run."""
    stage = store.stage(planned_stage.ref)
    attempt = stage.attempt(1)
    attempt.output.mkdir(parents=True)
    write_json(stage.stage_file, planned_stage.spec.to_json())
    write_json(attempt.execution_file, planned_stage.execution.to_json())
    usage = Usage(outcome=Outcome.done, wall_s=2.0)
    write_json(attempt.usage_file, usage.to_json())
    if planned_stage.spec.kind is StageKind.judge:
        asked_of = JudgeSpec.from_identity(planned_stage.spec.identity)
        (attempt.output / "items").mkdir()
        for benchmark in asked_of.benchmarks:
            rows = [{"question_id": f"{n}", "category": "", "value": n % 2} for n in range(4)]
            (attempt.output / "items" / f"{benchmark.name}.jsonl").write_text(
                "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
            )
        half = PartScore(official=50.0, score=0.5, standard_error=0.29, num_questions=4)
        scores = {
            benchmark.name: BenchmarkScore(
                benchmark=benchmark.name, rule="made up", options={}, whole=half
            ).to_json()
            for benchmark in asked_of.benchmarks
        }
        write_json(attempt.output / "scores.json", {"benchmarks": scores})
    (attempt.output / "made.txt").write_text(planned_stage.spec.label, encoding="utf-8")
    read = {}
    for role, ref in planned_stage.spec.inputs.items():
        parent = store.stage(ref).done()
        assert parent is not None
        read[role] = parent.digest
    done = Done(attempt=1, files=output_files(attempt.output), inputs=read)
    write_json(stage.done_file, done.to_json())


# ---------------------------------------------------------------- of a store


def test_a_checkpoint_of_a_study_is_asked_by_the_studys_own_stages(study: Studied) -> None:
    for cell in study.plan.cells:
        folder = study.folder(cell)
        for named in (
            folder,
            folder / "attempts" / "0001",
            study.store.stage(cell.stages["tune"]).output(),
        ):
            plan = plan_of(str(named))

            (ours,) = plan.cells
            assert ours.stages["generate"] == cell.stages["generate"]
            assert ours.stages["judge"] == cell.stages["judge"]
            assert ours.stages["tune"] == cell.stages["tune"]
            assert ours.num_trainable_params == cell.num_trainable_params
            assert "generate_base" not in ours.stages


def test_a_base_made_in_a_study_is_asked_as_the_study_asks_it(tmp_path: Path) -> None:
    config = cell_of("model=mini_xs", "base=mini")
    plan, store = build_plan([CellRequest(point={}, config=config)], study="s"), Store(tmp_path)
    for planned_stage in plan.stages:
        finish(store, planned_stage)
    (cell,) = plan.cells

    (ours,) = plan_of(str(store.stage(cell.stages["base"]).path)).cells

    assert ours.stages["generate"] == cell.stages["generate_base"]
    assert ours.stages["judge"] == cell.stages["judge_base"]
    with pytest.raises(ConfigError, match="made a vision tower, which cannot be asked"):
        asked([str(store.stage(cell.stages["tower"]).path)])


def test_other_settings_of_answering_are_other_stages(study: Studied) -> None:
    cell = study.plan.cells[0]
    folder = str(study.folder(cell))

    for words in (
        ["num_beams=5"],
        ["max_new_tokens=3"],
        ["precision=bf16"],
        ["evaluation=mini_dev"],
    ):
        (ours,) = plan_of(folder, *words).cells
        assert ours.stages["generate"] != cell.stages["generate"], words
    (same,) = plan_of(folder, "batch_size=3").cells
    assert same.stages["generate"] == cell.stages["generate"]


def test_what_is_done_is_shown_and_nothing_runs(
    study: Studied, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study.folder(study.plan.cells[0])

    assert run_line(["evaluate", str(folder), "tracking=none"]) == DONE

    said = capsys.readouterr().out
    assert "questions about pictures: 50.0 ± 29.0" in said
    assert "0 new attempts" in said
    assert f"answers: {study.store.root}" in said
    assert f"scores: {study.store.root}" in said


def test_a_stage_that_is_no_checkpoint_is_refused(study: Studied) -> None:
    cell, store = study.plan.cells[0], study.store
    with pytest.raises(ConfigError, match="is a stage of kind align; only tune and base"):
        asked([str(store.stage(cell.stages["align"]).path)])
    folder = study.folder(cell)
    (folder / "attempts" / "0007" / "output").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"not the attempt that was published \(0001\); name"):
        asked([str(folder / "attempts" / "0007" / "output")])
    (folder / "done.json").unlink()
    with pytest.raises(ConfigError, match="is not done yet; run its study's line to the end"):
        asked([str(folder)])


def test_a_checkpoint_whose_parents_were_made_again_is_never_trained_here(
    study: Studied,
) -> None:
    cell = study.plan.cells[0]
    stage = study.store.stage(cell.stages["align"])
    done = stage.done()
    assert done is not None
    (stage.output() / "made.txt").write_text("otherwise", encoding="utf-8")
    again = Done(attempt=1, files=output_files(stage.output()), inputs=done.inputs)
    write_json(stage.done_file, again.to_json())

    with pytest.raises(StoreError, match=r"^tune mini_xs .*: is stale: align/.* other bytes since"):
        asked([str(study.folder(cell))])


def test_words_that_a_stage_of_a_store_says_itself_are_refused(study: Studied) -> None:
    folder = str(study.folder(study.plan.cells[0]))

    with pytest.raises(ConfigError, match=r"template=mini: .* is a stage of a store"):
        asked([folder, "template=mini"])
    with pytest.raises(ConfigError, match=r"store=elsewhere: the checkpoint lies in the store"):
        asked([folder, "store=elsewhere"])
    assert asked([folder, f"store={study.store.root}"]).checkpoint.store == study.store.root


def test_scores_of_the_first_versions_are_shown(
    study: Studied, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = study.plan.cells[0]
    judged = study.store.stage(cell.stages["judge"])
    done = judged.done()
    assert done is not None
    old = {"score": 0.5, "standard_error": 0.29, "num_questions": 4, "num_missing": 0,
           "num_empty": 0, "categories": {}}  # fmt: skip
    names = json.loads((judged.output() / "scores.json").read_text("utf-8"))["benchmarks"]
    write_json(judged.output() / "scores.json", {"benchmarks": dict.fromkeys(names, old)})
    again = Done(attempt=1, files=output_files(judged.output()), inputs=done.inputs)
    write_json(judged.done_file, again.to_json())

    assert run_line(["evaluate", str(study.folder(cell)), "tracking=none"]) == DONE

    said = capsys.readouterr().out
    assert "questions about pictures: 50.0 ± 29.0" in said
    assert "as an earlier version of scalesweep scored it" in said


TRAINED = ("data_mix", "tuning", "lora", "optim", "batch", "align", "seed")


@pytest.mark.parametrize(
    "words",
    [
        ("model=33b", "data_mix=llava80k_sharegpt", "evaluation=llava_bench"),
        ("model=7b", "tuning=qlora", "lora.rank=16", "optim.lr=3e-5", "seed=7",
         "align.optim.lr=2e-3", "batch.global_batch_size=32", "batch.max_seq_len=1024",
         "evaluation=llava_bench"),
        ("model=mini_xs", "tuning=lora", "data_mix=mini_text", "seed=3"),
    ],
)  # fmt: skip
def test_the_config_tells_how_a_stage_of_a_store_was_trained(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    plan, store = done_study(tmp_path / "store", *words)
    (cell,) = plan.cells

    (ours,) = plan_of(
        str(store.stage(cell.stages["tune"]).path),
        *(word for word in words if word.startswith("evaluation=")),
    ).cells

    assert ours.stages == {role: ref for role, ref in cell.stages.items() if role in ours.stages}
    for part in TRAINED:
        assert ours.config[part] == cell.config[part], part


def test_data_that_no_option_has_are_of_no_known_mix(tmp_path: Path) -> None:
    source = "{dataset: mini_train, file: instruct.json, max_items: 8}"
    plan, store = done_study(tmp_path / "store", "model=mini_xs", f"data_mix.sources=[{source}]")

    (ours,) = plan_of(str(store.stage(plan.cells[0].stages["tune"]).path)).cells

    assert ours.config["data_mix"]["name"] == "unknown"
    assert [source["max_items"] for source in ours.config["data_mix"]["sources"]] == [8]


def test_a_base_was_tuned_on_nothing(tmp_path: Path) -> None:
    plan, store = done_study(tmp_path / "store", "model=mini_xs", "base=mini")

    (ours,) = plan_of(str(store.stage(plan.cells[0].stages["base"]).path)).cells

    names = [ours.config[part]["name"] for part in ("model", "data_mix", "align")]
    assert names == ["mini_xs", "none", "none"]
    assert ours.config["tuning"]["method"] == "none"
    assert {ours.config["lora"]["rank"], ours.config["optim"]["lr"]} == {None}


# ---------------------------------------------------------------- of a folder


def test_a_llava_of_others_is_asked_with_its_own_shape(tmp_path: Path) -> None:
    folder = llava_folder(tmp_path / "my llava", chat=VICUNA_CHAT)

    plan = plan_of(str(folder), "evaluation=mmbench", "judge=exact_match", "num_beams=5")

    (cell,) = plan.cells
    spec = generated(plan)
    assert cell.name == "my_llava"
    assert [stage.spec.kind for stage in plan.stages] == ["data", "generate", "judge"]
    assert (spec.checkpoint, spec.method, spec.num_beams) == ("external", Method.full, 5)
    assert (spec.model.hidden_size, spec.model.template) == (32, "vicuna_v1")
    assert spec.precision is Precision.fp32
    assert spec.checkpoint_weights is not None
    assert spec.checkpoint_weights.startswith("files:")
    execution = plan.stage(cell.stages["generate"]).execution
    assert execution.paths == {"checkpoint": str(folder), "tokenizer": str(folder)}
    weights = load_file(folder / "model.safetensors")
    # the projector's second layer is not counted
    counted = [weight for name, weight in weights.items() if "linear_2" not in name]
    assert cell.num_params == sum(math.prod(weight.shape) for weight in counted)


def test_the_same_bytes_under_another_name_are_the_same_stage(tmp_path: Path) -> None:
    one = llava_folder(tmp_path / "one", chat=VICUNA_CHAT)
    words = ["evaluation=mmbench", "judge=exact_match"]
    first = plan_of(str(one), *words).cells[0].stages["generate"]
    two = one.rename(tmp_path / "two")

    assert plan_of(str(two), *words).cells[0].stages["generate"] == first
    (two / "generation_config.json").write_text('{"repetition_penalty": 2.0}', encoding="utf-8")
    assert plan_of(str(two), *words).cells[0].stages["generate"] != first


def test_adapters_and_4_bit_are_planned_as_such(tmp_path: Path) -> None:
    base = llava_folder(tmp_path / "base", chat=VICUNA_CHAT)
    folder = adapters(tmp_path / "adapters", base, LlavaForConditionalGeneration)
    words = ["evaluation=mmbench", "judge=exact_match"]

    lora = plan_of(str(folder), *words)
    four_bit = [plan_of(str(base), *words, word) for word in ("load_4bit=true", "tuning=qlora")]

    assert generated(lora).method is Method.lora
    assert lora.stage(lora.cells[0].stages["generate"]).execution.paths["language_model"] == str(
        base
    )
    assert lora.cells[0].config["lora"]["rank"] == 3
    assert [generated(plan).method for plan in four_bit] == [Method.qlora] * 2
    assert four_bit[0].cells[0].stages == four_bit[1].cells[0].stages


@pytest.mark.parametrize("size", ["7b", "13b", "33b", "65b", "70b"])
def test_a_folder_is_no_row_of_the_paper_whatever_it_is_called(tmp_path: Path, size: str) -> None:
    llava = llava_folder(tmp_path / size, chat=VICUNA_CHAT)
    adapted = adapters(tmp_path / "adapters" / size, llava, LlavaForConditionalGeneration)
    llama = llama_folder(tmp_path / "llama" / size)
    plans = [
        plan_of(str(llava), "evaluation=paper"),
        plan_of(str(llava), "evaluation=paper", "load_4bit=true"),
        plan_of(str(adapted), "evaluation=paper"),
        plan_of(str(llama), "evaluation=paper", "template=vicuna_v1"),
    ]
    options = {
        group: {file.stem for file in (conf_dir() / group).glob("*.yaml")}
        for group in ("model", "data_mix", "align", "tuning")
    }

    tunings = []
    for plan in plans:
        (cell,) = plan.cells
        for group in ("model", "data_mix", "align"):
            assert cell.config[group]["name"] not in options[group]
        assert cell.config["tuning"]["method"] not in options["tuning"]
        assert (cell.name, cell.config["model"]["name"]) == (size, f"external:{size}")
        assert cell.config["seed"] is None
        assert cell.config["optim"]["lr"] is None
        assert cell.config["batch"]["global_batch_size"] is None
        assert cell.config["lora"]["alpha"] is None
        tunings.append(cell.config["tuning"]["method"])
    assert tunings == ["whole", "4bit", "adapters", "whole"]


@pytest.mark.parametrize("table", ["table1", "table5"])
def test_an_external_checkpoint_stands_by_its_own_name_below_the_papers_rows(
    tmp_path: Path, table: str
) -> None:
    folder = llava_folder(tmp_path / "33b", chat=VICUNA_CHAT)
    plan, store = plan_of(str(folder), "evaluation=paper"), Store(tmp_path / "a store")
    for planned_stage in plan.stages:
        finish(store, planned_stage)
    store.study("e").mkdir(parents=True)
    write_json(store.study("e") / "plan.json", {**plan.to_json(), "study": "e"})

    lines = json.loads(report(store, "e", paper=table, format="json"))["lines"]

    assert [line["model"] for line in lines if line["source"] == "here"] == [
        "external:33b 32px whole"
    ]
    for format in ("terminal", "md", "csv", "json", "html"):
        report(store, "e", format=format)


def test_16_bit_of_another_kind_is_said_in_one_line(tmp_path: Path) -> None:
    folder = llava_folder(tmp_path / "llava", chat=VICUNA_CHAT)
    words = [str(folder), "evaluation=mmbench", "judge=exact_match"]
    assert not any("float" in note for note in plan_of(*words).notes)
    changed(folder / "config.json", dtype="float16")

    (note,) = [note for note in plan_of(*words).notes if "float" in note]

    assert note == f"{folder}: weights are float16; they are computed in bf16"


@pytest.mark.parametrize("method", [None, Method.full])
def test_memory_is_counted_for_what_is_asked(tmp_path: Path, method: Method | None) -> None:
    llama = method is None
    folder = llama_folder(tmp_path / "a") if llama else llava_folder(tmp_path / "a")
    words = ["template=vicuna_v1", "evaluation=mmlu", "judge=exact_match"]

    plan = plan_of(str(folder), *words, "cluster=azure_nd_a100_v4")

    execution = plan.stage(plan.cells[0].stages["generate"]).execution
    assert (execution.devices_per_replica, execution.devices_per_node) == (1, 8)


def test_a_language_model_is_asked_what_needs_no_picture(tmp_path: Path) -> None:
    folder = llama_folder(tmp_path / "llama")
    words = ["template=vicuna_v1", "judge=exact_match"]

    plan = plan_of(str(folder), "evaluation=mmlu", *words)

    spec = generated(plan)
    assert (spec.method, spec.tower) == (None, None)
    assert [benchmark.name for benchmark in spec.benchmarks] == ["mmlu"]
    whole = plan_of(str(folder), "evaluation=paper", "template=vicuna_v1", "until=generate")
    assert [b.name for b in generated(whole).benchmarks] == ["vicuna80", "mmlu"]
    with pytest.raises(ConfigError, match=r"evaluation=mm_vet: mm_vet asks about pictures, and .*"
                       r"choose evaluation=vicuna80 or evaluation=mmlu"):  # fmt: skip
        plan_of(str(folder), "evaluation=mm_vet", "template=vicuna_v1", "until=generate")


REFUSED_WORDS = {
    "no checkpoint": ([], r"^evaluate: name a checkpoint: a folder in Hugging Face's layout"),
    "a setting first": (["evaluation=paper"], r"^evaluate: name a checkpoint"),
    "no such folder": (["nowhere"], r"^evaluate nowhere: no such folder$"),
    "training": (["FOLDER", "optim.lr=1"], r"optim\.lr=1: says nothing about evaluating"),
    "a model": (["FOLDER", "model=7b"], r"model=7b: says nothing about evaluating"),
    "4 bit of nothing": (["FOLDER", "load_4bit=maybe"], r"load_4bit=maybe: must be true or false"),
    "another tuning": (
        ["FOLDER", "tuning=lora"],
        r"tuning=lora: .* is asked as full; leave it out",
    ),
    "an empty word": (["FOLDER", "template="], r"template=: empty value"),
}


@pytest.mark.parametrize("case", REFUSED_WORDS)
def test_a_line_that_cannot_be_meant_is_refused(tmp_path: Path, case: str) -> None:
    words, message = REFUSED_WORDS[case]
    folder = llava_folder(tmp_path / "llava", chat=VICUNA_CHAT) if "FOLDER" in words else tmp_path

    with pytest.raises(ConfigError, match=message):
        asked([word.replace("FOLDER", str(folder)) for word in words])


def test_a_refusal_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()

    assert run_line(["evaluate", "empty", "evaluation=mmlu"]) == REFUSED

    said = capsys.readouterr().err
    assert said.startswith(f"scalesweep: evaluate {tmp_path / 'empty'}: is no model")
    assert len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_planning_imports_no_gpu_stack(tmp_path: Path) -> None:
    folder = llava_folder(tmp_path / "llava", chat=VICUNA_CHAT)
    code = f"""
import sys
from scalesweep.study_command import Request, planned
from scalesweep.study_evaluate import asked
from tests.config.composing import cell as cell_of
from tests.config.composing import composed
found = asked([{str(folder)!r}, "evaluation=mmbench", "judge=exact_match"])
request = Request(verb="evaluate", checkpoint=found.checkpoint)
planned([(found.words, composed(found.words))], request)
print([name for name in ("torch", "transformers", "peft", "numpy", "PIL") if name in sys.modules])
"""

    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.stdout.strip() == "[]", ended.stderr
