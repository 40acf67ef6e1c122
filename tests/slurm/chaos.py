"""Whether a study comes to the same end whatever happens meanwhile: faults at random moments.

    python -m tests.slurm.chaos --seeds 1,2,3 --faults 30 [--real] [--kinds requeued,usr2]

One seed is one sequence of faults, injected into studies on a cluster of this command's own; when a
study is done and faults are left, the same study begins anew in an empty store. The harness plays
the user, who types the line again when nothing of the study is left in the queue or Slurm holds a
job, and the administrator, who resumes drained nodes. It does nothing else for the study.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from scalesweep.rundir import Store
from tests.slurm.chaos_study import NAME, ChaosStudy, Verdict, judged
from tests.slurm.cluster import SlurmCluster
from tests.slurm.faults import FAULTS, NEEDS_DISK, StoreDisk

GAP_S = (1.0, 12.0)
"""Between two faults."""
LOOK_S = 1.5
"""Between two looks of the user at the queue."""
TYPES_EVERY_S = 5.0
STUCK_AFTER_S = 180.0
"""Without a fault, an attempt or a published stage: nothing will come any more."""
JOBS_END_WITHIN_S = 90.0
"""How long jobs of a study that is done may go on: attempts that come too late, for example."""
ACCOUNTED_WITHIN_S = 30.0
"""How long sacct may take to have the ends of all runs."""
DISK_MB = {"light": 96, "real": 600}


@dataclass(kw_only=True)
class ChaosRun:
    """One seed: a sequence of faults and the studies that they meet."""

    seed: int
    cluster: SlurmCluster
    folder: Path
    """Working directory and logs; references are kept in its parent."""
    kinds: Sequence[str]
    """Of each fault, in turn."""
    num_cells: int = 4
    real: bool = False
    step_s: float = 0.2
    devices: int = 1
    gap_s: tuple[float, float] = GAP_S
    say: Callable[[str], None] = print
    rng: Random = field(init=False)
    disk: StoreDisk | None = field(init=False, default=None)
    down: set[str] = field(init=False, default_factory=set)
    injected: Counter[str] = field(init=False, default_factory=Counter)
    verdicts: list[Verdict] = field(init=False, default_factory=list)
    num_typed: int = field(init=False, default=0)
    """How often the line was typed again because nothing went on by itself."""
    num_refused: int = field(init=False, default=0)
    """Of these: ended with an error (a store that cannot be written, a controller that is away)."""
    num_released: int = field(init=False, default=0)
    num_resumed: int = field(init=False, default=0)
    """Drained nodes that the administrator resumed."""
    wall_s: float = field(init=False, default=0.0)
    study: ChaosStudy = field(init=False)
    _begin: float = field(init=False, default_factory=time.monotonic)
    _undo: list[tuple[float, Callable[[], None]]] = field(init=False, default_factory=list)
    _looked: float = field(init=False, default=0.0)
    _typed_at: float = field(init=False, default=0.0)
    _left: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self._left = list(self.kinds)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def survived(self) -> bool:
        return bool(self.verdicts) and not any(verdict.faults for verdict in self.verdicts)

    # --- what faults use

    def later(self, after_s: float, undo: Callable[[], None]) -> None:
        self._undo.append((time.monotonic() + after_s, undo))

    def rest(self) -> None:
        time.sleep(0.1)
        now = time.monotonic()
        due = [entry for entry in self._undo if entry[0] <= now]
        self._undo = [entry for entry in self._undo if entry[0] > now]
        for _, undo in due:
            undo()

    # --- a run

    def run(self) -> None:
        """Studies until all faults are used up; then each was judged."""
        number = 0
        try:
            while self._left:
                number += 1
                self._round(number)
        finally:
            self._mend()
            self.wall_s = time.monotonic() - self._begin

    def _round(self, number: int) -> None:
        with_disk = any(kind in NEEDS_DISK for kind in self.kinds)
        root = self.cluster.shared / f"disk-{self.seed}-{number}" if with_disk else self.folder
        if with_disk:
            self.disk = StoreDisk(
                path=root,
                aside=self.folder / "aside",
                size_mb=DISK_MB["real" if self.real else "light"],
            )
            self.disk.mount()
        self.study = ChaosStudy(
            cluster=self.cluster,
            folder=self.folder,
            store=Store(root / f"store-{number}"),
            num_cells=self.num_cells,
            real=self.real,
            step_s=self.step_s,
            devices=self.devices,
        )
        try:
            self._submit()
            self._live_through()
            self._mend()
            left = self._wait_for_jobs()
            verdict = judged(self.study, self.study.reference(self.folder.parent))
            verdict.faults += [
                f"all is done, but {' '.join(row[:3])} is in the queue" for row in left
            ]
            self.verdicts.append(verdict)
            self._line("study", f"{number} done in {verdict.num_attempts} attempts")
            for fault in verdict.faults:
                self._line("WRONG", fault)
            if verdict.faults:
                self._keep_store(number)
        finally:
            self._mend()
            if self.disk is not None:
                self.cluster.run("scancel", "--quiet", "--partition=main,spot,urgent")
                self.disk.unmount()
                self.disk = None

    def _keep_store(self, number: int) -> None:
        if self.disk is not None:
            kept = self.folder / f"store-{number}"
            shutil.copytree(self.study.store.root, kept, symlinks=True)
            self._line("kept", str(kept))

    def _submit(self) -> None:
        """The first time the line is typed; its death may be the first fault."""
        if self._left and self._left[0] == "submitter_killed":
            self._inject()
        self._type("submitted")
        while not (self.study.store.study(NAME) / "plan.json").exists():
            self._type("submitted")

    def _live_through(self) -> None:
        """Faults, mending and the user's looks, until the study is done."""
        due = time.monotonic() + self.rng.uniform(*self.gap_s)
        seen, since = self._progress(), time.monotonic()
        while not self.study.is_done():
            self.rest()
            if self._left and time.monotonic() >= due:
                self._inject()
                due = time.monotonic() + self.rng.uniform(*self.gap_s)
            self._look()
            if (now := self._progress()) != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > STUCK_AFTER_S:
                self._give_up()

    def _progress(self) -> tuple[int, int, int]:
        """Changes as long as something happens; the death of a submitter is nothing."""
        hits = self.injected.total() - self.injected["submitter_killed"]
        with contextlib.suppress(OSError):  # the store is hidden
            return self.study.num_done(), len(self.study.attempts()), hits
        return 0, 0, hits

    def _give_up(self) -> None:
        _, said = self.study.typed("status", NAME, "--store", str(self.study.store.root))
        self._line("WRONG", f"nothing has happened for {STUCK_AFTER_S:.0f} s:\n{said}")
        queue = self.cluster.try_run("squeue", "-r").stdout
        raise AssertionError(f"seed {self.seed}: the study does not end\n{said}\n{queue}")

    def _inject(self) -> None:
        """The next kind of fault that finds something to hit."""
        for kind in list(dict.fromkeys(self._left)):
            victim = FAULTS[kind](self)
            if victim is not None:
                self._left.remove(kind)
                self.injected[kind] += 1
                self._line(kind, victim)
                return

    def _mend(self) -> None:
        """Undo at once whatever is still broken."""
        due, self._undo = self._undo, []
        for _, undo in sorted(due, key=lambda entry: entry[0]):
            undo()

    def _wait_for_jobs(self) -> list[list[str]]:
        """What is left in the queue when jobs had time to end, and accounting to catch up."""
        end = time.monotonic() + JOBS_END_WITHIN_S
        while ((rows := self._queue()) is None or rows) and time.monotonic() < end:
            self._administer()
            time.sleep(1)
        # Rows whose end a killed controller never told the database run on for ever.
        end = time.monotonic() + ACCOUNTED_WITHIN_S
        while self.cluster.accounting and time.monotonic() < end and not self._is_accounted():
            time.sleep(1)
        return rows or []

    def _is_accounted(self) -> bool:
        ended = self.cluster.try_run("sacct", "-DXPn", "-S", "now-1days", "-o", "State")
        return ended.returncode == 0 and "RUNNING" not in ended.stdout

    # --- user and administrator

    def _look(self) -> None:
        """What a user does who looks now and then: the line again where it does not go on."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        self._administer()
        rows = self._queue()
        if rows is None or now - self._typed_at < TYPES_EVERY_S or self.study.is_done():
            return
        held = [row for row in rows if "held" in row[2].lower()]
        if not rows:
            self.num_typed += 1
            self._type("typed again")
        elif held:
            self.num_released += 1
            self._type(f"typed again for {held[0][0]}, held")

    def _type(self, what: str) -> None:
        status, said = self._typed()
        self._typed_at = time.monotonic()
        last = said.strip().splitlines()[-1:] or [""]
        if status:
            self.num_refused += 1
            self._line(what, f"refused ({status}): {last[0]}")
            self.rest()
        else:
            self._line(
                what, next((s for s in said.splitlines() if s.startswith("study ")), last[0])
            )

    def _typed(self) -> tuple[int, str]:
        """Status and output of the line; what is broken meanwhile is mended meanwhile."""
        process = self.study.begun(*self.study.line)
        while process.poll() is None:
            self.rest()
        said, _ = process.communicate()
        return process.returncode, said

    def _queue(self) -> list[list[str]] | None:
        """The study's jobs that wait or run; None where the controller does not answer."""
        if "controller" in self.down:
            return None
        ended = self.cluster.try_run("squeue", "-h", "-r", "-o", "%i|%T|%r|%j")
        if ended.returncode:
            return None
        rows = [line.split("|") for line in ended.stdout.splitlines()]
        return [row for row in rows if row[3].startswith(NAME)]

    def _administer(self) -> None:
        if "controller" in self.down:
            return
        ended = self.cluster.try_run("sinfo", "-hN", "-p", "main", "-o", "%N|%T")
        drained = [line for line in ended.stdout.splitlines() if "|drain" in line]
        if drained:
            self.num_resumed += len(drained)
            self._line("resumed", ", ".join(line.partition("|")[0] for line in drained))
            self.cluster.resume_nodes()

    def _line(self, what: str, detail: str) -> None:
        text = f"{time.monotonic() - self._begin:7.1f} s  {what:<18} {detail}"
        with (self.folder / "chaos.log").open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        self.say(text)


