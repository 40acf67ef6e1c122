"""A judge is asked about all items in all runs, once; what fails is missing with its cause."""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scalesweep.errors import Interrupted, StageError, StoreError
from scalesweep.evaluate.judging.ask import GRACE_S
from scalesweep.evaluate.judging.items import Reply, Request
from scalesweep.evaluate.judging.price import Price, most_usd, price_of
from scalesweep.judge_command import composed_judge
from tests.evaluate.judging.panels import MODEL, item, items, panel, request, texts
from tests.fakes.judge_server import JudgeServer


def test_every_item_is_asked_in_every_run_and_runs_really_differ(tmp_path: Path) -> None:
    with JudgeServer() as server:
        replies = panel(tmp_path, server, runs=3).ask(items(4))

    assert len(server.requests) == 12
    assert [list(run) for run in replies] == [[f"<{n}>" for n in range(4)]] * 3
    assert all(reply.valid for run in replies for reply in run.values())
    for name in replies[0]:
        assert len({run[name].text for run in replies}) == 3


def test_what_is_stored_is_never_asked_again_nor_needs_a_key_or_a_server(tmp_path: Path) -> None:
    with JudgeServer() as server:
        first = panel(tmp_path, server, runs=2).ask(items(3))

    gone = panel(tmp_path, "https://gone.example/v1", runs=2)
    assert gone.ask(items(3)) == first
    with JudgeServer() as server:
        more = panel(tmp_path, server, runs=3).ask(items(5))
    assert len(server.requests) == 3 * 5 - 2 * 3
    assert [dict(list(run.items())[:3]) for run in more[:2]] == first


def test_the_judges_temperature_goes_before_the_rules(tmp_path: Path) -> None:
    with JudgeServer() as server:
        panel(tmp_path, server, temperature=0.7).ask(items(1))

    assert server.requests[0]["temperature"] == 0.7


def hotter(first: Request, reask: int) -> Request | None:
    """As MM-Vet asks again: a line more, hotter by 0.5 each time, twice at most."""
    if reask > 2:
        return None
    messages = (*first.messages[:-1], ("user", first.messages[-1][1] + "\nDigit: "))
    return dataclasses.replace(
        first, messages=messages, temperature=first.temperature + 0.5 * reask
    )


def test_an_invalid_reply_is_asked_again_by_the_rule_and_each_try_is_stored(
    tmp_path: Path,
) -> None:
    asked = [item("A", asked_again=hotter), item("B", asked_again=hotter)]
    script = {"answer A\nDigit": ("ok",), "answer A": ("invalid",)}
    with JudgeServer(script=script) as server:
        (replies,) = panel(tmp_path, server).ask(asked)
        count = len(server.requests)
        assert panel(tmp_path, server).ask(asked) == [replies]
        assert len(server.requests) == count == 3

    assert [(r["temperature"], r["messages"][-1]["content"]) for r in server.requests
            if "A" in r["messages"][-1]["content"]] == [
        (0.2, "answer A"),
        (0.7, "answer A\nDigit: "),
    ]  # fmt: skip
    assert (replies["A"].valid, replies["A"].reasks) == (True, 1)
    assert (replies["B"].valid, replies["B"].reasks) == (True, 0)


def test_after_the_last_reask_it_is_invalid_with_its_last_reply_and_not_asked_again(
    tmp_path: Path,
) -> None:
    asked = [item("A", asked_again=hotter), item("B")]
    with JudgeServer(everybody=("invalid",)) as server:
        (replies,) = panel(tmp_path, server).ask(asked)
        assert panel(tmp_path, server).ask(asked) == [replies]

    assert len(server.requests) == 3 + 1
    words = "I would rather not say."
    assert replies["A"] == Reply(text=words, valid=False, reasks=2, cause="no verdict in 3 replies")
    assert replies["B"] == Reply(text=words, valid=False, cause="no verdict")


