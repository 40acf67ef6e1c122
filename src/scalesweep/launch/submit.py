"""Submitting what is missing of a plan: look what there is, group, claim, sbatch.

Everything that another command, another user or an earlier life of this one did is seen in the
store and in one call of squeue. Typing the same line again is always safe.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from scalesweep.config.cluster import ClusterConfig
from scalesweep.errors import StoreError
from scalesweep.launch import leases, slurm
from scalesweep.launch.arrays import (
    Element,
    PlannedArray,
    PlannedNumber,
    ToSubmit,
    dependency,
    grouped_into_arrays,
)
from scalesweep.launch.environment import allowed
from scalesweep.launch.executors import JobShape, Script, batch_script, sbatch
from scalesweep.launch.held import releasable
from scalesweep.launch.jobs import (
    JobDir,
    StageJob,
    StageJobs,
    Submission,
    job_dir,
    new_name,
    this_host,
    this_user,
    write_submission,
)
from scalesweep.launch.preamble import preamble_path
from scalesweep.launch.publish import prepare, verdict
from scalesweep.launch.slurm import SlurmAway, SlurmError
from scalesweep.launch.snapshot import snapshot
from scalesweep.plan.graph import Plan, PlannedStage
from scalesweep.records import Execution, Measured, StageKind, StageRef
from scalesweep.rundir import StageDir, Store, fsync_directory

CONTROLLER_WAIT_S = 120.0
"""How long a command goes on asking a controller that is away."""
SUBMITTER_WAIT_S = 300.0
"""How long a job of another living submitter is waited for that has no id yet."""
KNOWN_FOR_S = 60.0
"""How long after our look Slurm still knows the jobs we saw (MinJobAge is 300 s by default)."""
APPEARS_WITHIN_S = 15.0
"""How long after a failed sbatch its job may still turn up in the queue."""
CLAIMING_THREADS = 16
"""Claims wait for the disk: a file system writes what many wait for at once, and a server answers
many at once. A thousand took 20 s one by one and 3 s by 16 threads (ext4, virtual disk)."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """Where a stage stands when a command looks."""

    state: str
    """done | queued | missing | login | elsewhere (of another cluster, which cannot be seen)"""
    element: Element | None = None
    """queued: the element that will run it, or runs it."""
    row: slurm.Queued | None = None
    after: int = 0
    """missing: number of its newest submission, which is over."""
    submission: str = ""


@dataclass(kw_only=True)
class Submitted:
    """What a command did."""

    arrays: int = 0
    stages: int = 0
    done: int = 0
    queued: int = 0
    """Waited or ran already, for this or another study."""
    elsewhere: int = 0
    """Submitted to another cluster: cannot be seen from here, which is not dead."""
    login: int = 0
    """Wait for a command on the login node."""
    released: list[str] = field(default_factory=list)
    """Elements that were held after a failed launch."""
    jobs: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Of queued: jobs of other studies or users, one line each."""


