"""A study on Slurm: what the command that submits it does and says. Then it returns."""

from __future__ import annotations

from scalesweep.config.run import RunConfig
from scalesweep.errors import StoreError
from scalesweep.launch.local import announce
from scalesweep.launch.submit import Submitted, Submitter
from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store


def submit_study(plan: Plan, store: Store, config: RunConfig, part: Plan) -> Submitted:
    """Submit what is missing, and say what was done.

    part: of the plan, what its budget has room for.

    Raises:
        SlurmError: Slurm does not answer or refuses; the same line goes on from there.
        StoreError: the store cannot be written.
    """
    try:
        store.study(plan.study).mkdir(parents=True, exist_ok=True)
        announce(store, plan)
        result = Submitter(plan=part, store=store, cluster=config.cluster).submit()
    except OSError as error:
        raise StoreError(
            f"store={store.root}: cannot be written ({error.strerror or error}); choose another "
            "with store=DIR, on a file system that all nodes see"
        ) from error
    taken = {stage.ref for stage in part.stages}
    left_out = [stage.ref for stage in plan.stages if stage.ref not in taken]
    num_left_out = sum(not store.stage(ref).is_done for ref in left_out)
    for line in submitted_lines(plan, result, num_left_out=num_left_out):
        print(line)
    return result


def submitted_lines(plan: Plan, result: Submitted, *, num_left_out: int = 0) -> list[str]:
    """What was submitted, what there was, and what to type next."""
    total = len(plan.stages)
    lines = [
        f"study {plan.study}: {len(plan.cells)} cells, {total} stages; {result.done} done, "
        f"{result.queued} waited or ran already, {result.stages} submitted in "
        f"{result.arrays} job arrays"
    ]
    if result.jobs:
        shown = ", ".join(result.jobs[:12]) + (", ..." if len(result.jobs) > 12 else "")
        lines.append(f"jobs {shown}")
    lines += [f"waits for {line}" for line in result.others]
    if result.released:
        lines.append(
            f"released {', '.join(result.released)}: Slurm held them after a failed launch"
        )
    if result.elsewhere:
        lines.append(
            f"{result.elsewhere} stages were submitted to another cluster, which cannot be seen "
            "from here; type the line there"
        )
    if num_left_out:
        lines.append(f"{num_left_out} stages are left out: the budget has no room for their cells")
    if result.login:
        lines.append(
            f"{result.login} judge stages wait for this machine: `scalesweep judge {plan.study}`, "
            "or leave `watch` running"
        )
    if result.done == total:
        lines.append("all is done")
    else:
        lines.append(
            "this shell may close; from any other: "
            f"scalesweep status|watch|logs|cancel {plan.study}"
        )
    return lines