def test_filtered_items_are_missing_with_their_cause_and_not_asked_again(tmp_path: Path) -> None:
    script = {"<1>": ("filter",), "<2>": ("filtered-reply",)}
    with JudgeServer(script=script) as server:
        (replies,) = panel(tmp_path, server).ask(items(4))
        count = len(server.requests)
        assert panel(tmp_path, server).ask(items(4)) == [replies]
        assert len(server.requests) == count == 4

    assert (replies["<1>"].text, replies["<2>"].text) == (None, None)
    assert replies["<1>"].cause == "400 content filter: content policy"
    assert replies["<2>"].cause == "the endpoint's filter cut the reply off"
    assert replies["<0>"].valid
    assert replies["<3>"].valid


def test_a_bad_request_is_missing_now_and_asked_again_another_time(tmp_path: Path) -> None:
    with JudgeServer(script={"<1>": ("too-long",)}) as server:
        (replies,) = panel(tmp_path, server).ask(items(5))
        (again,) = panel(tmp_path, server).ask(items(5))

    assert replies["<1>"].text is None
    assert replies["<1>"].cause == "400 bad request: too long"
    assert again["<1>"].valid


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("quota", "429 quota: no money: the account has no credit left"),
        ("401", "401 authentication: the endpoint does not take the key in JUDGE_KEY_OF_TESTS"),
        ("403", "403 permission: not allowed.*may not use this model"),
        ("404", "404 unknown model: no such model.*judge calibrate"),
        ("unsupported", "400 unsupported request: no max_tokens.*choose another judge"),
        ("redirect", "307 redirect: the address moved"),
        ("405", r"405 wrong address: nope.*correct judge\.base_url"),
        ("407", "407 proxy: nope: the proxy wants a user"),
        ("451", "451 not available here: nope: the endpoint may not reply here by law"),
        ("too-long", r"takes none of the \d+ requests it was sent"),
        ("429-long", r"asks to wait 86400 s \(last: 429 rate limit: slow down\)"),
    ],
)
def test_what_no_patience_mends_ends_the_stage_at_once(
    tmp_path: Path, what: str, message: str
) -> None:
    begin = time.monotonic()
    with JudgeServer(everybody=(what,)) as server, pytest.raises(StageError, match=message):
        panel(tmp_path, server).ask(items(30))

    assert len(server.requests) < 30
    assert time.monotonic() - begin < GRACE_S


@pytest.mark.parametrize(("good", "wanted"), [(1, 60), (40, 60)])
def test_an_endpoint_that_takes_no_request_any_more_ends_the_stage_and_replies_are_kept(
    tmp_path: Path, good: int, wanted: int
) -> None:
    script = ("ok",) * good + ("413",)
    with (
        JudgeServer(everybody=script) as server,
        pytest.raises(StageError, match=r"takes none of the last 10 requests .*413 bad request"),
    ):
        panel(tmp_path, server, max_concurrent=2).ask(items(wanted))

    # A refusal may come before the reply that was asked for with it.
    assert good + 10 <= len(server.requests) <= good + 12
    assert len(list(panel(tmp_path, server).replies.all())) == good


def test_more_than_a_fifth_of_a_run_lost_to_bad_requests_is_no_score_but_filtered_ones_are(
    tmp_path: Path,
) -> None:
    def lost(store: str, what: str, count: int) -> None:
        script = {f"<{number}>": (what,) for number in range(count)}
        with JudgeServer(script=script) as server:
            panel(tmp_path / store, server).ask(items(10))

    lost("two", "too-long", 2)
    lost("filtered", "filter", 5)
    with pytest.raises(StageError, match=r"takes 3 of 10 requests of run 1 not, more than 20%"):
        lost("three", "too-long", 3)
    assert len(list(panel(tmp_path / "three", "http://127.0.0.1:9").replies.all())) == 7


def test_an_answer_that_cannot_be_sent_is_missing_with_its_cause_at_once(tmp_path: Path) -> None:
    broken = item("broken", request=request("half a pair: \ud83d"))
    begin = time.monotonic()
    with JudgeServer() as server:
        (replies,) = panel(tmp_path, server).ask([*items(5), broken])

    assert time.monotonic() - begin < 5
    assert replies["broken"].text is None
    assert replies["broken"].cause.startswith("bad request, UnicodeEncodeError")
    assert len(server.requests) == 5