@dataclass(kw_only=True)
class Submitter:
    """One command's look at a plan."""

    plan: Plan
    store: Store
    cluster: ClusterConfig
    say: Callable[[str], None] = print
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    _clusters: dict[str, str] = field(default_factory=dict)

    def submit(self) -> Submitted:
        """Submit every stage that is neither done nor in the queue.

        Raises:
            SlurmError: Slurm does not answer, or refuses a job; what was submitted before stays.
            StoreError: the store is damaged or cannot be written.
        """
        site = slurm.persistently(slurm.site, for_s=CONTROLLER_WAIT_S)
        found = slurm.persistently(self.look, for_s=CONTROLLER_WAIT_S)
        result = self._counted(found)
        result.released = self.release(found)
        while not self._submit_missing(found, site, result):
            # Another command took a stage between our look and our claim: look again.
            found = slurm.persistently(self.look, for_s=CONTROLLER_WAIT_S)
        return result

    def _submit_missing(
        self, found: Mapping[StageRef, Found], site: slurm.Site, result: Submitted
    ) -> bool:
        """Whether all that was missing could be claimed and is submitted."""
        looked = time.monotonic()
        todo = [s for s in self.plan.stages if found[s.ref].state == "missing"]
        arrays = grouped_into_arrays(
            [self._to_submit(stage, found) for stage in todo],
            max_array_size=site.max_array_tasks,
        )
        code = snapshot(self.store) if arrays else Path()
        job_ids: dict[int, int] = {}
        for array in arrays:
            names_others = any(not isinstance(e.array, PlannedNumber) for e in array.afterok)
            names_others |= any(not isinstance(a, PlannedNumber) for a in array.aftercorr)
            if names_others and time.monotonic() - looked > KNOWN_FOR_S:
                return False  # Slurm takes a forgotten parent for one that succeeded
            submission = self._submission(array, site)
            claimed = self._claimed(array, submission, found)
            if claimed:
                job_ids[array.number] = self._submit_array(
                    array, claimed, submission, job_ids, code=code
                )
                result.arrays += 1
                result.stages += len(claimed)
                result.jobs.append(str(job_ids[array.number]))
            if len(claimed) < len(array.elements):
                return False
        return True

    # ------------------------------------------------------------------ what there is

    def look(self) -> dict[StageRef, Found]:
        """Where every stage stands, by the store and one call of squeue.

        Raises:
            SlurmError: squeue does not answer: nothing is known then.
        """
        jobs = {s.ref: StageJobs(self.store.stage(s.ref)).newest() for s in
                self.plan.stages}  # fmt: skip
        names = {job.submission for job in jobs.values() if job is not None}
        folders = {name: job_dir(self.store, name) for name in names}
        # Before squeue is asked: what has no id yet may get into the queue while it answers.
        unanswered = {n for n in names if not folders[n].job_file.exists()}
        rows = slurm.queued(names)
        if absent := unanswered - rows.keys():
            rows = {**rows, **self._awaited([j for j in jobs.values() if j is not None], absent)}
        found: dict[StageRef, Found] = {}
        digests: dict[StageRef, str] = {}
        for stage in self.plan.stages:
            ref = stage.ref
            found[ref] = self._found(stage, jobs[ref], rows, folders, digests)
        self._leave_to_others(found)
        self._give_up_doomed(found)
        return found

    def _found(
        self,
        stage: PlannedStage,
        job: StageJob | None,
        rows: Mapping[str, Sequence[slurm.Queued]],
        folders: Mapping[str, JobDir],
        digests: dict[StageRef, str],
    ) -> Found:
        spec = stage.spec
        parents = {role: digests.get(ref) for role, ref in spec.inputs.items()}
        known = {role: digest for role, digest in parents.items() if digest}
        published = verdict(self.store, spec, parents=known if len(known) == len(parents) else None)
        if published.done is not None:
            digests[spec.ref] = published.done.digest
            # Its job may be held after a failed launch, and what waits for it in the queue with it.
            row = None if job is None else self._row(job, rows, folders[job.submission])
            return Found(state="done", row=row)
        if stage.execution.on_login:
            return Found(state="login")
        if job is None:
            return Found(state="missing")
        row = self._row(job, rows, folders[job.submission])
        if row is None:
            state = "missing" if self._is_here(job.submission) else "elsewhere"
            return Found(state=state, after=job.number, submission=job.submission)
        # One that was cancelled ends; a new job waits until it has.
        if folders[job.submission].cancelled(job.index).exists():
            return Found(state="missing", after=job.number)
        return Found(
            state="queued",
            element=Element(row.array_job_id, row.array_index),
            row=row,
            submission=job.submission,
            after=job.number,
        )

    def _row(
        self, job: StageJob, rows: Mapping[str, Sequence[slurm.Queued]], folder: JobDir
    ) -> slurm.Queued | None:
        """The element of a submission, if it waits or runs; adopts a job without a recorded id."""
        elements = rows.get(job.submission)
        if not elements:
            return None
        if not folder.job_file.exists():
            # Its submitter died between sbatch's answer and writing it down.
            folder.write_job_id(elements[0].array_job_id, slurm.site().name)
        return next((row for row in elements if row.array_index == job.index), None)

    def _is_here(self, submission: str) -> bool:
        """Whether a submission went to the cluster that this machine reaches."""
        if submission not in self._clusters:
            try:
                self._clusters[submission] = job_dir(self.store, submission).submission().cluster
            except FileNotFoundError:  # its submitter died before it wrote more than the claim
                self._clusters[submission] = slurm.site().name
        return self._clusters[submission] == slurm.site().name

    def _is_submitting(self, job: StageJob) -> bool:
        owner = job.submitter
        if job_dir(self.store, job.submission).refused.exists():
            return False
        return owner != leases.this_process() and leases.is_alive(owner) is not False

    def _awaited(self, jobs: Sequence[StageJob], names: set[str]) -> dict[str, list[slurm.Queued]]:
        """Rows of jobs that were about to be submitted, once they are there or cannot come.

        The sbatch of a submitter that was killed may still be on its way.
        """
        of_name = {job.submission: job for job in jobs if job.submission in names}
        end = time.monotonic() + SUBMITTER_WAIT_S
        found: dict[str, list[slurm.Queued]] = {}
        grace, told = 1, False
        while open_names := names - found.keys():
            settled = not any(
                self._is_submitting(of_name[name])
                and not job_dir(self.store, name).job_file.exists()
                for name in open_names
            )
            if not settled and not told:
                told = True
                self.say("another command is submitting stages of this study; waiting for it")
            time.sleep(0.5)
            found.update(slurm.queued(open_names))
            if time.monotonic() >= end or (settled and grace == 0):
                break
            grace -= settled
        return found

    def _leave_to_others(self, found: dict[StageRef, Found]) -> None:
        """What needs a stage of another cluster cannot wait for it here."""
        for stage in self.plan.stages:
            parents = [found[ref] for ref in stage.spec.inputs.values()]
            if found[stage.ref].state == "missing" and any(
                parent.state == "elsewhere" for parent in parents
            ):
                found[stage.ref] = replace(found[stage.ref], state="elsewhere")

    def _give_up_doomed(self, found: dict[StageRef, Found]) -> None:
        """Take what waits for an element that is over out of the queue, to be submitted anew."""
        doomed = []
        for stage in self.plan.stages:
            this = found[stage.ref]
            if this.state != "queued" or this.row is None or this.row.state != "PENDING":
                continue
            parents = [found[ref] for ref in stage.spec.inputs.values()]
            if this.row.user != this_user():
                continue  # theirs to type again
            if this.row.never_runs or any(parent.state == "missing" for parent in parents):
                doomed.append(this.row.element)
                found[stage.ref] = Found(state="missing", after=this.after)
        slurm.cancel(doomed)

    def _counted(self, found: Mapping[StageRef, Found]) -> Submitted:
        states = [this.state for this in found.values()]
        others = {}
        for this in found.values():
            if this.row is not None and this.submission:
                with contextlib.suppress(OSError, StoreError):
                    theirs = job_dir(self.store, this.submission).submission()
                    if theirs.study != self.plan.study or theirs.user != this_user():
                        others[this.row.array_job_id] = (
                            f"job {this.row.array_job_id} of study {theirs.study} "
                            f"(user {theirs.user})"
                        )
        return Submitted(
            done=states.count("done"),
            queued=states.count("queued"),
            login=states.count("login"),
            elsewhere=states.count("elsewhere"),
            others=list(others.values()),
        )

    def release(self, found: Mapping[StageRef, Found]) -> list[str]:
        """Release elements that Slurm holds after a failed launch, where nobody is at the stage."""
        released = []
        for element in releasable(self.store, {ref: this.row for ref, this in found.items()}):
            with contextlib.suppress(SlurmError):
                slurm.release(element)
                released.append(element)
        return released

    # ------------------------------------------------------------------ submitting

    def _to_submit(self, stage: PlannedStage, found: Mapping[StageRef, Found]) -> ToSubmit:
        parents = {ref: found[ref] for ref in stage.spec.inputs.values()}
        return ToSubmit(
            ref=stage.ref,
            shape=self._shape(stage),
            parents=frozenset(ref for ref, p in parents.items() if p.state == "missing"),
            queued=frozenset(p.element for p in parents.values() if p.element is not None),
        )

    def _shape(self, stage: PlannedStage) -> tuple[str, JobShape]:
        shape = job_shape(self.cluster, stage.spec.kind, stage.execution)
        lead_s = needed_lead_s(self.store.stage(stage.ref))
        return str(stage.spec.kind), with_lead(shape, lead_s)

    def _submission(self, array: PlannedArray, site: slurm.Site) -> Submission:
        kind, _ = cast(tuple[str, JobShape], array.shape)
        cluster = self.cluster
        return Submission(
            name=new_name(self.plan.study, kind),
            study=self.plan.study,
            user=this_user(),
            host=this_host(),
            cluster=site.name,
            submitted_at=round(time.time(), 3),
            elements={},
            max_tries=cluster.max_tries or 3,
            parents_wait_s=_or(cluster.parents_wait_s, 90),
            storage_wait_min=_or(cluster.storage_wait_min, 30),
            silent_s=_or(cluster.silent_s, 120),
        )

    def _claimed(
        self, array: PlannedArray, submission: Submission, found: Mapping[StageRef, Found]
    ) -> dict[int, StageRef]:
        """The elements of an array that no other command has taken meanwhile."""
        by_ref, me = self.plan.by_ref, leases.this_process()

        def claim(element: tuple[int, StageRef]) -> bool:
            index, ref = element
            stage, planned = self.store.stage(ref), by_ref[ref]
            prepare(stage, planned.spec)
            job = StageJob(
                submission=submission.name,
                index=index,
                execution=replace(planned.execution, study=submission.study),
                submitter=me,
            )
            return StageJobs(stage).claim(job, after=found[ref].after)

        elements = list(array.elements.items())
        pool = ThreadPoolExecutor(CLAIMING_THREADS)
        try:
            is_ours = list(pool.map(claim, elements))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C the rest stays unclaimed
        for folder in {self.store.stage(ref).path.parent for ref in array.elements.values()}:
            fsync_directory(folder)  # the stages' own directories may be new
        return dict(itertools.compress(elements, is_ours))

    def _submit_array(
        self,
        array: PlannedArray,
        elements: Mapping[int, StageRef],
        submission: Submission,
        job_ids: Mapping[int, int],
        *,
        code: Path,
    ) -> int:
        """Write everything down, call sbatch, write its answer down."""
        _, shape = cast(tuple[str, JobShape], array.shape)
        folder = write_submission(self.store, replace(submission, elements=elements))
        text = batch_script(
            folder.path,
            name=submission.name,
            shape=shape,
            script=Script(
                code=code,
                preamble=preamble_path(self.cluster),
                env=self.cluster.env or {},
                directory=self.store.root,
            ),
            indices=sorted(elements),
            dependency=dependency(array, job_ids),
            comment=f"scalesweep {self.plan.study}",
        )
        job_id = self._sbatch(folder, submission, text)
        folder.write_job_id(job_id, submission.cluster)
        return job_id

    def _sbatch(self, folder: JobDir, submission: Submission, text: str) -> int:
        """Submit once: where sbatch failed the job may be in the queue all the same."""
        env = allowed(self.environment, also=self.cluster.export or ())
        end = time.monotonic() + CONTROLLER_WAIT_S
        while True:
            try:
                return sbatch(folder.path, text, env=env)
            except SlurmError as error:
                if not isinstance(error, SlurmAway):
                    folder.refused.touch()
                    raise
                if time.monotonic() >= end:
                    raise
                self.say(f"{error}; trying again")
                if (job_id := self._appeared(submission.name, end, error)) is not None:
                    return job_id

    def _appeared(self, name: str, end: float, error: SlurmError) -> int | None:
        """The job of a failed sbatch, if it got into the queue; waits for the controller.

        Raises:
            SlurmAway: the queue was never seen, so that asking sbatch again might submit twice.
        """
        until = time.monotonic() + APPEARS_WITHIN_S
        while True:
            with contextlib.suppress(SlurmError):
                rows = slurm.queued([name]).get(name)
                if rows:
                    return rows[0].array_job_id
                if time.monotonic() >= until:
                    return None
            if time.monotonic() >= end:
                raise error
            time.sleep(1.0)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def job_shape(cluster: ClusterConfig, kind: StageKind, execution: Execution) -> JobShape:
    """What a stage's job asks for: the cluster's settings, and its kind's own where there are."""
    own = cluster.stage(str(kind))
    tasks = execution.devices_per_node
    devices = tasks if execution.held_devices is None else own.devices or 0
    if cluster.exclusive:
        devices = execution.node_devices if execution.held_devices else 0
    timeout_min = own.timeout_min or cluster.timeout_min or 60
    return JobShape(
        nodes=execution.num_nodes,
        tasks_per_node=tasks,
        devices_per_node=devices,
        gres=cluster.gres,
        cpus_per_task=execution.cpus_per_rank,
        memory_gb=cluster.memory_gb if own.memory_gb is None else own.memory_gb,
        timeout_min=timeout_min,
        signal_lead_s=min(_or(cluster.signal_lead_s, 300), 30 * timeout_min),
        partition=own.partition or cluster.partition,
        account=own.account or cluster.account,
        qos=own.qos or cluster.qos,
        constraint=own.constraint or cluster.constraint,
        exclusive=bool(cluster.exclusive) and devices > 0,
        array_parallelism=cluster.array_parallelism or 256,
        options=tuple(cluster.sbatch or ()),
    )


def needed_lead_s(stage: StageDir) -> float:
    """Seconds that a stage needs to save and stop, by what its earlier attempts measured; or 0."""
    longest = Measured()
    for attempt in stage.attempts():
        longest = longest.longest(attempt.measured())
    return longest.lead_s


def with_lead(shape: JobShape, lead_s: float) -> JobShape:
    """Warned early enough to save: never later than configured, half the time limit at most.

    In whole minutes, so that few stages leave the array of the others for it.
    """
    lead = max(shape.signal_lead_s, 60 * math.ceil(lead_s / 60))
    return replace(shape, signal_lead_s=min(lead, 30 * shape.timeout_min))
