"""500 answers, a fifth of all calls failing, killed in the middle: the scores are the same."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scalesweep import stages
from scalesweep.errors import StageError
from scalesweep.evaluate.benchmarks.registry import benchmark
from scalesweep.evaluate.judge_stage import read_answers
from scalesweep.evaluate.judging.account import JudgingFile
from scalesweep.evaluate.judging.price import Price
from scalesweep.evaluate.judging.store import Asked, ReplyStore, StoredReply
from scalesweep.rundir import read_json
from scalesweep.stages import StageContext
from tests.evaluate.judging.panels import MODEL, settings
from tests.evaluate.judging.stages import judged, make_bench, output_bytes, started_alone
from tests.fakes.judge_server import RETRIED, JudgeServer, letter_verdict

COUNT = 500
CONCURRENT = 16


def same_whenever(request: Mapping[str, Any], times: int) -> str:
    """A judge that says the same each time, so that lost replies change no score."""
    del times
    return letter_verdict(request, 0)


def bodies(requests: list[dict[str, Any]]) -> Counter[str]:
    return Counter(json.dumps(request, sort_keys=True) for request in requests)


def as_sent(asked: Mapping[str, Any]) -> str:
    """A stored request as the server counts it."""
    fields = ("model", "messages", "temperature", "max_tokens")
    return json.dumps({name: asked[name] for name in fields}, sort_keys=True)


def said_at_once(context: StageContext) -> None:
    """Fill the store with what the judge says to each request of the stage."""
    rules = benchmark("llava_bench", context.inputs["data:bench"], "questions.jsonl", {})
    answers = read_answers(context.inputs["answers"] / "answers" / "llava_bench.jsonl")
    store = ReplyStore(context.store.judge_replies)
    for item in rules.judge_items(answers):
        asked = Asked(model=MODEL, request=item.request, source="test")
        request = {"model": MODEL, **item.request.to_json()}
        reply = StoredReply(
            asked=asked.to_json(), text=same_whenever(request, 0), finish_reason="stop",
            input_tokens=1, output_tokens=1, answered_by=None, endpoint="none", at="",
        )  # fmt: skip
        store.add(asked, reply)


@pytest.mark.slow  # 600 calls, and two processes that start
def test_faults_and_a_kill_lose_nothing_repeat_nothing_and_change_no_byte(tmp_path: Path) -> None:
    make_bench(tmp_path / "bench", COUNT)
    rough = tmp_path / "rough"
    replies = ReplyStore(rough / "store" / "judge_replies")
    with JudgeServer(verdict=same_whenever, fault_rate=0.2, seed=5, slow_s=0.1) as server:
        changes = {"max_concurrent": CONCURRENT, "timeout_s": 1.0}
        victim = started_alone(rough, tmp_path / "bench", server.url, **changes)
        while len(server.requests) < COUNT // 2 and victim.poll() is None:
            time.sleep(0.01)
        victim.kill()
        victim.communicate()
        assert victim.returncode == -9
        time.sleep(0.2)  # until the server has seen what was sent before
        before = len(server.requests)
        stored = bodies([]) + Counter(as_sent(reply.asked) for reply in replies.all())
        answered = Counter(server.answered)

        again = started_alone(rough, tmp_path / "bench", server.url, **changes)
        said, _ = again.communicate(timeout=120)
        assert again.returncode == 0, said

    last = judged(rough, tmp_path / "bench", server.url).stage.attempt(2)
    # Nothing lost: every reply is stored, once, and every kind of fault happened.
    kept = Counter(as_sent(reply.asked) for reply in replies.all())
    assert len(kept) == COUNT
    assert set(kept.values()) == {1}
    assert set(RETRIED) <= set(server.did)
    faults = sum(server.did[what] for what in RETRIED if what != "slow")
    assert 0.12 * len(server.requests) < faults < 0.25 * len(server.requests)
    # Nothing repeated: what was stored at the kill was not asked again; of what was answered, only
    # replies that were under way at the kill came twice.
    later = bodies(server.requests[before:])
    assert 100 < len(stored) < COUNT
    assert not set(later) & set(stored)
    assert len([body for body in answered if body in later]) <= CONCURRENT
    # Nothing changed: what a judge that never fails would have said gives the same bytes.
    calm = judged(tmp_path / "calm", tmp_path / "bench", "http://127.0.0.1:9/v1")
    said_at_once(calm)
    stages.run(calm)
    assert output_bytes(calm.attempt) == output_bytes(last)
    account = read_json(last.path / "judging.json")["benchmarks"]["llava_bench"]
    assert account["stored_before"] == len(stored)
    assert account["metered"]["replies"] == COUNT - len(stored)


def test_output_depends_on_no_timing_no_retry_and_nothing_that_was_stored(tmp_path: Path) -> None:
    make_bench(tmp_path / "bench", 30)
    with JudgeServer(fault_rate=0.4, seed=2, slow_s=0.05) as server:
        first = judged(tmp_path / "a", tmp_path / "bench", server.url, runs=2)
        stages.run(first)
        second = judged(tmp_path / "a", tmp_path / "bench", server.url, runs=2)
        asked = len(server.requests)
        stages.run(second)

    assert len(server.requests) == asked  # judged again for nothing
    assert output_bytes(second.attempt) == output_bytes(first.attempt)
    files = list(output_bytes(first.attempt))
    assert "scores.json" in files
    assert sum(name.startswith("reviews/") for name in files) == 2
    metered = read_json(first.attempt.path / "judging.json")["benchmarks"]["llava_bench"]["metered"]
    free = read_json(second.attempt.path / "judging.json")
    assert metered["usd"] > 0
    assert sum(metered["retries"].values()) > 0
    assert (free["usd"], free["estimate_usd"]) == (0.0, 0.0)
    assert free["benchmarks"]["llava_bench"]["stored_before"] == 60


def test_filtered_answers_are_missing_in_the_scores_never_0(tmp_path: Path) -> None:
    make_bench(tmp_path / "bench", 12)
    script = {"What is <0>?": ("filter",), "What is <1>?": ("filtered-reply",)}
    with JudgeServer(verdict=lambda *_: "8 4", script=script) as server:
        context = judged(tmp_path / "a", tmp_path / "bench", server.url)
        stages.run(context)

    score = read_json(context.attempt.output / "scores.json")["benchmarks"]["llava_bench"]
    assert (score["official"], score["num_missing"], score["num_questions"]) == (50.0, 2, 12)
    items = [
        json.loads(line)["value"]
        for line in (context.attempt.output / "items" / "llava_bench.jsonl").read_text().split("\n")
        if line
    ]
    assert items[:2] == [None, None]
    assert items[2:] == pytest.approx([0.5] * 10)
    missing = read_json(context.attempt.path / "judging.json")["benchmarks"]["llava_bench"][
        "missing"
    ]
    assert missing == {
        "400 content filter: content policy": 1,
        "the endpoint's filter cut the reply off": 1,
    }


def test_a_judge_run_without_any_reply_is_said_beside_the_score(tmp_path: Path) -> None:
    make_bench(tmp_path / "bench", 6)
    with JudgeServer(script={"What is": ("ok", "filter")}) as server:
        context = judged(tmp_path / "a", tmp_path / "bench", server.url, runs=2, max_concurrent=1)
        stages.run(context)

    score = read_json(context.attempt.output / "scores.json")["benchmarks"]["llava_bench"]
    assert score["notes"][-1] == "1 of 2 judge runs has no reply"
    assert score["official"] is not None


@pytest.mark.slow  # four processes that start
def test_the_limit_holds_over_attempts_that_were_killed(tmp_path: Path) -> None:
    make_bench(tmp_path / "bench", 300)
    limit = 3.0
    price = Price(**settings("")["prices"][MODEL])
    replies = ReplyStore(tmp_path / "a" / "store" / "judge_replies")
    with JudgeServer(delay_s=0.05) as server:
        for kill_after in (8, 12, 16, None):
            before = len(server.requests)
            victim = started_alone(
                tmp_path / "a", tmp_path / "bench", server.url, max_usd=limit, max_concurrent=4
            )
            while kill_after and len(server.requests) - before < kill_after:
                assert victim.poll() is None, victim.communicate()[0]
                time.sleep(0.005)
            if kill_after:
                victim.kill()
            victim.communicate(timeout=60)
            files = (tmp_path / "a" / "store").rglob("judging.json")
            said = sum(JudgingFile(file.parent).most_usd() for file in files)
            paid = sum(
                price.of(reply.input_tokens or 0, reply.output_tokens or 0)
                for reply in replies.all()
            )
            assert 0 < paid <= said <= limit
    assert 24 < len(list(replies.all())) < 300


def test_the_limit_holds_over_all_attempts_of_a_stage(tmp_path: Path) -> None:
    make_bench(tmp_path / "bench", 20)
    with JudgeServer() as server:
        limit = {"max_usd": 0.20, "max_concurrent": 1}
        paid = []
        for _ in range(3):
            context = judged(tmp_path / "a", tmp_path / "bench", server.url, **limit)
            with pytest.raises(StageError, match=r"judge\.max_usd=0\.2"):
                stages.run(context)
            paid.append(read_json(context.attempt.path / "judging.json")["usd"])

    assert 0.05 < sum(paid) <= 0.20
    assert paid[1] == paid[2] == 0.0
    assert 5 < len(server.requests) < 20


def test_a_stage_tells_how_far_it_is_and_what_stopped_it(tmp_path: Path) -> None:
    make_bench(tmp_path / "bench", 10)
    with JudgeServer(script={"What is <9>?": ("503",) * 99}) as server:
        context = judged(tmp_path / "a", tmp_path / "bench", server.url, patience_s=0.4)
        with pytest.raises(StageError, match=r"9 of 10 replies are stored \(9 in run 1 is"):
            stages.run(context)

    rows = list(context.attempt.metric_rows())
    assert (rows[-1]["progress/done"], rows[-1]["progress/total"]) == (9, 10)
    assert rows[-1]["progress/unit"] == "reply"
    assert not (context.attempt.output / "scores.json").exists()


def test_a_rule_that_needs_a_judge_is_not_scored_without_one(tmp_path: Path) -> None:
    make_bench(tmp_path / "bench", 2)
    context = judged(tmp_path / "a", tmp_path / "bench", "http://x", spec={"scorer": "exact_match"})

    with pytest.raises(StageError, match="asks no judge, and this rule needs one; take judge=gpt4"):
        stages.run(context)
