"""Panels for tests: items with a verdict in "8 9 ...", asked of a server on loopback.

python -m tests.evaluate.judging.panels JSON   asks in a process of its own
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from scalesweep.evaluate.judging.ask import Panel
from scalesweep.evaluate.judging.items import JudgeItem, Request
from scalesweep.evaluate.judging.store import ReplyStore
from tests.fakes.judge_server import JudgeServer

MODEL = "gpt-4-0314"


def has_verdict(text: str) -> bool:
    return text[:1].isdigit()


def request(text: str, **changes: Any) -> Request:
    made = Request(messages=(("system", "Judge."), ("user", text)), temperature=0.2, max_tokens=64)
    return dataclasses.replace(made, **changes)


def item(name: str, **changes: Any) -> JudgeItem:
    made = JudgeItem(item=name, request=request(f"answer {name}"), is_valid=has_verdict)
    return dataclasses.replace(made, **changes)


def items(count: int) -> list[JudgeItem]:
    return [item(f"<{number}>") for number in range(count)]


def settings(url: str, **changes: Any) -> dict[str, Any]:
    """Execution.judge with short waits."""
    return {
        "endpoint": "compatible",
        "base_url": url,
        "api_key_variable": "JUDGE_KEY_OF_TESTS",
        "api_version": None,
        "deployments": {},
        "max_concurrent": 16,
        "timeout_s": 0.5,
        "patience_s": 20.0,
        "backoff_s": 0.01,
        "prices": {MODEL: {"input": 30.0, "output": 60.0}},
        "max_usd": None,
        **changes,
    }


def panel(store: Path, server: JudgeServer | str, *, runs: int = 1, **changes: Any) -> Panel:
    """changes: of the settings, or of the panel where it has such a field."""
    own = {name: changes.pop(name) for name in list(changes) if name in Panel.__dataclass_fields__}
    url = server if isinstance(server, str) else server.url
    return Panel(
        **{
            "title": "test",
            "replies": ReplyStore(store / "judge_replies"),
            "settings": settings(url, **changes),
            "model": MODEL,
            "source": "test",
            "num_runs": runs,
            **own,
        }
    )


def texts(replies: list[Any]) -> list[dict[str, Any]]:
    return [{name: reply.text for name, reply in run.items()} for run in replies]


if __name__ == "__main__":
    task = json.loads(sys.argv[1])
    got = panel(Path(task["store"]), task["url"], runs=task["runs"]).ask(items(task["items"]))
    print(json.dumps(texts(got)))
