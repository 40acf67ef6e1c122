"""A published checkpoint answers all questions, once each, without the trainer."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from scalesweep import stages
from scalesweep.cost_model.token_cache import kept_statistics
from scalesweep.cost_model.token_statistics import questions_key
from scalesweep.errors import DataError, Interrupted, StageError
from scalesweep.evaluate import generate_stage as generate_stage_module
from scalesweep.evaluate.generate_stage import run
from scalesweep.evaluate.generation import generate_tokens
from scalesweep.models.replica import Replica
from scalesweep.rundir import output_files, read_json
from scalesweep.specs import BenchmarkSpec, Method, Precision
from scalesweep.stages import StageContext
from tests.evaluate.small_stages import (
    VQA,
    SmallStage,
    answers,
    asked_in,
    generate_stage,
    make_questions,
    rows,
    run_alone,
)
from tests.models.checkpoints import tuned
from tests.models.ranks import Ranks
from tests.train.small_stages import model_spec

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


def given_in(context: StageContext) -> list[dict[str, Any]]:
    """Answers that this attempt wrote down."""
    logs = context.attempt.path.glob("answered-*.jsonl")
    return [row for log in logs for row in rows(log) if "question_id" in row]


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
    assert [row["question_id"] for row in published] == list(range(12))
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
    stopped = stage.context()
    looks = itertools.count(1)

    def in_the_middle_of_the_third_batch() -> bool:
        return asked_in(stopped) == 8 and next(looks) == 3

    with pytest.raises(Interrupted, match="stopped after 8 of 22 answers"):
        run(replace(stopped, stop_requested=in_the_middle_of_the_third_batch))
    again = stage.context()
    run(again)

    assert answers(again) == whole
    assert asked_in(again) == 14
    work = again.attempt.work_done()
    assert work is not None
    # The longest were asked first: all 12 that show a picture are not yet answered but for 8.
    assert (work.units, work.pictures) == (14, 4)
    assert work.generated == sum(row["num_tokens"] for row in given_in(again))
    assert work.tokens > 14 + 16 * work.pictures
    assert stopped.attempt.work_done() is None
    kept = kept_statistics(again.store.cache, questions_key(again.spec))
    assert kept is not None
    assert (kept.num_samples, kept.pictures) == (22, 12)
    assert kept.supervised > work.generated
    assert kept.text_tokens + 16 * 12 > work.tokens
    assert read_json(again.attempt.path / "generation.json")["all"]["answers"] == 22


@pytest.mark.slow
def test_a_killed_process_answers_no_question_twice_and_never_sees_the_trainer(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    whole = generate_stage(tmp_path / "whole", Method.lora, inputs(Method.lora)).context()
    run(whole)
    stage = generate_stage(tmp_path / "killed", Method.lora, inputs(Method.lora))

    killed, _ = run_alone(stage.context(), killed_after=14)  # in the second benchmark
    again = stage.context()
    code, modules = run_alone(again)

    assert (killed, code) == (-9, 0)
    assert "scalesweep.evaluate.generate_stage" in modules
    assert not {"deepspeed", "scalesweep.train", "scalesweep.train.stage"} & set(modules)
    assert asked_in(again) == 22 - 12 - 4
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

    assert asked_in(again) == 22
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


def test_a_file_may_mix_questions_with_and_without_a_picture(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    given = inputs(Method.full)
    questions = Path(shutil.copytree(given["data:test"], tmp_path / "questions"))
    asked = rows(questions / "vqa.jsonl")
    for row in asked[::2]:
        del row["image"]
    (questions / "vqa.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in asked), "utf-8")
    blind = [{**row, "question_id": n} for n, row in enumerate(asked[::2])]
    (questions / "text.jsonl").write_text(
        "".join(f"{json.dumps(row)}\n" for row in blind), encoding="utf-8"
    )

    with_pictures = run_whole(generate_stage(tmp_path / "pictures", Method.full, given))
    said = run_whole(
        generate_stage(tmp_path / "mixed", Method.full, {**given, "data:test": questions})
    )

    assert said["mini_vqa"][1::2] == with_pictures["mini_vqa"][1::2]
    assert said["mini_vqa"][::2] == said["mini_text"]


def test_an_unknown_benchmark_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    unknown = BenchmarkSpec(name="quiz", dataset="test", file="quiz.json")
    inputs = {"data:test": make_questions(tmp_path / "questions")}

    with pytest.raises(StageError, match=r"quiz: no such benchmark; known are mini_vqa"):
        run(generate_stage(tmp_path, Method.full, inputs, benchmarks=[VQA, unknown]).context())


def run_ranks(stage: SmallStage, count: int) -> StageContext:
    """All ranks of one attempt, rank zero last, which would wait for the others."""
    context = stage.context(world_size=count)
    for rank in reversed(range(count)):
        run(replace(context, rank=rank))
    return context


def test_the_same_bytes_come_from_one_rank_and_from_several(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    contexts = [
        run_ranks(generate_stage(tmp_path / str(count), Method.full, inputs(Method.full)), count)
        for count in (1, 2, 3)
    ]

    published = [output_files(context.attempt.output) for context in contexts]
    assert published[0] == published[1] == published[2]
    shares = [
        len(rows(log)) - 1 for log in sorted(contexts[2].attempt.path.glob("answered-*.jsonl"))
    ]
    assert shares == [8, 7, 7]
    times = read_json(contexts[2].attempt.path / "generation.json")
    assert (times["num_replicas"], times["devices_per_replica"]) == (3, 1)
    assert times["benchmarks"]["mini_vqa"]["answers"] == 12


def test_rank_zero_waits_for_the_others_until_it_is_stopped(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    stage = generate_stage(tmp_path, Method.full, inputs(Method.full))
    context = stage.context(world_size=2)
    looks = itertools.count()

    def after_own_share_and_some_waiting() -> bool:
        return asked_in(context) == 11 and next(looks) > 3

    with pytest.raises(Interrupted, match="stopped after 11 of 22 answers"):
        run(replace(context, stop_requested=after_own_share_and_some_waiting))


def test_an_attempt_on_other_ranks_asks_only_what_is_left(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    whole = run_whole(generate_stage(tmp_path / "whole", Method.full, inputs(Method.full)))
    stage = generate_stage(tmp_path / "ranks", Method.full, inputs(Method.full))
    first = stage.context(world_size=3)
    for rank in (1, 2):  # rank zero died before its first answer
        run(replace(first, rank=rank))
    stage.micro_batch_size = 3

    again = run_ranks(stage, 2)

    assert (asked_in(first), asked_in(again)) == (14, 8)
    assert answers(again) == whole


def test_what_no_rank_took_is_answered_by_rank_zero(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    """Rank 1 saw answers of an attempt that rank zero did not see: both took less than all."""
    stage = generate_stage(tmp_path, Method.full, inputs(Method.full))
    context = stage.context(world_size=2)
    run(replace(context, rank=1))
    (log,) = context.attempt.path.glob("answered-*.jsonl")
    *kept, finished = log.read_text("utf-8").splitlines(keepends=True)
    log.write_text("".join([*kept[:-3], finished]), "utf-8")

    run(context)

    assert asked_in(context) == 22
    assert sum(map(len, answers(context).values())) == 22


def test_an_answer_ends_before_a_stop_string(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    free = run_whole(generate_stage(tmp_path / "free", Method.full, inputs(Method.full)))
    number, second = next((n, t) for n, t in enumerate(free["mini_vqa"]) if len(t.split()) > 1)
    word = second.split()[1]
    context = generate_stage(
        tmp_path / "stopped", Method.full, inputs(Method.full), stop_strings=[f" {word}"]
    ).context()

    run(context)

    for name, said in answers(context).items():
        assert said == [text.split(f" {word}")[0].strip() for text in free[name]]
    row = rows(context.attempt.output / "answers" / "mini_vqa.jsonl")[number]
    assert row["num_tokens"] == 2  # the second one is where it ended


def test_memory_that_runs_out_halves_the_batch(
    inputs: Callable[[Method], Inputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def small_device(*args: Any, **kwargs: Any) -> list[list[int]]:
        sizes.append(len(args[2]))
        if len(args[2]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate_tokens(*args, **kwargs)

    whole = run_whole(generate_stage(tmp_path / "whole", Method.full, inputs(Method.full)))
    monkeypatch.setattr(generate_stage_module, "generate_tokens", small_device)
    stage = generate_stage(tmp_path / "small", Method.full, inputs(Method.full))
    stage.micro_batch_size = 12

    said = run_whole(stage)

    assert said == whole
    assert sizes == [12, 6, 3, 3, 3, 3, 3, 3, 3, 1]


def test_a_question_too_large_for_the_device_alone_is_named(
    inputs: Callable[[Method], Inputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: Any, **__: Any) -> list[list[int]]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generate_stage_module, "generate_tokens", no_memory)

    with pytest.raises(StageError, match=r"mini_vqa, question \d+: does not fit .* even alone"):
        run(generate_stage(tmp_path, Method.full, inputs(Method.full)).context())


def test_nothing_is_loaded_when_all_is_answered(
    inputs: Callable[[Method], Inputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = generate_stage(tmp_path, Method.full, inputs(Method.full))
    before = run_whole(stage)
    monkeypatch.setattr(generate_stage_module, "load_checkpoint", None)

    assert run_whole(stage) == before


def test_a_prompt_longer_than_the_context_is_named_before_anything_is_loaded(
    inputs: Callable[[Method], Inputs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_stage_module, "load_checkpoint", None)
    stage = generate_stage(
        tmp_path,
        Method.full,
        inputs(Method.full),
        model=model_spec(max_position_embeddings=20),
    )

    with pytest.raises(DataError, match=r"mini_vqa, question 0: \d+ tokens .* reads 20 "):
        run(stage.context())


def test_a_picture_for_a_model_that_sees_none_is_named(tmp_path: Path) -> None:
    questions = {"data:test": make_questions(tmp_path / "questions")}

    with pytest.raises(DataError, match=r"mini_vqa, question 0: has a picture, which mini_xs"):
        run(generate_stage(tmp_path, None, questions, benchmarks=[VQA]).context())


def test_answering_in_bf16_answers_every_question(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    stage = generate_stage(
        tmp_path, Method.full, inputs(Method.full), precision=Precision.bf16, max_new_tokens=2
    )

    said = run_whole(stage)

    assert [len(texts) for texts in said.values()] == [10, 12]


def answer_as_rank(
    replica: Replica, stage: SmallStage, number: int, replica_index: int, stop_at: int | None
) -> str:
    """Work of one rank; how it ended."""
    context = stage.attempted(number, world_size=4)
    rank = 2 * replica_index + replica.rank

    def stop() -> bool:
        """One rank of four hears it."""
        return stop_at is not None and rank == 1 and asked_in(context) >= stop_at

    try:
        run(replace(context, rank=rank, stop_requested=stop))
    except Interrupted as error:
        return str(error)
    return "done"


def run_split(stage: SmallStage, *, stop_at: int | None = None) -> tuple[StageContext, list[str]]:
    """Two replicas of two ranks each, in four processes."""
    stage.devices_per_replica = 2
    context = stage.context(world_size=4)
    replicas = [Ranks(context.attempt.path / f"ranks-{index}") for index in range(2)]
    for index, ranks in enumerate(replicas):
        ranks.folder.mkdir()
        ranks.start(answer_as_rank, 2, stage, context.attempt.number, index, stop_at)
    return context, [said for ranks in replicas for said in ranks.found()]


def test_a_model_split_over_two_ranks_gives_the_same_bytes_and_stops_as_one(
    inputs: Callable[[Method], Inputs], tmp_path: Path
) -> None:
    whole = generate_stage(tmp_path / "whole", Method.lora, inputs(Method.lora)).context()
    run(whole)
    stage = generate_stage(tmp_path / "split", Method.lora, inputs(Method.lora))
    stage.micro_batch_size = 2

    stopped, ended = run_split(stage, stop_at=7)
    again, done = run_split(stage)

    assert [text.startswith("stopped after") for text in ended[:2]] == [True, True]
    assert ended[2:] == ["done", "done"]  # a replica of its own; the launcher tells all of them
    assert done == ["done"] * 4
    assert asked_in(stopped) + asked_in(again) == 22
    assert output_files(again.attempt.output) == output_files(whole.attempt.output)
    times = read_json(again.attempt.path / "generation.json")
    assert (times["num_replicas"], times["devices_per_replica"]) == (2, 2)