def test_two_processes_walk_through_the_items_in_orders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = []
    for pid in (1, 2):
        monkeypatch.setattr("scalesweep.evaluate.judging.ask.os.getpid", lambda pid=pid: pid)
        with JudgeServer() as server:
            panel(tmp_path / str(pid), server, max_concurrent=1).ask(items(20))
        orders.append([sent["messages"][-1]["content"] for sent in server.requests])

    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_silence_beyond_patience_ends_the_stage_and_says_what_is_stored(tmp_path: Path) -> None:
    with (
        JudgeServer(script={"<3>": ("503",) * 1000}) as server,
        pytest.raises(StageError) as error,
    ):
        panel(tmp_path, server, runs=2, patience_s=0.5).ask(items(5))

    words = str(error.value)
    assert f"the judge {MODEL} at 127.0.0.1:{server.port} has replied nothing for" in words
    assert "(last: 503 server error: broke" in words
    assert "8 of 10 replies are stored (<3> in run 1 is the first without one)" in words
    assert "the same line goes on with the rest (judge.patience_s=0.5" in words
    with JudgeServer() as server:
        assert all(r.valid for run in panel(tmp_path, server, runs=2).ask(items(5))
                   for r in run.values())  # fmt: skip
    assert len(server.requests) == 2


def test_a_429_slows_all_calls_until_the_endpoint_wants_more(tmp_path: Path) -> None:
    with JudgeServer(everybody=("429", "ok"), retry_after_s=0.6) as server:
        panel(tmp_path, server, max_concurrent=1).ask(items(5))

    assert server.at[1] - server.at[0] >= 0.6
    assert server.at[-1] - server.at[1] < 0.6  # and only once


def test_no_more_calls_are_under_way_than_are_allowed(tmp_path: Path) -> None:
    with JudgeServer(delay_s=0.05) as server:
        panel(tmp_path, server, max_concurrent=5).ask(items(25))

    assert server.most_at_once == 5


def test_a_stop_is_heard_at_once_and_replies_under_way_are_kept(tmp_path: Path) -> None:
    stop = threading.Event()
    with JudgeServer(delay_s=0.4) as server:
        timer = threading.Timer(0.2, stop.set)
        timer.start()
        begin = time.monotonic()
        with pytest.raises(Interrupted, match="asked to stop; 4 of 40 replies are stored"):
            panel(tmp_path, server, max_concurrent=4, stop_requested=stop.is_set).ask(items(40))

    assert time.monotonic() - begin < GRACE_S
    assert len(server.requests) == 4
    with JudgeServer() as server:
        panel(tmp_path, server).ask(items(40))
    assert len(server.requests) == 36


def test_a_stop_does_not_wait_for_a_reply_that_does_not_come(tmp_path: Path) -> None:
    with JudgeServer(everybody=("time-out",)) as server:
        begin = time.monotonic()
        with pytest.raises(Interrupted):
            panel(tmp_path, server, timeout_s=60.0, stop_requested=lambda: True).ask(items(3))

    assert time.monotonic() - begin < GRACE_S + 1.5


def test_two_items_with_one_request_share_its_reply_and_pay_once(tmp_path: Path) -> None:
    twins = [item("A"), dataclasses.replace(item("A"), item="B")]
    with JudgeServer(delay_s=0.05) as server:
        (replies,) = panel(tmp_path, server).ask(twins)

    assert replies["A"].text == replies["B"].text
    assert len(server.requests) == 1


