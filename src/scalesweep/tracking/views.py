"""Workspaces and reports on the W&B server: found again by their names, made or brought up to date.

A name is ours to choose, and people do not see it; the id is the server's. Both kinds are "views"
there, and are sent by the mutation that wandb-workspaces uses for them. Its own save() would give a
report another name each time, so that it is not found again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scalesweep.errors import ConfigError, ServerDown, StoreError
from scalesweep.rundir import read_json, write_json
from scalesweep.tracking.wandb_server import Server

_PROJECT = """
query ProjectInternalId($projectName: String!, $entityName: String!) {
    project(name: $projectName, entityName: $entityName) { id internalId }
}
"""
_BY_NAME = """
query View($entityName: String, $name: String, $viewType: String, $viewName: String) {
    project(name: $name, entityName: $entityName) {
        allViews(viewType: $viewType, viewName: $viewName) { edges { node { id name } } }
    }
}
"""
_BY_ID = "query SpecificReport($reportId: ID!) { view(id: $reportId) { id name } }"
_UPSERT = """
mutation upsertView(
    $id: ID, $entityName: String, $projectName: String, $type: String, $name: String,
    $displayName: String, $description: String, $spec: String!
) {
    upsertView(input: {
        id: $id, entityName: $entityName, projectName: $projectName, type: $type, name: $name,
        displayName: $displayName, description: $description, spec: $spec, createdUsing: WANDB_SDK
    }) { view { id name } inserted }
}
"""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A workspace or a report, as the server keeps them."""

    type: str
    """project-view | runs: how the server calls a workspace and a report."""
    name: str
    display_name: str
    description: str
    spec: Mapping[str, Any]

    @property
    def what(self) -> str:
        return "workspace" if self.type == "project-view" else "report"

    def to_json(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "name": self.name,
            "displayName": self.display_name,
            "description": self.description,
            "spec": self.spec,
        }


@dataclass(frozen=True, kw_only=True)
class Pushed:
    what: str
    """workspace | report"""
    url: str
    is_new: bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """A W&B project."""

    entity: str
    project: str

    def to_json(self) -> dict[str, str]:
        return {"entityName": self.entity, "projectName": self.project}


def project_id(server: Server, place: Place) -> str:
    """The server's own id of a project.

    Raises:
        ConfigError: no such project.
    """
    found = server.ask(_PROJECT, place.to_json()).get("project")
    if not found:
        raise ConfigError(
            f"W&B has no project {place.project} of {place.entity} that you can see; `sync` makes "
            "it"
        )
    return str(found["internalId"])


def push(
    server: Server, documents: Sequence[Document], place: Place, *, note: Path
) -> list[Pushed]:
    """Makes documents on the server, or brings those that are there up to date.

    note: file that keeps their ids, should the server not find them by name.

    Raises:
        ServerDown: the server does not answer.
    """
    known = _read_note(note, place)
    pushed = []
    for document in documents:
        known_id = _find(server, document, place, known.get(document.what))
        asked = {
            **place.to_json(),
            **({"id": known_id} if known_id else {}),
            **document.to_json(),
            "spec": json.dumps(document.spec),
        }
        view_id = str(server.ask(_UPSERT, asked)["upsertView"]["view"]["id"])
        known[document.what] = view_id
        write_json(note, {**place.to_json(), **known})
        pushed.append(
            Pushed(
                what=document.what,
                url=_url(server.url, document, view_id, place),
                is_new=known_id is None,
            )
        )
    return pushed


def _find(server: Server, document: Document, place: Place, known_id: str | None) -> str | None:
    """Its id on the server; None where it is not there."""
    asked = {
        "entityName": place.entity,
        "name": place.project,
        "viewType": document.type,
        "viewName": document.name,
    }
    views = (server.ask(_BY_NAME, asked).get("project") or {}).get("allViews") or {}
    for edge in views.get("edges") or ():
        if edge["node"].get("name") == document.name:
            return str(edge["node"]["id"])
    if known_id:
        try:
            view = server.ask(_BY_ID, {"reportId": known_id}).get("view")
        except ServerDown:  # it may answer so where somebody deleted it
            return None
        return str(view["id"]) if view else None
    return None


def _url(base: str, document: Document, view_id: str, place: Place) -> str:
    page = f"{base}/{quote(place.entity)}/{quote(place.project)}"
    if document.what == "workspace":
        return f"{page}?nw={document.name.removeprefix('nw-').removesuffix('-v')}"
    return f"{page}/reports/{quote(document.display_name.replace(' ', '-'))}--{view_id}"


def _read_note(path: Path, place: Place) -> dict[str, str]:
    """What -> its id in this project."""
    try:
        note = read_json(path)
    except (OSError, StoreError):
        return {}
    if any(note.get(key) != value for key, value in place.to_json().items()):
        return {}
    return {what: str(note[what]) for what in ("workspace", "report") if note.get(what)}
