"""An OpenAI-compatible endpoint on loopback that breaks in scripted ways; real HTTP.

What happens to a request is decided by its text, the seed and how often it came before, so two
runs see the same faults whatever the order. Every request is counted.

    python -m tests.fakes.judge_server [--fault-rate F] [--seed N] [--delay S]   prints its address
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import email.utils
import hashlib
import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

RETRIED = ("429", "429-date", "500", "time-out", "half", "not-json", "no-choices", "reset", "slow")
"""Faults after which the same request is answered, sooner or later."""

Verdict = Callable[[Mapping[str, Any], int], str]
"""(request, how often its first message was judged before) -> reply."""


def letter_verdict(request: Mapping[str, Any], times: int) -> str:
    """ "<n> <m>" made of the request's text, so that any two requests get what is theirs; asked
    the same again it says another thing, as a model does."""
    text = json.dumps([request["messages"], times]).encode()
    digest = hashlib.sha256(text).digest()
    return f"{5 + digest[0] % 6} {1 + digest[1] % 10}\nBecause of {digest[:4].hex()}."


@dataclass
class JudgeServer:
    """Serves until closed. faults: what happens to a request, by the text of its last message."""

    fault_rate: float = 0.0
    seed: int = 0
    faults: tuple[str, ...] = RETRIED
    most_faults: int = 3
    """In a row, for one request."""
    script: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Word in the last message -> what happens to that request, one after the other, then "ok"."""
    everybody: tuple[str, ...] = ()
    """What happens to each request first, before anything else; the last of it for ever."""
    delay_s: float = 0.002
    """How long a reply takes."""
    slow_s: float = 0.15
    retry_after_s: float = 0.05
    usage: bool = True
    verdict: Verdict = letter_verdict

    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies, in the order in which they came."""
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    """Request -> whole replies that were sent."""
    did: Counter[str] = field(default_factory=Counter)
    """What happened -> how often."""
    most_at_once: int = 0
    at: list[float] = field(default_factory=list)
    """When requests came (monotonic)."""
    _open: int = 0
    _seen: Counter[str] = field(default_factory=Counter)
    port: int = 0

    # ------------------------------------------------------------------ running

    def __enter__(self) -> JudgeServer:
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._until_stopped(ready))
        self._loop.close()

    async def _until_stopped(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(
                ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError
            ):
                while await self._request(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    # ------------------------------------------------------------------ one request

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection goes on."""
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
        self.paths.append(lines[0].split(" ")[1])
        self.headers.append(headers)
        self.requests.append(body)
        self.at.append(time.monotonic())
        self._open += 1
        self.most_at_once = max(self.most_at_once, self._open)
        try:
            what = self._what(body)
            self.did[what] += 1
            return await self._do(what, body, headers, writer)
        finally:
            self._open -= 1

    def _what(self, body: Mapping[str, Any]) -> str:
        key = json.dumps(body, sort_keys=True)
        times = self._seen[key]
        self._seen[key] += 1
        if self.everybody:
            return self.everybody[min(len(self.requests), len(self.everybody)) - 1]
        last = body["messages"][-1]["content"]
        for word, happens in self.script.items():
            if word in last:
                return happens[times] if times < len(happens) else "ok"
        # The same request of another judge run is another draw: it comes when this one is answered.
        dice = random.Random(f"{self.seed} {self.answered[key]} {times} {key}")
        asked_in_vain = times - self.answered[key]
        if asked_in_vain % (self.most_faults + 1) < self.most_faults and (
            dice.random() < self.fault_rate
        ):
            return dice.choice(self.faults)
        return "ok"

    async def _do(
        self,
        what: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str],
        writer: asyncio.StreamWriter,
    ) -> bool:
        # As careless servers do; no letter of it may be written down.
        header = headers.get("authorization") or headers.get("api-key")
        echo = f"you sent {header} to http://{headers.get('host')}{self.paths[-1]}"
        if what == "slow":
            await asyncio.sleep(self.slow_s)
        if what in ("ok", "slow", "invalid", "filtered-reply", "empty"):
            await asyncio.sleep(self.delay_s)
            key = json.dumps(body, sort_keys=True)
            times = self.answered[key]
            self.answered[key] += 1
            text = {"invalid": "I would rather not say.", "empty": "", "filtered-reply": "8"}.get(
                what, ""
            ) if what not in ("ok", "slow") else self.verdict(body, times)  # fmt: skip
            reason = "content_filter" if what == "filtered-reply" else "stop"
            return await _send(writer, 200, self._completion(body, text, reason))
        if what in ("429", "429-date", "429-plain", "429-long"):
            extra = {"429": {"Retry-After": f"{self.retry_after_s:g}"},
                     "429-long": {"Retry-After": "86400"},
                     # Whole seconds: a date of now or a moment ago asks for no wait.
                     "429-date": {"Retry-After": email.utils.formatdate(time.time(), usegmt=True)},
                     }.get(what, {})  # fmt: skip
            return await _send(writer, 429, _error("slow down", "rate_limit_exceeded"), extra)
        if what in ("500", "503"):
            return await _send(writer, int(what), _error(f"broke, {echo}", "server_error"))
        if what == "quota":
            return await _send(writer, 429, _error("no money", "insufficient_quota"))
        if what == "filter":
            return await _send(writer, 400, _error("content policy", "content_filter"))
        if what == "too-long":
            return await _send(writer, 400, _error("too long", "context_length_exceeded"))
        if what == "unsupported":
            return await _send(writer, 400, _error("no max_tokens", "unsupported_parameter"))
        if what == "401":
            return await _send(writer, 401, _error(f"wrong key, {echo}", "invalid_api_key"))
        if what == "403":
            return await _send(writer, 403, _error(f"not allowed, {echo}", "forbidden"))
        if what == "404":
            return await _send(writer, 404, _error("no such model", "model_not_found"))
        if what in ("405", "407", "413", "451"):
            return await _send(writer, int(what), {"error": {"message": "nope"}})
        if what == "text":
            return await _send(writer, 400, {"error": "in plain words"})
        if what == "hostile-date":
            late = {"Retry-After": f"Mon, 01 Jan {10**20} 00:00:00 GMT"}
            return await _send(writer, 429, _error("slow down", "rate_limit_exceeded"), late)
        if what == "redirect":
            return await _send(writer, 307, {}, {"Location": "http://127.0.0.1:9/v1"})
        if what == "not-json":
            return await _send(writer, 200, f"<html>maintenance, {echo}</html>")
        if what == "no-choices":
            return await _send(writer, 200, {"error": {"message": f"oops, {echo}"}})
        if what == "half":
            whole = json.dumps(self._completion(body, "8 9", "stop")).encode()
            writer.write(_head(200, len(whole)) + whole[: len(whole) // 2])
            await writer.drain()
            return False
        if what == "drip":
            writer.write(_head(200, 1000))
            for _ in range(1000):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.05)
            return False
        if what == "time-out":
            await asyncio.sleep(3600)
        assert what in ("reset", "time-out"), what
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return False

    def _completion(self, body: Mapping[str, Any], text: str, reason: str) -> dict[str, Any]:
        length = sum(len(message["content"]) for message in body["messages"])
        usage = {"prompt_tokens": length // 5, "completion_tokens": len(text) // 5 + 1}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": f"{body['model']}-served",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": reason,
                    "message": {"role": "assistant", "content": text},
                }
            ],
            **({"usage": usage} if self.usage else {}),
        }


def _error(message: str, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, "type": code}}


def _head(status: int, length: int, extra: Mapping[str, str] | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {length}"]
    lines += [f"{name}: {value}" for name, value in (extra or {}).items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: Mapping[str, Any] | str,
    extra: Mapping[str, str] | None = None,
) -> bool:
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    writer.write(_head(status, len(data), extra) + data)
    await writer.drain()
    return True


@contextlib.contextmanager
def judge_server(**settings: Any) -> Iterator[JudgeServer]:
    with JudgeServer(**settings) as server:
        yield server


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("--fault-rate", type=float, default=0.0)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--delay", type=float, default=JudgeServer.delay_s)
    given = words.parse_args()
    with JudgeServer(fault_rate=given.fault_rate, seed=given.seed, delay_s=given.delay) as server:
        print(server.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