def test_two_commands_at_once_end_with_the_same_replies(tmp_path: Path) -> None:
    got: list[Any] = []
    with JudgeServer(delay_s=0.02) as server:
        threads = [
            threading.Thread(target=lambda: got.append(panel(tmp_path, server).ask(items(30))))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert texts(got[0]) == texts(got[1])
    assert 30 <= len(server.requests) <= 60


# ------------------------------------------------------------------ price


def test_the_estimate_is_of_what_is_not_stored_and_the_meter_of_what_came(tmp_path: Path) -> None:
    accounts: list[Mapping[str, Any]] = []
    with JudgeServer(script={"<4>": ("500", "500", "ok")}) as server:
        panel(tmp_path, server).ask(items(2))
        panel(tmp_path, server, runs=2, record=accounts.append).ask(items(5))

    account = accounts[-1]
    assert (account["stored_before"], account["done"]) == (2, 10)
    # "Judge." and "answer <0>" are 16 characters: 4 tokens; 64 may come back, fewer than the 200
    # that are expected of an item by default.
    assert account["estimate"] == {
        "requests": 8,
        "input_tokens": 32,
        "output_tokens": 8 * 64,
        "usd": pytest.approx(32 * 30e-6 + 512 * 60e-6),
    }
    metered = account["metered"]
    assert metered["input_tokens"] == 8 * 3  # the server's count: 16 characters / 5
    assert metered["usd"] == pytest.approx(24 * 30e-6 + metered["output_tokens"] * 60e-6)
    assert metered["retries"] == {"server error": 2}
    assert metered["replies_without_usage"] == 0


def test_tokens_that_an_endpoint_does_not_count_are_estimated_and_said_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    accounts: list[Mapping[str, Any]] = []
    with JudgeServer(usage=False, verdict=lambda *_: "8 9 ") as server:
        panel(tmp_path, server, record=accounts.append).ask(items(3))

    metered = accounts[-1]["metered"]
    assert (metered["input_tokens"], metered["output_tokens"]) == (3 * 4, 3 * 1)
    assert metered["replies_without_usage"] == 3
    assert "3 replies came without a count of tokens, which is estimated" in caplog.messages[-1]


def test_one_line_before_and_one_after_say_what_is_asked_and_paid(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with JudgeServer() as server:
        panel(tmp_path, server).ask(items(2))

    first, last = caplog.messages
    assert f"test: {MODEL} at 127.0.0.1:{server.port}: 2 replies wanted, 0 stored, 2 to" in first
    assert "about 8 tokens there and 128 back, $0.0079" in first
    assert "2 replies came (0 re-asks), 6 tokens there and" in last
    assert "(estimated $0.0079)" in last


def test_a_model_without_a_price_costs_an_unknown_sum_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    accounts: list[Mapping[str, Any]] = []
    with JudgeServer() as server:
        panel(tmp_path, server, prices={}, record=accounts.append).ask(items(2))

    assert accounts[-1]["metered"]["usd"] is None
    assert accounts[-1]["estimate"]["usd"] is None
    assert all("dollars unknown" in line for line in caplog.messages)


def test_a_limit_without_a_price_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with JudgeServer() as server, pytest.raises(StageError, match=r"judge\.max_usd=1: no price"):
        panel(tmp_path, server, prices={}, max_usd=1.0).ask(items(2))

    assert server.requests == []


def test_the_setting_that_is_named_for_a_price_really_sets_it(tmp_path: Path) -> None:
    model = "org/gpt-4.1"
    with JudgeServer() as server, pytest.raises(StageError) as error:
        panel(tmp_path, server, model=model, prices={}, max_usd=1.0).ask(items(2))

    (setting,) = re.findall(r"add '([^']+)'", str(error.value))
    setting = setting.replace("input: ", "input: 2").replace("output: ", "output: 8")
    setting = setting.replace("source: ", "source: x")
    found = composed_judge(["judge=gpt4o", setting]).execution()["prices"]
    assert price_of(model, found) == Price(input=2.0, output=8.0)


def test_no_call_is_made_that_could_go_over_the_limit(tmp_path: Path) -> None:
    price = Price(input=30.0, output=60.0)
    most = most_usd(request("answer <0>"), price)
    paid = price.of(3, 60)  # by the server's count of a reply of 295 characters
    limit = 5 * paid + most + 0.5 * (most - paid)  # a sixth may be made, a seventh might go over
    accounts: list[Mapping[str, Any]] = []
    with (
        JudgeServer(verdict=lambda *_: "8 9" + "." * 292) as server,
        pytest.raises(StageError, match=r"judge\.max_usd=.* might go over it") as error,
    ):
        panel(tmp_path, server, max_usd=limit, record=accounts.append).ask(items(20))

    assert len(server.requests) == 6
    assert accounts[-1]["metered"]["usd"] == pytest.approx(6 * paid)
    assert 6 * paid <= limit < 6 * paid + most
    assert "6 of 20 replies are stored" in str(error.value)


def test_what_was_paid_before_counts_under_the_same_limit(tmp_path: Path) -> None:
    with JudgeServer() as server, pytest.raises(StageError, match=r"\$1\.00 paid"):
        panel(tmp_path, server, max_usd=1.0, spent_usd=1.0).ask(items(2))

    assert server.requests == []


def test_a_call_that_broke_off_counts_under_the_limit_as_if_it_was_charged(tmp_path: Path) -> None:
    most = most_usd(request("answer <0>"), Price(input=30.0, output=60.0))
    with JudgeServer(everybody=("half",)) as server, pytest.raises(StageError, match="max_usd"):
        panel(tmp_path, server, max_usd=3.5 * most).ask(items(1))

    assert len(server.requests) == 3


@pytest.mark.parametrize("what", ["stop", "patience", "401", "quota"])
def test_calls_that_are_cut_off_at_the_end_count_as_unsure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("scalesweep.evaluate.judging.ask.GRACE_S", 0.2)
    most = most_usd(request("answer <0>"), Price(input=30.0, output=60.0))
    accounts: list[Mapping[str, Any]] = []
    script = {"<3>": ("time-out" if what in ("stop", "patience") else what,)}
    changes = {"patience_s": 0.5} if what == "patience" else {}
    begin = time.monotonic()
    with (
        JudgeServer(script={**script, "<": ("time-out",)}) as server,
        pytest.raises((StageError, Interrupted)),
    ):
        panel(
            tmp_path, server, timeout_s=60.0, record=accounts.append,
            stop_requested=lambda: what == "stop" and time.monotonic() > begin + 0.5, **changes,
        ).ask(items(4))  # fmt: skip

    waiting = 4 if what in ("stop", "patience") else 3
    assert len(server.requests) == 4
    assert accounts[-1]["metered"]["unsure_usd"] == pytest.approx(waiting * most)


@pytest.mark.parametrize("concurrent", [1, 7])
def test_whenever_it_is_killed_the_account_on_disk_covers_what_was_sent(
    tmp_path: Path, concurrent: int
) -> None:
    price = Price(input=30.0, output=60.0)
    limit = 40 * most_usd(request("answer <00>"), price)
    written: list[float] = []
    short: list[float] = []

    def record(account: Mapping[str, Any]) -> None:
        time.sleep(0.005)
        written.append(account["metered"]["usd"] + account["metered"]["unsure_usd"])

    def verdict(sent: Mapping[str, Any], times: int) -> str:
        del sent, times  # all that came so far may be charged in full: 16 or 17 / 5, and 60 tokens
        short.append((written[-1] if written else 0.0) - len(server.requests) * price.of(3, 60))
        return "8 9" + "." * 292

    with JudgeServer(verdict=verdict) as server, pytest.raises(StageError, match="max_usd"):
        panel(
            tmp_path, server, max_concurrent=concurrent, record=record, max_usd=limit
        ).ask(items(100))  # fmt: skip

    assert len(server.requests) >= 40
    assert min(short) >= -1e-12
    assert max(written) <= limit + 1e-12
    assert written[-1] == pytest.approx(len(server.requests) * price.of(3, 60))


def test_progress_is_told_at_a_bounded_rate(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with JudgeServer() as server:
        panel(tmp_path, server, progress=lambda *row: told.append(row)).ask(items(100))

    assert told[-1] == (100, 100)
    assert len(told) <= 8


def test_a_store_that_takes_no_file_is_noticed_before_anything_is_paid(tmp_path: Path) -> None:
    (tmp_path / "judge_replies").write_text("a file")

    with JudgeServer() as server, pytest.raises(StoreError, match="cannot be written there"):
        panel(tmp_path, server).ask(items(5))

    assert server.requests == []


def test_a_disk_that_is_full_ends_the_stage_with_that_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalesweep.evaluate.judging.store import ReplyStore

    def full(*_: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(ReplyStore, "add", full)

    with JudgeServer() as server, pytest.raises(OSError, match="no space left"):
        panel(tmp_path, server).ask(items(5))
