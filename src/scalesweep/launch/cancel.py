"""Stopping the commands that work on a study, as Ctrl-C would."""

from __future__ import annotations

import os
import signal
import time

from scalesweep.launch import leases
from scalesweep.launch.local import GRACE_S, commands_folder
from scalesweep.rundir import Store


def cancel(store: Store, study: str) -> list[str]:
    """Ask the living commands of a study to stop and wait for them; one line about each.

    A stage that another study needs too is taken up by that study's own command. Commands on other
    machines are named and not touched.
    """
    lines: list[str] = []
    asked: list[leases.Owner] = []
    for lease in sorted(commands_folder(store, study).glob("*.json")):
        owner = leases.read_owner(lease)
        if owner is None:
            continue
        alive = leases.is_alive(owner)
        if alive is None:
            lines.append(f"process {owner.pid} on {owner.host}: another machine; cancel it there")
        elif alive:
            try:
                os.kill(owner.pid, signal.SIGINT)
                asked.append(owner)
            except PermissionError:
                lines.append(f"process {owner.pid}: another user's; ask whoever started it")
            except ProcessLookupError:  # it ended just now
                continue
    deadline = time.monotonic() + GRACE_S + 5
    while any(leases.is_alive(owner) for owner in asked) and time.monotonic() < deadline:
        time.sleep(0.1)
    for owner in asked:
        state = "still stopping" if leases.is_alive(owner) else "stopped"
        lines.append(f"process {owner.pid}: {state}")
    return lines or [f"study {study}: no command works on it"]