def sequence(seed: int, *, num_faults: int, kinds: Sequence[str]) -> list[str]:
    """Kinds of faults in random order, each as often as any other but for one."""
    rng = Random(seed)
    found: list[str] = []
    while len(found) < num_faults:
        found += rng.sample(list(kinds), len(kinds))
    found = found[:num_faults]
    if "submitter_killed" in found:  # a submission under way is met at the beginning alone
        found.remove("submitter_killed")
        found.insert(0, "submitter_killed")
    return found


def table(runs: Sequence[ChaosRun]) -> Iterator[str]:
    """Faults by kind, and what became of the studies."""
    yield f"{'fault':<20}{'injected':>10}{'survived':>10}"
    for kind in FAULTS:
        injected = sum(run.injected[kind] for run in runs)
        if injected:
            survived = sum(run.injected[kind] for run in runs if run.survived)
            yield f"{kind:<20}{injected:>10}{survived:>10}"
    total = sum(sum(run.injected.values()) for run in runs)
    good = sum(sum(run.injected.values()) for run in runs if run.survived)
    yield f"{'all':<20}{total:>10}{good:>10}"
    yield ""
    yield (
        f"{'seed':>4} {'studies':>8} {'wall s':>7} {'attempts':>9} {'typed again':>12} "
        f"{'released':>9} {'resumed':>8} {'GPU s':>7} {'by sacct':>9} {'lost rows':>10} "
        f"{'endless':>8}  verdict"
    )
    for run in runs:
        verdicts = run.verdicts
        yield (
            f"{run.seed:>4} {len(verdicts):>8} {run.wall_s:>7.0f} "
            f"{sum(v.num_attempts for v in verdicts):>9} {run.num_typed:>12} "
            f"{run.num_released:>9} {run.num_resumed:>8} "
            f"{sum(v.reported_s for v in verdicts):>7.0f} "
            f"{sum(v.accounted_s for v in verdicts):>9.0f} "
            f"{sum(v.by_journal for v in verdicts):>10} {sum(v.endless for v in verdicts):>8}  "
            f"{'same bytes' if run.survived else 'WRONG'}"
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.slurm.chaos", description=__doc__)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--kinds", default=",".join(FAULTS))
    parser.add_argument("--cells", type=int, default=4)
    parser.add_argument("--devices", type=int, default=1, help="ranks of a stage")
    parser.add_argument("--step-s", type=float, default=0.2, help="of the light trainer")
    parser.add_argument("--real", action="store_true", help="the real stack")
    options = parser.parse_args(arguments)
    kinds = options.kinds.split(",")
    folder = Path(tempfile.mkdtemp(prefix="scalesweep-chaos-"))
    cluster = SlurmCluster(folder=folder / "cluster")
    runs: list[ChaosRun] = []
    try:
        cluster.start(watched_pid=os.getpid())
        if not cluster.has_namespaces:
            kinds = [kind for kind in kinds if kind not in NEEDS_DISK]
            print("not root: the store cannot be made full or read-only")
        for seed in (int(text) for text in options.seeds.split(",")):
            print(f"seed {seed}")
            run = ChaosRun(
                seed=seed,
                cluster=cluster,
                folder=folder / f"seed-{seed}",
                kinds=sequence(seed, num_faults=options.faults, kinds=kinds),
                num_cells=options.cells,
                real=options.real,
                step_s=options.step_s,
                devices=options.devices,
            )
            runs.append(run)
            try:
                run.run()
            except AssertionError as error:
                print(error)
            cluster.heal()
    finally:
        cluster.stop()
    print()
    for line in table(runs):
        print(line)
    if not all(run.survived for run in runs):
        print(f"logs and stores: {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
