"""Whether two stores hold the same bytes: python -m tests.slurm.compare STORE OTHER [STUDY]

For each stage of the study that both have done it compares the hash over all bytes published.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scalesweep.plan.graph import Plan
from scalesweep.rundir import Store, read_json


def differing(store: Store, other: Store, study: str) -> tuple[int, list[str]]:
    """How many stages both have, and the labels of those whose bytes differ."""
    plan = Plan.from_json(read_json(store.study(study) / "plan.json"))
    common, found = 0, []
    for stage in plan.stages:
        here, there = (s.stage(stage.spec.ref).done() for s in (store, other))
        if here is None or there is None:
            continue
        common += 1
        if here.digest != there.digest:
            found.append(stage.spec.label)
    return common, found


def main(words: list[str]) -> int:
    study = words[2] if len(words) > 2 else "quickstart"
    common, found = differing(Store(Path(words[0])), Store(Path(words[1])), study)
    for label in found:
        print(f"differs: {label}")
    print(f"{study}: {common - len(found)} of {common} stages have the same bytes in both stores")
    return 1 if found or not common else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
