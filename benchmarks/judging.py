"""Judging many answers at once against one by one, on an endpoint of loopback that takes its time.

The endpoint is a process of its own; each reply takes DELAY_S, as a fast real one's would. Each way
judges the same answers from an empty store, in turn.
"""

from __future__ import annotations

import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scalesweep.evaluate.judging.ask import Panel
from scalesweep.evaluate.judging.items import JudgeItem, Request
from scalesweep.evaluate.judging.store import ReplyStore

COUNT, ROUNDS = 120, 3
DELAY_S = 0.25
AT_ONCE = (1, 4, 16)
FAULT_RATE = 0.2


@contextmanager
def endpoint(*, fault_rate: float = 0.0) -> Iterator[str]:
    """Its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.judge_server", "--fault-rate", str(fault_rate),
         "--delay", str(DELAY_S)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        yield server.stdout.readline().strip()
    finally:
        server.kill()
        server.wait()


def items() -> list[JudgeItem]:
    text = "word " * 400  # a prompt of LLaVA-Bench has about 2,000 characters
    return [
        JudgeItem(
            item=str(number),
            request=Request(
                messages=(("user", f"{text}{number}"),), temperature=0.2, max_tokens=1024
            ),
            is_valid=lambda reply: reply[:1].isdigit(),
        )
        for number in range(COUNT)
    ]


def judge(url: str, folder: Path, at_once: int) -> float:
    """Seconds to judge all answers that are not stored in the folder."""
    settings = {
        "endpoint": "compatible", "base_url": url, "api_key_variable": "OPENAI_API_KEY",
        "timeout_s": 3.0, "max_concurrent": at_once, "backoff_s": 0.2,
    }  # fmt: skip
    panel = Panel(
        title="judging", replies=ReplyStore(folder), settings=settings, model="m", source="b",
        num_runs=1,
    )  # fmt: skip
    begin = time.perf_counter()
    (replies,) = panel.ask(items())
    seconds = time.perf_counter() - begin
    assert all(reply.valid for reply in replies.values())
    return seconds


def main() -> None:
    logging.getLogger("scalesweep").setLevel(logging.WARNING)
    took: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder, endpoint() as url:
            judge(url, Path(folder) / "imports", AT_ONCE[-1])
            for at_once in AT_ONCE:
                store = Path(folder) / str(at_once)
                took.setdefault(f"{at_once} at once", []).append(judge(url, store, at_once))
            took.setdefault("stored before", []).append(judge(url, store, AT_ONCE[-1]))
        with tempfile.TemporaryDirectory() as folder, endpoint(fault_rate=FAULT_RATE) as url:
            took.setdefault(f"{AT_ONCE[-1]} at once, faults", []).append(
                judge(url, Path(folder), AT_ONCE[-1])
            )
    print(
        f"{COUNT} replies that take {DELAY_S} s each; faults: {FAULT_RATE:.0%} of calls fail "
        "(rate limits, time-outs of 3 s, half replies, ...)"
    )
    print(f"{'':<24}{'seconds':>9}{'replies/s':>11}  times as fast as one by one (min to max)")
    single = took["1 at once"]
    for name, seconds in took.items():
        ratios = [a / b for a, b in zip(single, seconds, strict=True)]
        median = statistics.median(seconds)
        print(
            f"{name:<24}{median:>9.2f}{COUNT / median:>11.1f}  "
            f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        )


if __name__ == "__main__":
    main()
