"""Slurm's commands as one small program with a queue in a file. Only srun starts anything.

FakeSlurm(folder) makes the commands; with its `bin` on PATH they answer as Slurm's do, as far as
they are asked. A test moves jobs on by `run` and `end`, and says when a command goes wrong.

Commands are started by the hundred, so that nothing is imported that takes longer than they do:
files hold what marshal writes, and the rest is imported where it is needed.
"""

# ruff: noqa: PTH104, PTH120, PTH123

from __future__ import annotations

import fcntl
import marshal
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace, TracebackType
    from typing import Any

    Element = SimpleNamespace
    """One element of an array: array, index, job, name, user, state, reason, restarts, run_time,
    waits_for, comment."""

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "sacct", "srun")
AWAY = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
LIVING = ("PENDING", "RUNNING", "COMPLETING", "SUSPENDED")
EXIT_INTERRUPTED = 75
"""Of ranks that stop at a checkpoint, all of them soon. srun would end the others after a while."""
CONFIG = {"ClusterName": "lab", "KillWait": "30 sec", "MaxArraySize": "1001"}


class FakeSlurm:
    """A cluster on which time stands still but for what a test does."""

    def __init__(self, folder: Path, *, cluster: str = "lab", **config: str) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        settings = {**CONFIG, **config, "ClusterName": cluster}
        (folder / "calls").touch()
        _write(folder, {"next_id": 1, "config": settings, "elements": [], "faults": {}})
        import shlex

        code = (
            f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import slurm; "
            "sys.exit(slurm.main(sys.argv[1:]))"
        )
        for command in COMMANDS:
            program = self.bin / command
            words = [sys.executable, "-I", "-S", "-c", code, str(folder), command]
            program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            program.chmod(0o755)

    @property
    def path(self) -> str:
        """For the environment variable PATH."""
        return f"{self.bin}{os.pathsep}{os.environ.get('PATH', os.defpath)}"

    # --- what there is

    def elements(self) -> list[Element]:
        """All that were ever submitted, oldest first."""
        from types import SimpleNamespace

        return [SimpleNamespace(**element) for element in _read(self.folder)["elements"]]

    def element(self, name: str) -> Element:
        """12_3 -> the element with index 3 of array 12."""
        return next(e for e in self.elements() if _name(vars(e)) == name)

    def states(self) -> dict[str, str]:
        return {_name(vars(e)): e.state for e in self.elements()}

    def calls(self, command: str) -> list[list[str]]:
        """Arguments of each call of a command."""
        return [call["words"] for call in self._calls() if call["command"] == command]

    def environments(self, command: str) -> list[dict[str, str]]:
        return [call["environment"] for call in self._calls() if call["command"] == command]

    def _calls(self) -> list[dict[str, Any]]:
        path = self.folder / "calls"
        return [marshal.loads(bytes.fromhex(line)) for line in path.read_text().splitlines()]

    # --- what happens

    def add(self, name: str, index: int = 0, **fields: Any) -> str:
        """An element that nobody submitted; how it is called."""
        with _Changed(self.folder) as state:
            element = _element(state, name=name, array=state["next_id"], index=index)
            element.update(fields)
            state["elements"].append(element)
        return _name(element)

    def set(self, name: str, **fields: Any) -> None:
        with _Changed(self.folder) as state:
            _find(state, name).update(fields)

    def run(self, *names: str) -> None:
        for name in names:
            self.set(name, state="RUNNING", reason="None")

    def end(self, name: str, state: str = "COMPLETED") -> None:
        """An element is over; what waits for it goes on, or is cancelled."""
        with _Changed(self.folder) as all_:
            _find(all_, name).update(state=state, reason="None")
            _settle(all_)

    def forget(self, name: str) -> None:
        """As after MinJobAge."""
        with _Changed(self.folder) as state:
            state["elements"].remove(_find(state, name))

    # --- what goes wrong

    def fault(self, command: str, how: str, text: str = AWAY, *, times: int = 1) -> None:
        """Let the next calls of a command go wrong.

        how: refuse (nothing happens) | lost (it happens, and the answer is an error) | kill_before
        | kill_after (whoever called is killed before or after it happens) | slow (text: seconds)
        """
        with _Changed(self.folder) as state:
            state["faults"][command] = {"how": how, "text": text, "times": times}

    def away(self) -> None:
        """Nothing answers any more."""
        for command in COMMANDS[:4]:
            self.fault(command, "refuse", times=10**6)

    def back(self) -> None:
        with _Changed(self.folder) as state:
            state["faults"] = {}

    def srun_says(self, text: str, *, status: int, times: int = 1) -> None:
        """Let the next steps fail without starting anything."""
        with _Changed(self.folder) as state:
            state["faults"]["srun"] = {"how": str(status), "text": text, "times": times}


