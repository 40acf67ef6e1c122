"""Run descriptions as offline W&B runs. Only here is anything written with wandb.

A run record holds what its description says and nothing of this process: no arguments, paths, host,
git state, console or code (wandb collects all of them unless told otherwise, and writes arguments
and paths in clear text). Tables are bound to the run before they are logged, which makes them files
of the run; wandb would otherwise make each one an artifact too, whose record names an absolute path
in the home directory, and which cannot be uploaded from any other machine.

wandb does not say when the disk is full: logging and finishing go on in silence. So each file is
read back and counted before its run is taken for written.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scalesweep.errors import StoreError
from scalesweep.tracking import metric_names
from scalesweep.tracking.runs import RunDescription
from scalesweep.tracking.transaction_log import records

# Tried with wandb 0.31.0: with these, planted arguments, paths and host names are found in no byte
# of a .wandb file. A version that does not know one of them is refused, as it might leak.
_PRIVATE = {
    "host": "",
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "console": "off",
}
_TABLES = "tables/"
_PAGE = "report"


def write_runs(
    runs: Sequence[RunDescription], *, root: Path, project: str, entity: str | None
) -> list[Path]:
    """Writes root/wandb/offline-run-<time>-<id> for each run; their paths.

    Raises:
        StoreError: wandb refused, or what it wrote is not whole.
    """
    if not runs:  # wandb takes two seconds to import
        return []
    with _private_wandb(root / "scratch"):
        folders = [_write_run(run, root=root, project=project, entity=entity) for run in runs]
    # Only now: finish() returns before the file is flushed, the end of wandb's process does not.
    for run, folder in zip(runs, folders, strict=True):
        check_whole(folder / f"run-{run.id}.wandb", run)
        for name in ("logs", "tmp"):  # not uploaded, and the logs name absolute paths
            shutil.rmtree(folder / name, ignore_errors=True)
    return folders


@contextlib.contextmanager
def _private_wandb(scratch: Path) -> Iterator[None]:
    """Within it wandb knows no key and no settings of the user, and keeps its own logs in scratch.

    Its background process ends with it.
    """
    saved = dict(os.environ)
    for name in saved:
        if name.startswith("WANDB_"):
            del os.environ[name]
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"):
        os.environ[name] = str(scratch)
    try:
        import wandb

        try:
            yield
        finally:
            wandb.teardown()
    finally:
        os.environ.clear()
        os.environ.update(saved)


def _write_run(run: RunDescription, *, root: Path, project: str, entity: str | None) -> Path:
    import wandb

    settings = {
        **_PRIVATE,
        "mode": "offline",
        "silent": True,
        "root_dir": str(root),
        "project": project,
        "entity": entity,
        "run_id": run.id,
        "run_name": run.name,
        "run_group": run.group,
        "run_job_type": run.job_type,
        "run_tags": run.tags,
        "run_notes": run.notes or None,
    }
    unknown = sorted(settings.keys() - wandb.Settings.model_fields.keys())
    if unknown:
        raise StoreError(
            f"wandb {wandb.__version__} does not know the settings {', '.join(unknown)}, so it "
            "might write private things; install wandb 0.31"
        )
    try:
        live = wandb.init(settings=wandb.Settings(**settings), config=dict(run.config))
        _log(live, run)
        live.summary.update(dict(run.summary))
        live.finish(exit_code=_exit_code(run))
    except (wandb.Error, OSError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StoreError(f"W&B run {run.name} was not written: {said}") from error
    return Path(live.settings.sync_dir)


def _log(live: Any, run: RunDescription) -> None:
    """Logs curves, tables and page."""
    import wandb

    for section, rows in run.sections.items():
        step = f"{section}/{metric_names.STEP}"
        live.define_metric(step)
        live.define_metric(f"{section}/*", step_metric=step)
        for row in rows:
            live.log({f"{section}/{name}": value for name, value in row.items()})
    shown: dict[str, Any] = {}
    for name, data in run.tables.items():
        table = wandb.Table(columns=list(data.columns), data=[list(row) for row in data.rows])
        table.bind_to_run(live, f"{_TABLES}{name}", 0)
        shown[f"{_TABLES}{name}"] = table
    if run.page:
        shown[_PAGE] = wandb.Html(run.page, inject=False)
    if shown:
        live.log(shown)


def _exit_code(run: RunDescription) -> int:
    return 0 if run.is_done else 1


def check_whole(path: Path, run: RunDescription) -> None:
    """Refuse a .wandb file that lacks rows, the last step of a section, or its end.

    Raises:
        StoreError: it does; the disk is probably full.
    """
    num_rows = sum(len(rows) for rows in run.sections.values()) + bool(run.tables or run.page)
    rows, exit_code = read_back(path)
    if (len(rows), last_steps(rows), exit_code) != (num_rows, run.last_steps, _exit_code(run)):
        raise StoreError(
            f"W&B run {run.name} is not whole on disk ({len(rows)} of {num_rows} rows, "
            f"{'no end' if exit_code is None else 'ended'}); is the disk full? wandb does not say"
        )


SectionSteps = dict[str, int]
"""Section -> its step, of one row; none in a row of tables."""


def read_back(path: Path) -> tuple[list[SectionSteps], int | None]:
    """Steps of each row of a .wandb file, and the exit code; None where it has no end."""
    from wandb.proto import wandb_internal_pb2

    rows: list[SectionSteps] = []
    exit_code = None
    with contextlib.suppress(FileNotFoundError):
        for data in records(path):
            record = wandb_internal_pb2.Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "exit":
                exit_code = record.exit.exit_code
            elif kind == "history":
                rows.append({})
                for item in record.history.item:
                    section, _, name = (item.key or ".".join(item.nested_key)).rpartition("/")
                    if name == metric_names.STEP:
                        rows[-1][section] = json.loads(item.value_json)
    return rows, exit_code


def last_steps(rows: Sequence[SectionSteps]) -> SectionSteps:
    """Section -> its last step."""
    last: SectionSteps = {}
    for row in rows:
        last |= row
    return last
