"""Times by hand: two batches, one of three answers in 6 s, one of one answer in 1 s."""

from __future__ import annotations

from scalesweep.evaluate.answer_log import Answered
from scalesweep.evaluate.answering_time import answering_time
from scalesweep.evaluate.questions import Answer


def batch(seconds: float, *tokens: int) -> list[Answered]:
    return [
        Answered(
            benchmark="b",
            answer=Answer(question_id=str(n), text="", num_tokens=count),
            batch_seconds=seconds,
            batch_size=len(tokens),
        )
        for n, count in enumerate(tokens)
    ]


def test_seconds_count_each_batch_once_and_latency_each_answer() -> None:
    assert answering_time(batch(6.0, 10, 20, 5) + batch(1.0, 7)) == {
        "answers": 4,
        "tokens": 42,
        "seconds": 7.0,
        "seconds_per_answer": 1.75,
        "latency_s": 4.75,  # (6 + 6 + 6 + 1) / 4
        "latency_p90_s": 6.0,
        "tokens_per_second": 6.0,
    }


def test_nine_of_ten_answers_came_within_the_90th_percentile() -> None:
    each = [one for second in range(1, 11) for one in batch(float(second), 1)]

    assert answering_time(each)["latency_p90_s"] == 9.0
    assert answering_time(each[:1])["latency_p90_s"] == 1.0


def test_letters_generate_nothing_and_no_answers_take_no_time() -> None:
    assert answering_time(batch(2.0, 0, 0))["tokens_per_second"] is None
    assert answering_time([]) == {
        "answers": 0,
        "tokens": 0,
        "seconds": 0,
        "seconds_per_answer": None,
        "latency_s": None,
        "latency_p90_s": None,
        "tokens_per_second": None,
    }
