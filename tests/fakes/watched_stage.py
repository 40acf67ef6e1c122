"""A training stage in an environment that asks for W&B online, watched for what it connects to."""

from __future__ import annotations

import os
import sys
from typing import Any

from scalesweep.rundir import write_json
from scalesweep.stages import StageContext

EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.sendto")


def run(context: StageContext) -> None:
    seen: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS:
            seen.append(f"{event} {arguments[1:] if event != 'socket.getaddrinfo' else arguments}")

    os.environ |= {"WANDB_MODE": "online", "WANDB_API_KEY": "0123456789abcdef" * 3}
    sys.addaudithook(watch)
    from scalesweep.train import stage

    stage.run(context)
    loaded = [name for name in ("wandb", "wandb_workspaces") if name in sys.modules]
    write_json(context.attempt.path / "watched.json", {"connected": seen, "loaded": loaded})
