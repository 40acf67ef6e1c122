"""The verb `dashboard`: a study's workspace and report on W&B, printed or sent."""

from __future__ import annotations

import json
from pathlib import Path

from scalesweep.report.command import study_report
from scalesweep.rundir import Store
from scalesweep.tracking.dashboard import dashboard
from scalesweep.tracking.views import Place, project_id, push
from scalesweep.tracking.workspaces import check_installed, documents

UNKNOWN = "(known when it is pushed)"


def show(store: Store, study: str | None, *, project: str, entity: str | None) -> str:
    """The specifications as JSON, without asking a server.

    Raises:
        ConfigError: no such study, or wandb-workspaces is not installed.
    """
    made = dashboard(study_report(store, study))
    place = Place(entity=entity or UNKNOWN, project=project)
    both = documents(made, place, project_id=UNKNOWN)
    parts = {document.what: document.to_json() for document in both}
    return json.dumps({**place.to_json(), **parts}, indent=2, ensure_ascii=False)


def send(store: Store, study: str | None, *, project: str, entity: str | None) -> list[str]:
    """Sends them; a line about each with its address.

    Raises:
        ConfigError: as for show; nobody is logged in; no such project on the server.
        ServerDown: the server does not answer.
    """
    from scalesweep.tracking.wandb_server import connect

    check_installed()
    report = study_report(store, study)
    made = dashboard(report)
    server = connect(entity)
    place = Place(entity=server.entity, project=project)
    both = documents(made, place, project_id=project_id(server, place))
    note = _note(store, report.results.plan.study)
    return [
        f"{pushed.what} {'made' if pushed.is_new else 'brought up to date'}: {pushed.url}"
        for pushed in push(server, both, place, note=note)
    ]


def _note(store: Store, study: str) -> Path:
    return store.study(study) / "dashboard.json"
