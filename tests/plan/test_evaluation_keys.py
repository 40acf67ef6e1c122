"""Answers are given anew only where a question, or how it is asked, is another one."""

from __future__ import annotations

import pytest

from scalesweep.plan.build import CellRequest, build_plan
from tests.config.composing import cell

BASE = ("model=33b", "evaluation=paper")


def refs(*words: str) -> dict[str, str]:
    plan = build_plan([CellRequest(point={}, config=cell(*BASE, *words))], study="s")
    return {role: str(ref) for role, ref in plan.cells[0].stages.items()}


def changed(before: tuple[str, ...], after: tuple[str, ...]) -> set[str]:
    old, new = refs(*before), refs(*after)
    return {role for role in old if old[role] != new[role]}


JUDGE_ALONE = {"judge"}
BOTH_JUDGES = {"judge", "judge_base"}


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("llava_bench.unparsable=exclude", JUDGE_ALONE),
        ("llava_bench.parsing=lmms_eval", JUDGE_ALONE),
        ("mm_vet.unparsable=exclude", JUDGE_ALONE),
        ("mmbench.extraction=first_release", JUDGE_ALONE),
        ("mmbench.extractor=judge", JUDGE_ALONE),
        ("vicuna80.math=last_line", BOTH_JUDGES),
        ("mmbench.prompt=vlmevalkit", {"generate", "judge"}),
        ("mmlu.shots=0", {"generate", "generate_base", "judge", "judge_base"}),
    ],
)
def test_what_only_a_judge_reads_changes_no_answer(option: str, expected: set[str]) -> None:
    assert changed((), (f"+evaluation.options.{option}",)) == expected


def test_letters_are_compared_once_whatever_the_beams() -> None:
    mmlu = "evaluation=mmlu"

    assert (
        changed((mmlu,), (mmlu, "evaluation.num_beams=5", "evaluation.max_new_tokens=9")) == set()
    )
    assert changed((), ("evaluation.num_beams=5",)) >= {"generate", "judge"}


def test_the_order_of_stop_strings_is_none() -> None:
    assert changed(("evaluation.stop_strings=[a,b]",), ("evaluation.stop_strings=[b,a]",)) == set()


def test_a_model_that_is_asked_nothing_changes_no_score() -> None:
    vet = "evaluation=mm_vet"

    assert changed((vet,), (vet, "judge.model=other")) == set()
    assert changed((vet,), (vet, "judge.models.mm_vet=other")) == {"judge"}
    assert (
        changed((vet, "+judge.runs.mm_vet=5"), (vet, "+judge.runs.mm_vet=5", "judge.num_runs=1"))
        == set()
    )