# ---------------------------------------------------------------------- the queue's file


def _read(folder: Path | str) -> dict[str, Any]:
    with open(f"{folder}/state", "rb") as file:
        return marshal.load(file)


def _write(folder: Path | str, state: dict[str, Any]) -> None:
    beside = f"{folder}/.state-{os.getpid()}"
    with open(beside, "wb") as file:
        marshal.dump(state, file)
    os.rename(beside, f"{folder}/state")


class _Changed:
    """The queue, for one process at a time; written back in the end."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = folder

    def __enter__(self) -> dict[str, Any]:
        self._lock = open(f"{self._folder}/lock", "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._state = _read(self._folder)
        return self._state

    def __exit__(self, kind: type | None, error: object, trace: TracebackType | None) -> None:
        if kind is None:
            _write(self._folder, self._state)
        self._lock.close()


def _element(state: dict[str, Any], *, name: str, array: int, index: int) -> dict[str, Any]:
    job, state["next_id"] = state["next_id"], state["next_id"] + 1
    return {
        "array": array,
        "index": index,
        "job": job,
        "name": name,
        "user": os.environ.get("LOGNAME") or os.environ.get("USER") or _account(),
        "state": "PENDING",
        "reason": "Priority",
        "restarts": 0,
        "run_time": "0:00",
        "waits_for": [],
        "comment": "",
    }


def _account() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _name(element: dict[str, Any]) -> str:
    return f"{element['array']}_{element['index']}"


def _find(state: dict[str, Any], name: str) -> dict[str, Any]:
    return next(e for e in state["elements"] if _name(e) == name)


def _settle(state: dict[str, Any]) -> None:
    """Dependencies: a forgotten parent counts as one that succeeded, a failed one cancels."""
    by_name = {_name(element): element for element in state["elements"]}
    for element in state["elements"]:  # parents stand before children
        if element["state"] != "PENDING" or not element["waits_for"]:
            continue
        parents = [by_name[name]["state"] for name in element["waits_for"] if name in by_name]
        if any(parent not in (*LIVING, "COMPLETED") for parent in parents):
            element.update(state="CANCELLED", reason="DependencyNeverSatisfied")
        elif all(parent == "COMPLETED" for parent in parents):
            element.update(waits_for=[], reason="Priority")
        else:
            element.update(reason="Dependency")


# ---------------------------------------------------------------------- the commands


class _Refusal(Exception):
    pass


def _sbatch(state: dict[str, Any], words: list[str]) -> str:
    import re

    with open(words[-1]) as file:
        text = file.read()
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", text, re.MULTILINE))
    array = state["next_id"]
    indices: list[int] = []
    for part in options["array"].partition("%")[0].split(","):
        first, _, last = part.partition("-")
        indices += range(int(first), int(last or first) + 1)
    if max(indices) >= int(state["config"]["MaxArraySize"]):
        raise _Refusal(
            "sbatch: error: Batch job submission failed: Invalid job array specification"
        )
    for index in indices:
        element = _element(state, name=options["job-name"], array=array, index=index)
        element["comment"] = options.get("comment", "")
        for part in filter(None, options.get("dependency", "").split(",")):
            how, *others = part.split(":")
            assert how in ("afterok", "aftercorr"), part
            element["waits_for"] += [
                other if how == "afterok" else f"{other}_{index}" for other in others
            ]
        state["elements"].append(element)
    _settle(state)
    return f"Submitted batch job {array}\n"


def _squeue(state: dict[str, Any], words: list[str]) -> str:
    names = words[words.index("-n") + 1].split(",") if "-n" in words else None
    layout = words[words.index("-o") + 1]
    lines = []
    for element in state["elements"]:
        if element["state"] in LIVING and (names is None or element["name"] in names):
            fields = {
                "%F": element["array"],
                "%K": element["index"],
                "%A": element["job"],
                "%T": element["state"],
                "%j": element["name"],
                "%u": element["user"],
                "%M": element["run_time"],
                "%r": element["reason"],
            }
            lines.append("|".join(str(fields[field]) for field in layout.split("|")))
    return "".join(f"{line}\n" for line in lines)


def _scontrol(state: dict[str, Any], words: list[str]) -> str:
    if words == ["show", "config"]:
        lines = [f"{name:<23} = {value}" for name, value in state["config"].items()]
        return "\n".join(["Configuration data as of 2026-01-01T00:00:00", *lines, ""])
    try:
        element = _find(state, words[-1])
    except StopIteration:
        raise _Refusal("slurm_load_jobs error: Invalid job id specified") from None
    if words[:2] == ["show", "job"]:
        return (
            f"JobId={element['job']} ArrayJobId={element['array']} "
            f"ArrayTaskId={element['index']} JobName={element['name']} "
            f"JobState={element['state']} Reason={element['reason']} "
            f"Requeue=1 Restarts={element['restarts']} Command=/store/JobState=x\n"
        )
    if words[0] == "requeue":
        element.update(state="PENDING", reason="BeginTime", restarts=element["restarts"] + 1)
    elif words[0] == "release":
        element.update(reason="Priority")
    else:
        raise _Refusal(f"invalid keyword: {words[0]}")
    return ""


def _scancel(state: dict[str, Any], words: list[str]) -> str:
    if not any(word.startswith("--signal") for word in words):
        for word in words:
            element = _find(state, word)
            if element["state"] in LIVING:
                element.update(state="CANCELLED", reason="None")
        _settle(state)
    return ""


def _sacct(state: dict[str, Any], words: list[str]) -> str:
    arrays = words[words.index("-j") + 1].split(",")
    rows = []
    for element in state["elements"]:
        if str(element["array"]) in arrays:
            end = "Unknown" if element["state"] in LIVING else 1300
            fields = (_name(element), element["job"], element["name"],
                      state["config"]["ClusterName"], element["state"], 200, "cpu=1", 1, 1,
                      1000, 1000, 1100, end, "0:0")  # fmt: skip
            rows.append("|".join(map(str, fields)) + "\n")
    return "".join(rows)


def _srun(words: list[str]) -> int:
    """Start one process a task; the highest exit status."""
    import re
    import signal
    import subprocess

    options = dict(re.findall(r"^--([a-z-]+)=(.*)$", "\n".join(words), re.MULTILINE))
    command = [word for i, word in enumerate(words) if not all(
        w.startswith("--") for w in words[: i + 1])]  # fmt: skip
    tasks, per_node = int(options["ntasks"]), int(options["ntasks-per-node"])
    ranks = []
    for rank in range(tasks):
        variables = {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank % per_node)}
        ranks.append(subprocess.Popen(command, env={**os.environ, **variables}))

    def pass_on(number: int, frame: object) -> None:
        del frame
        for rank in ranks:
            rank.send_signal(number if number == signal.SIGUSR2 else signal.SIGKILL)

    signal.signal(signal.SIGUSR2, pass_on)
    signal.signal(signal.SIGTERM, pass_on)
    ended: dict[int, int] = {}
    while len(ended) < tasks:
        for i, rank in enumerate(ranks):
            if i in ended or (code := rank.poll()) is None:
                continue
            ended[i] = code if code >= 0 else 128 - code
            if code:
                print(f"srun: error: n0: task {i}: Exited with exit code {ended[i]}", flush=True)
            if code and code != EXIT_INTERRUPTED:  # --kill-on-bad-exit
                for other in ranks:
                    other.kill()
        time.sleep(0.005)
    return max(ended.values())


def _called(folder: str, command: str, words: list[str]) -> int:
    call = {"command": command, "words": words, "environment": dict(os.environ)}
    with open(f"{folder}/calls", "a") as file:
        file.write(marshal.dumps(call).hex() + "\n")
    with _Changed(folder) as state:
        fault = state["faults"].get(command, {"how": "", "text": "", "times": 0})
        fault["times"] -= 1
        if fault["times"] <= 0:
            state["faults"].pop(command, None)
    how, text = fault["how"], fault["text"]
    if how == "kill_before":
        os.kill(os.getppid(), 9)
    if how in ("refuse", "kill_before") or how.isdigit():
        print(text, file=sys.stderr)
        return int(how) if how.isdigit() else 1
    if how == "slow":
        time.sleep(float(text))
    if command == "srun":
        return _srun(words)
    answers = {
        "sbatch": _sbatch,
        "squeue": _squeue,
        "scontrol": _scontrol,
        "scancel": _scancel,
        "sacct": _sacct,
    }
    try:
        with _Changed(folder) as state:
            said = answers[command](state, words)
    except _Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    if how == "kill_after":
        os.kill(os.getppid(), 9)
    if how == "lost":
        print(text, file=sys.stderr)
        return 1
    print(said, end="")
    return 0


def main(words: list[str]) -> int:
    """words: folder of the fake, name of the command, its arguments."""
    return _called(words[0], words[1], words[2:])
