"""A published checkpoint answers all questions, once each, without the trainer."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scalesweep import stages
from scalesweep.errors import DataError, Interrupted, StageError
from scalesweep.evaluate.generate_stage import run
from scalesweep.rundir import output_files, read_json
from scalesweep.specs import BenchmarkSpec, Method
from tests.evaluate.small_stages import (
    VQA,
    SmallStage,
    answers,
    generate_stage,
    make_questions,
    rows,
    run_alone,
)
from tests.models.checkpoints import tuned

Inputs = dict[str, Path]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Method], Inputs]:
    """Questions, and a checkpoint of each method."""
    root = tmp_path_factory.mktemp("inputs")
    questions = make_questions(root / "questions")

    def made(method: Method) -> Inputs:
        folder = root / str(method)
        if not folder.exists():
            tuned(method, folder)
        return {"checkpoint": folder, "data:test": questions}

    return made


def run_whole(stage: SmallStage) -> dict[str, list[str]]:
    context = stage.context()
    run(context)
    return answers(context)


def test_every_question_is_answered_in_the_files_order(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    context = generate_stage(tmp_path, Method.full, inputs(Method.full)).context()

    stages.run(context)

    published = rows(context.attempt.output / "answers" / "mini_vqa.jsonl")
    asked = rows(context.inputs["data:test"] / "vqa.jsonl")
    assert [row["question_id"] for row in published] == [str(n) for n in range(12)]
    assert [row["prompt"] for row in published] == [row["text"] for row in asked]
    assert [row["reference"] for row in published] == [row["answer"] for row in asked]
    assert len(answers(context)["mini_text"]) == 10
    last = list(context.attempt.metric_rows())[-1]
    assert (last["progress/done"], last["progress/total"]) == (22, 22)


@pytest.mark.parametrize("method", [Method.full, Method.lora, Method.qlora])
def test_answers_do_not_depend_on_the_batch(
    inputs: Callable[[Method], Inputs], tmp_path: Path, method: Method
) -> None:
    said = []
    for size in (1, 5, 12):
        stage = generate_stage(tmp_path / str(size), method, inputs(method))
        stage.micro_batch_size = size
        said.append(run_whole(stage))

    # sums in another order could turn a tie between two words; none of these 22 answers has one
    assert said[0] == said[1] == said[2]
    assert len(set(said[0]["mini_vqa"])) > 1  # they differ between questions


def test_a_base_answers_text_alone(inputs: Callable[[Method], Inputs], tmp_path: Path) -> None:
    questions = {"data:test": inputs(Method.full)["data:test"]}
    context = generate_stage(tmp_path, None, questions).context()

    run(context)

    text = rows(context.attempt.output / "answers" / "mini_text.jsonl")
    assert sum(row["text"] == row["reference"] for row in text) >= 9  # it learned these facts


def other_pictures(questions: Path, folder: Path) -> Path:
    """The same questions about other pictures."""
    shutil.copytree(questions, folder)
    names = sorted(path.name for path in (folder / "images").iterdir())
    for name, other in zip(names, names[1:] + names[:1], strict=True):
        shutil.copyfile(questions / "images" / other, folder / "images" / name)
    return folder


def test_a_blind_checkpoint_answers_the_same_whatever_the_pictures_show(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    seen = inputs(Method.full)
    changed = {**seen, "data:test": other_pictures(seen["data:test"], tmp_path / "other")}

    def said(name: str, given: Inputs, *, blind: bool) -> list[str]:
        stage = generate_stage(tmp_path / name, Method.full, given, blind=blind)
        return run_whole(stage)["mini_vqa"]

    assert said("1", seen, blind=True) == said("2", changed, blind=True)
    assert said("3", seen, blind=False) != said("4", changed, blind=False)


def test_a_stop_keeps_what_is_answered_and_the_next_attempt_asks_only_the_rest(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    whole = run_whole(generate_stage(tmp_path / "whole", Method.full, inputs(Method.full)))
    stage = generate_stage(tmp_path / "stopped", Method.full, inputs(Method.full))
    asked = itertools.count(1)

    with pytest.raises(Interrupted, match="stopped after 8 of 22 answers"):
        run(stage.context(stop=lambda: next(asked) == 3))
    again = stage.context()
    run(again)

    assert answers(again) == whole
    assert read_json(again.attempt.path / "generation.json")["answers"] == 14


@pytest.mark.slow
def test_a_killed_process_answers_no_question_twice_and_never_sees_the_trainer(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    whole = generate_stage(tmp_path / "whole", Method.lora, inputs(Method.lora)).context()
    run(whole)
    stage = generate_stage(tmp_path / "killed", Method.lora, inputs(Method.lora))

    killed, _ = run_alone(stage.context(), killed_after=5)  # in the second benchmark
    again = stage.context()
    code, modules = run_alone(again)

    assert (killed, code) == (-9, 0)
    assert "scalesweep.evaluate.generate_stage" in modules
    assert not {"deepspeed", "scalesweep.train", "scalesweep.train.stage"} & set(modules)
    assert read_json(again.attempt.path / "generation.json")["answers"] == 22 - 12 - 4
    assert output_files(again.attempt.output) == output_files(whole.attempt.output)


def test_answers_of_a_checkpoint_that_was_made_again_are_asked_again(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(inputs(Method.full)["checkpoint"], tmp_path / "tune"))
    given = {**inputs(Method.full), "checkpoint": checkpoint}
    stage = generate_stage(tmp_path / "stage", Method.full, given)
    before = run_whole(stage)
    tuned(Method.full, checkpoint, seed=11)

    again = stage.context()
    run(again)

    assert read_json(again.attempt.path / "generation.json")["answers"] == 22
    assert answers(again) != before


def test_a_missing_picture_is_named_with_its_question(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    questions = Path(shutil.copytree(inputs(Method.full)["data:test"], tmp_path / "questions"))
    (questions / "images" / "000007.png").unlink()
    stage = generate_stage(
        tmp_path / "stage", Method.full, {**inputs(Method.full), "data:test": questions}
    )

    with pytest.raises(DataError, match=r"question 7: picture .*000007\.png is missing"):
        run(stage.context())


def test_a_file_that_mixes_pictures_and_text_is_refused(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    questions = Path(shutil.copytree(inputs(Method.full)["data:test"], tmp_path / "questions"))
    first, *others = rows(questions / "vqa.jsonl")
    del first["image"]
    lines = "".join(json.dumps(row) + "\n" for row in [first, *others])
    (questions / "vqa.jsonl").write_text(lines, encoding="utf-8")
    stage = generate_stage(
        tmp_path / "stage", Method.full, {**inputs(Method.full), "data:test": questions}
    )
    stage.micro_batch_size = 12

    with pytest.raises(DataError, match="pictures and text-only questions are mixed"):
        run(stage.context())


def test_an_unknown_benchmark_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    unknown = BenchmarkSpec(name="quiz", dataset="test", file="quiz.json")
    inputs = {"data:test": make_questions(tmp_path / "questions")}

    with pytest.raises(StageError, match=r"quiz: no such benchmark; known are mini_vqa"):
        run(generate_stage(tmp_path, Method.full, inputs, benchmarks=[VQA, unknown]).context())


def test_only_the_first_rank_answers(tmp_path: Path) -> None:
    context = generate_stage(tmp_path, Method.full, {}).context(rank=1)

    run(context)

    assert list(context.attempt.path.iterdir()) == []
