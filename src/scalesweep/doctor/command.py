"""The verb itself: look, print, and the exit status."""

from __future__ import annotations

from pathlib import Path

from scalesweep.doctor.files import plan_files
from scalesweep.doctor.findings import any_broken
from scalesweep.doctor.machine import machine_findings
from scalesweep.doctor.probe import probe_findings
from scalesweep.doctor.show import as_json, files_text, machine_text
from scalesweep.plan.graph import Plan

WELL, BROKEN = 0, 1


def doctor(store: Path, plan: Plan | None, *, as_json_text: bool, hash_all: bool) -> int:
    """Print what this machine will use and, of a plan, every file it needs.

    Exit status 1 when something is missing or broken.
    """
    findings = [*machine_findings(store), *probe_findings()]
    groups = None if plan is None else plan_files(plan, hash_all=hash_all)
    if as_json_text:
        print(as_json(findings, groups))
    else:
        print(machine_text(findings))
        if plan is not None and groups is not None:
            print()
            print(files_text(groups, study=plan.study))
    whole = groups is None or all(group.is_whole for group in groups)
    return WELL if whole and not any_broken(findings) else BROKEN
