"""The hub is asked shortly, and its refusals become words that help; silence says nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from scalesweep import hub_access
from scalesweep.hub_access import ask_hub, is_offline
from scalesweep.models.hub import HubId

REFUSALS = {
    "/meta/gated": (403, "GatedRepo"),
    "/some/gone": (404, "RepoNotFound"),
    "/some/private": (401, "RepoNotFound"),
    "/some/old": (404, "RevisionNotFound"),
    "/some/broken": (500, ""),
}


class FakeHub(BaseHTTPRequestHandler):
    """Answers a request for a file's header as the hub does."""

    asked: list[str]

    def do_HEAD(self) -> None:
        type(self).asked.append(self.path)
        if self.path.startswith("/some/slow"):
            time.sleep(3)
        status, code = next(
            (answer for path, answer in REFUSALS.items() if self.path.startswith(path)), (200, "")
        )
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("ETag", '"1"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", "2")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    handler = type("Handler", (FakeHub,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_each_refusal_has_its_way_out_and_the_rest_is_silence(hub: type[FakeHub]) -> None:
    ids = {
        name: HubId(f"{owner}/{name}", "main")
        for owner, name in [("meta", "gated"), *(("some", n) for n in (
            "gone", "private", "old", "broken", "fine"))]
    }  # fmt: skip

    said = {one.repository: text for one, text in ask_hub(list(ids.values())).items()}

    assert said == {
        "meta/gated": "meta/gated is gated: accept its licence at https://huggingface.co/meta/gated"
        ", log in with `hf auth login`, then `hf download meta/gated --revision main`",
        "some/gone": "the hub has no repository some/gone, or a private one; correct the name, or "
        "log in with `hf auth login`",
        "some/private": "the hub has no repository some/private, or a private one; correct the "
        "name, or log in with `hf auth login`",
        "some/old": "some/old has no revision main; see https://huggingface.co/some/old/commits",
    }
    assert "/meta/gated/resolve/main/config.json" in hub.asked
    assert len(hub.asked) == 6  # once each


def test_a_hub_that_is_not_there_says_nothing_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("HF_HUB_OFFLINE")

    assert ask_hub([HubId("some/one", "main")]) == {}


@pytest.mark.usefixtures("hub")
def test_a_hub_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "REQUEST_TIMEOUT_S", 0.2)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    started = time.monotonic()

    assert hub_access.objection(HubId("some/slow", "main")) is None

    assert time.monotonic() - started < 2.5


@pytest.mark.usefixtures("hub")
def test_the_whole_question_takes_no_longer_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "TIMEOUT_S", 0.05)

    assert ask_hub([HubId("some/one", "main")]) == {}


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_hubs_own_variables_forbid_asking(
    hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")

    assert ask_hub([HubId("meta/gated", "main")]) == {}
    assert hub.asked == []
    assert is_offline({variable: "yes"})
    assert not is_offline({variable: "0"})
