"""A server on loopback that speaks as much of W&B's protocol as wandb 0.31 writes by; real HTTP.

GraphQL for runs, files, artifacts and views; the file stream of rows and summaries; uploads of
files. What it was sent is kept whole, headers too. It can be told to break. It serves from threads
of the test's process, so it ends with the test at the latest.

Written from what wandb 0.31.0 sends; whether wandb.ai itself answers alike was never seen.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789abcdef" * 3
"""Accepted as an API key, as any other is."""
ENTITY = "team"
"""Of whoever logs in."""

HISTORY, EVENTS, SUMMARY = "wandb-history.jsonl", "wandb-events.jsonl", "wandb-summary.json"


def node_id(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@dataclass
class ReceivedRun:
    """A run as the server has it."""

    entity: str
    project: str
    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    """displayName, groupName, jobType, tags, notes, config, ... as they were last sent."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return node_id(f"Run:v1:{self.name}:{self.project}:{self.entity}")

    @property
    def config(self) -> dict[str, Any]:
        """Key -> value, without wandb's own."""
        told = json.loads(self.fields.get("config") or "{}")
        return {key: item["value"] for key, item in told.items() if key != "_wandb"}


@dataclass
class WandbServer:
    """Serves until closed."""

    fault: str = ""
    """"": none; "500": that status; "reset": the connection is cut; "401": not logged in."""
    fault_paths: tuple[str, ...] = ("graphql", "file_stream", "storage")
    rows_until_fault: int | None = None
    """Rows that are taken before the server breaks by itself, without a word to who sent them."""

    runs: dict[str, ReceivedRun] = field(default_factory=dict)
    """By the run's id, whatever its project."""
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Workspaces and reports by their id."""
    projects: set[str] = field(default_factory=set)
    raw: list[bytes] = field(default_factory=list)
    """Every request: its line, headers and body, decompressed."""
    asked: Counter[str] = field(default_factory=Counter)
    """GraphQL operation, or what else was asked for -> how often."""
    unknown: list[str] = field(default_factory=list)
    """GraphQL operations that this server does not know."""

    def __enter__(self) -> WandbServer:
        outer = self
        self._lock = threading.Lock()

        class Handler(_Handler):
            server_state = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What wandb needs to come here."""
        return {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": KEY}

    def everything(self) -> bytes:
        return b"\n".join(self.raw)

    def rows_of(self, run: str, section: str) -> list[tuple[int, dict[str, Any]]]:
        """(step, row) of one section of a run, in the order in which they came."""
        rows = self.runs[run].rows
        key = f"{section}/step"
        return [(int(row[key]), row) for row in rows if key in row]

    # ------------------------------------------------------------------ what is answered

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Status and reply (JSON unless bytes)."""
        with self._lock:
            kind = "graphql" if path == "/graphql" else "other"
            if stream := re.fullmatch(r"/files/([^/]+)/([^/]+)/([^/]+)/file_stream", path):
                kind = "file_stream"
            elif path.startswith("/storage/"):
                kind = "storage"
            if self.fault and kind in self.fault_paths:
                self.asked[f"fault {kind}"] += 1
                return (0 if self.fault == "reset" else int(self.fault)), {"error": "scripted"}
            if kind == "graphql":
                return self._graphql(json.loads(body))
            if stream:
                return self._file_stream(*stream.groups(), json.loads(body))
            if kind == "storage" and method == "PUT":
                return self._stored(path, body)
            self.asked[f"{method} {path.partition('?')[0]}"] += 1
            return 404, {}

    def _graphql(self, request: Mapping[str, Any]) -> tuple[int, Any]:
        found = re.search(r"\b(?:query|mutation)\s+(\w+)", request["query"])
        name = found[1] if found else "?"
        self.asked[name] += 1
        if name not in OPERATIONS:
            self.unknown.append(name)
            # With another status the client would ask again for minutes.
            return 200, {"data": None, "errors": [{"message": f"not known: {name}"}]}
        return 200, {"data": OPERATIONS[name](self, request.get("variables") or {})}

    def _file_stream(
        self, entity: str, project: str, name: str, request: Mapping[str, Any]
    ) -> tuple[int, Any]:
        self.asked["file_stream"] += 1
        run = self._run(entity, project, name)
        for file, part in (request.get("files") or {}).items():
            content, offset = part.get("content") or [], part.get("offset", 0)
            if file == HISTORY:
                run.rows[offset:] = [json.loads(row) for row in content]
            elif file == SUMMARY and content:
                run.summary = json.loads(content[-1])
        if request.get("complete"):
            run.exit_code = request.get("exitcode")
        taken = sum(len(run.rows) for run in self.runs.values())
        if self.rows_until_fault is not None and taken >= self.rows_until_fault:
            self.rows_until_fault, self.fault = None, "reset"
            return 0, None
        return 200, {"exitcode": None, "limits": {}}

    def _stored(self, path: str, body: bytes) -> tuple[int, Any]:
        self.asked["storage"] += 1
        _, _, name, file = path.removeprefix("/").split("/", 3)
        self.runs[name].files[file] = body
        return 200, b""

    # ------------------------------------------------------------------ operations

    def _run(self, entity: str, project: str, name: str) -> ReceivedRun:
        self.projects.add(project)
        return self.runs.setdefault(name, ReceivedRun(entity=entity, project=project, name=name))

    def _project(self, entity: str | None, project: str) -> dict[str, Any]:
        entity = entity or ENTITY
        return {
            "id": node_id(f"Project:{project}"),
            "internalId": node_id(f"ProjectInternalId:{project}"),
            "name": project,
            "entityName": entity,
            "entity": {"id": node_id(f"Entity:{entity}"), "name": entity},
        }

    def _viewer(self, _: Mapping[str, Any]) -> Any:
        return {
            "viewer": {
                "id": node_id("User:1"),
                "entity": ENTITY,
                "username": "me",
                "name": "me",
                "email": "me@example.invalid",
                "admin": False,
                "flags": "{}",
                "teams": {"edges": [{"node": {"name": ENTITY, "id": node_id("Entity:team")}}]},
                "apiKeys": {"edges": []},
            }
        }

    def _default_entity(self, _: Mapping[str, Any]) -> Any:
        return {"viewer": {"id": node_id("User:1"), "entity": ENTITY}}

    def _server_features(self, _: Mapping[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def _organization(self, _: Mapping[str, Any]) -> Any:
        return {"entity": None}

    def _resume_status(self, asked: Mapping[str, Any]) -> Any:
        run = self.runs.get(asked["name"])
        if run is not None and run.project != asked.get("project"):
            run = None
        project = self._project(asked.get("entity"), str(asked.get("project")))
        return {"model": {**project, "bucket": None if run is None else _resumable(run)}}

    def _upsert_run(self, asked: Mapping[str, Any]) -> Any:
        if asked.get("name"):
            is_new = asked["name"] not in self.runs
            run = self._run(asked.get("entity") or ENTITY, asked["project"], asked["name"])
        else:
            is_new = False
            run = next(run for run in self.runs.values() if run.id == asked["id"])
        run.fields |= {key: value for key, value in asked.items() if value is not None}
        bucket = {
            "id": run.id,
            "name": run.name,
            "displayName": run.fields.get("displayName"),
            "config": run.fields.get("config"),
            "project": self._project(run.entity, run.project),
            "historyLineCount": len(run.rows),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": is_new}}

    def _run_stopped(self, _: Mapping[str, Any]) -> Any:
        return {"project": {"run": {"stopped": False}}}

    def _create_files(self, asked: Mapping[str, Any]) -> Any:
        run = asked["run"]
        base = f"{self.url}/storage/run/{run}/"
        files = [{"name": name, "uploadUrl": base + name} for name in asked["files"]]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    # Workspaces and reports. Ids are the server's; a name is taken as it comes.

    def _upsert_view(self, asked: Mapping[str, Any]) -> Any:
        view_id = asked.get("id")
        is_new = not view_id
        if is_new:
            view_id = node_id(f"View:{len(self.views)}")
        elif view_id not in self.views:
            raise KeyError(view_id)
        view = {key: value for key, value in asked.items() if value is not None}
        self.views[str(view_id)] = {**view, "id": view_id}
        shown = self._view(self.views[str(view_id)])
        return {"upsertView": {"view": shown, "inserted": is_new}}

    def _view(self, view: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "description": "",
            **{key: view.get(key) for key in ("id", "type", "name", "displayName", "spec")},
            "project": self._project(view["entityName"], view["projectName"]),
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": "2026-01-01T00:00:00",
        }

    def _find_view(self, asked: Mapping[str, Any]) -> Any:
        if asked["name"] not in self.projects:
            return {"project": None}
        found = [
            self._view(view)
            for view in self.views.values()
            if (view["type"], view["name"], view["projectName"])
            == (asked["viewType"], asked["viewName"], asked["name"])
        ]
        return {"project": {"allViews": {"edges": [{"node": view} for view in found]}}}

    def _view_by_id(self, asked: Mapping[str, Any]) -> Any:
        view = self.views.get(asked["reportId"])
        return {"view": None if view is None else self._view(view)}

    def _project_id(self, asked: Mapping[str, Any]) -> Any:
        if asked["projectName"] not in self.projects:
            return {"project": None}
        return {"project": self._project(asked.get("entityName"), asked["projectName"])}


OPERATIONS: dict[str, Callable[[WandbServer, Mapping[str, Any]], Any]] = {
    "Viewer": WandbServer._viewer,
    "GetViewer": WandbServer._viewer,
    "GetDefaultEntity": WandbServer._default_entity,
    "ServerFeaturesQuery": WandbServer._server_features,
    "OrganizationCoreWeaveOrganizationID": WandbServer._organization,
    "RunResumeStatus": WandbServer._resume_status,
    "UpsertBucket": WandbServer._upsert_run,
    "RunStoppedStatus": WandbServer._run_stopped,
    "CreateRunFiles": WandbServer._create_files,
    "upsertView": WandbServer._upsert_view,
    "View": WandbServer._find_view,
    "SpecificReport": WandbServer._view_by_id,
    "ProjectInternalId": WandbServer._project_id,
}


def _resumable(run: ReceivedRun) -> dict[str, Any]:
    tail = [json.dumps(row) for row in run.rows[-1:]]
    return {
        "id": run.id,
        "name": run.name,
        "displayName": run.fields.get("displayName"),
        "summaryMetrics": json.dumps(run.summary),
        "logLineCount": 0,
        "historyLineCount": len(run.rows),
        "eventsLineCount": 0,
        "historyTail": json.dumps(tail),
        "eventsTail": "[]",
        "config": run.fields.get("config") or "{}",
        "tags": run.fields.get("tags") or [],
        "notes": run.fields.get("notes"),
        "wandbConfig": '{"t": 1}',
    }


class _Handler(BaseHTTPRequestHandler):
    server_state: WandbServer
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _serve(self) -> None:
        body = self._body()
        state = self.server_state
        head = f"{self.requestline}\n{self.headers}".encode()
        state.raw.append(head + body)
        status, reply = state.answer(self.command, self.path, body)
        if not status:
            self.close_connection = True
            return
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            data = b"".join(parts)
        else:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        encoding = self.headers.get("Content-Encoding")
        if encoding == "gzip":
            return gzip.decompress(data)
        return zlib.decompress(data) if encoding == "deflate" else data

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    with WandbServer() as server:
        print(server.url, flush=True)
        time.sleep(3600)
