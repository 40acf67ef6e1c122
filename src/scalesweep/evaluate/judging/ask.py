"""The replies of a judge to all items of a benchmark, in all of its runs."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import os
import random
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from scalesweep.errors import Interrupted, StageError
from scalesweep.evaluate.judging.account import JudgingFile
from scalesweep.evaluate.judging.client import (
    AGAIN,
    FOR_ITEM,
    Failure,
    Fault,
    JudgeClient,
    Received,
)
from scalesweep.evaluate.judging.items import JudgeItem, Replies, Reply, Request
from scalesweep.evaluate.judging.pace import Pace
from scalesweep.evaluate.judging.price import Estimate, Meter, most_usd, price_of, usd_text
from scalesweep.evaluate.judging.store import Asked, ReplyStore, StoredReply
from scalesweep.specs import JudgeSpec
from scalesweep.stages import StageContext
from scalesweep.tracking import metric_names as names

log = logging.getLogger(__name__)

POLL_S = 0.1
TELL_S = 1.0
"""Between two notes of how far it is."""
SAY_AGAIN_S = 60.0
"""Between two lines in the log about one kind of fault."""
GRACE_S = 3.0
"""For replies that are under way when it has to end; they are paid for."""
HOPELESS = 10
"""So many bad requests and no reply in between: it is the request, not the item."""
MOST_BAD = 0.2
"""A larger part of a run's items lost to bad requests: no score of the others stands for all."""


def ask(
    context: StageContext, spec: JudgeSpec, benchmark: str, items: Sequence[JudgeItem]
) -> list[Replies]:
    """Replies of each judge run, those of the store first.

    Writes judging.json of the attempt: what was estimated, asked and paid.

    Raises:
        StageError: no judge is named, it cannot be reached, it replies to nothing, or more would
            be paid than judge.max_usd. Replies so far are kept.
        Interrupted: a stop was asked for; replies so far are kept.
    """
    model = spec.model_of(benchmark)
    if spec.scorer != "openai" or model is None:
        raise StageError(
            f"{benchmark}: judge.scorer={spec.scorer} asks no judge, and this rule needs one; take "
            "judge=gpt4 or another"
        )
    file = JudgingFile(context.attempt.path)
    before = [JudgingFile(attempt.path) for attempt in context.earlier_attempts()]

    def progress(done: int, total: int) -> None:
        context.log_metrics(
            {
                names.PROGRESS_DONE: done,
                names.PROGRESS_TOTAL: total,
                names.PROGRESS_UNIT: "reply",
            }
        )

    return Panel(
        title=benchmark,
        replies=ReplyStore(context.store.judge_replies),
        settings=context.execution.judge,
        model=model,
        source=spec.source or "openai",
        temperature=spec.temperature,
        num_runs=spec.runs_of(benchmark),
        stop_requested=context.stop_requested,
        spent_usd=sum(one.most_usd() for one in (file, *before)),
        progress=progress,
        record=lambda account: file.write(benchmark, account),
    ).ask(items)


@dataclass(kw_only=True)
class Panel:
    """One judge model, asked about the items of one benchmark."""

    title: str
    """Of the benchmark, for messages."""
    replies: ReplyStore
    settings: Mapping[str, Any]
    """Execution.judge."""
    model: str
    source: str
    num_runs: int
    temperature: float | None = None
    """None: as each request has it."""
    stop_requested: Callable[[], bool] = lambda: False
    spent_usd: float = 0.0
    """Paid before, under the same limit."""
    progress: Callable[[int, int], None] = lambda *_: None
    """Told replies that are there and replies that are wanted, now and then."""
    record: Callable[[Mapping[str, Any]], None] = lambda *_: None
    """Given the account as it stands, now and then."""

    def ask(self, items: Sequence[JudgeItem]) -> list[Replies]:
        """See ask()."""
        return _Asking(panel=self, items=items).run()


@dataclass(frozen=True, slots=True)
class _Job:
    """What is to be asked next about an item in a run."""

    run: int
    item: JudgeItem
    request: Request
    reask: int


@dataclass(kw_only=True)
class _Asking:
    """One go of a panel through its items."""

    panel: Panel
    items: Sequence[JudgeItem]
    got: list[dict[str, Reply]] = field(init=False)
    todo: deque[_Job] = field(default_factory=deque)
    host: str = ""
    num_stored: int = 0
    """Replies that were there before."""
    bad_in_a_row: int = 0
    """Bad requests since the last reply."""
    bad_causes: set[str] = field(default_factory=set)
    last_fault: str = ""
    said_at: dict[Fault, float] = field(default_factory=dict)
    reserved_usd: float = 0.0
    """The most that calls under way may cost."""
    promised_usd: float = -1.0
    """What the account on disk says was paid at most."""
    last_reply_at: float = 0.0
    end: Callable[[], Exception] | None = None
    """Why no further call is made, in words that count what is stored when they are asked for."""

    def __post_init__(self) -> None:
        settings = self.panel.settings
        self.got = [{} for _ in range(self.panel.num_runs)]
        self.price = price_of(self.panel.model, settings.get("prices") or {})
        self.meter = Meter(price=self.price)
        self.max_usd: float | None = settings.get("max_usd")
        self.patience_s = float(settings.get("patience_s", 900.0))
        self.pace = Pace(
            max_concurrent=int(settings.get("max_concurrent", 16)),
            backoff_s=float(settings.get("backoff_s", 1.0)),
        )
        self.total = len(self.items) * self.panel.num_runs

    def run(self) -> list[Replies]:
        self._find_stored()
        self.estimate = Estimate.of(
            ((job.request, job.item.expected_reply_tokens) for job in self.todo), self.price
        )
        if self.todo:
            self._check_price()
            self.panel.replies.check_writable()
            try:
                asyncio.run(self._ask_all())
            finally:
                self._note()
                self._say_end()
            if self.end is not None:
                raise self.end()
        self._note()
        self._check_bad_requests()
        order = [item.item for item in self.items]
        return [{item: replies[item] for item in order} for replies in self.got]

    # -------------------------------------------------------------- what is there, what is paid

    def _find_stored(self) -> None:
        # The client is made when something is asked, and so is what it needs.
        self.client = None if self._all_stored("") else JudgeClient(self.panel.settings)
        if self.client is not None:
            self.host = self.client.host
            self._all_stored(self.host)
        self.num_stored = self._num_done()

    def _all_stored(self, host: str) -> bool:
        """Take replies from the store; whether nothing is left to be asked."""
        self.todo.clear()
        # Of two processes that ask the same, each finds most of what the other one has asked.
        shuffled = random.Random(os.getpid()).sample(self.items, len(self.items))
        for run in range(self.panel.num_runs):
            for item in shuffled:
                job = self._next(_Job(run, item, self._first(item), 0), host)
                if job is not None:
                    self.todo.append(job)
        return not self.todo

    def _first(self, item: JudgeItem) -> Request:
        if self.panel.temperature is None:
            return item.request
        return dataclasses.replace(item.request, temperature=self.panel.temperature)

    def _next(self, job: _Job, host: str) -> _Job | None:
        """The first in a row of re-asks that is not stored; None: the reply is there."""
        while True:
            stored = self.panel.replies.find(self._asked(job), endpoint=host)
            if stored is None:
                return job
            following = self._taken(job, stored)
            if following is None:
                return None
            job = following

    def _asked(self, job: _Job) -> Asked:
        return Asked(
            model=self.panel.model,
            request=job.request,
            source=self.panel.source,
            run=job.run,
            reask=job.reask,
        )

    def _taken(self, job: _Job, stored: StoredReply) -> _Job | None:
        """Make it the item's reply, or say what is asked after it."""
        item, replies = job.item, self.got[job.run]
        if stored.refused is not None:
            replies[item.item] = Reply(
                text=None, valid=False, reasks=job.reask, cause=stored.refused
            )
            return None
        if item.is_valid(stored.text):
            replies[item.item] = Reply(text=stored.text, valid=True, reasks=job.reask)
            return None
        again = item.asked_again(self._first(item), job.reask + 1)
        if again is not None:
            return _Job(job.run, item, again, job.reask + 1)
        replies[item.item] = Reply(
            text=stored.text,
            valid=False,
            reasks=job.reask,
            cause=f"no verdict in {job.reask + 1} replies" if job.reask else "no verdict",
        )
        return None

    def _num_done(self) -> int:
        return sum(len(replies) for replies in self.got)

    def _check_price(self) -> None:
        panel = self.panel
        if self.max_usd is not None and self.price is None:
            raise StageError(
                f"judge.max_usd={self.max_usd:g}: no price of {panel.model} is known, so nothing "
                f"can be held to it; {_price_setting(panel.model)}, or set judge.max_usd=null"
            )
        log.info(
            "%s: %s at %s: %d replies wanted, %d stored, %d to ask: about %d tokens there and %d "
            "back, %s",
            panel.title, panel.model, self.host, self.total, self.num_stored,
            self.estimate.requests, self.estimate.input_tokens, self.estimate.output_tokens,
            usd_text(self.estimate.usd),
        )  # fmt: skip

    def _check_bad_requests(self) -> None:
        """Raises StageError where more than a few items of a run are missing by them."""
        for run, replies in enumerate(self.got, start=1):
            bad = [
                r.cause for r in replies.values() if r.text is None and r.cause in self.bad_causes
            ]
            if len(bad) > MOST_BAD * len(self.items):
                raise StageError(
                    f"{self._judge()}: takes {len(bad)} of {len(self.items)} requests of run {run} "
                    f"not, more than {MOST_BAD:.0%} ({bad[0]}): no score of the others stands for "
                    "all; choose another judge, or mend what it says and the same line asks for "
                    "the rest"
                )

    # -------------------------------------------------------------- asking

    async def _ask_all(self) -> None:
        assert self.client is not None
        self.ending = asyncio.Event()
        self.writing = asyncio.Lock()
        self.locks: dict[str, asyncio.Lock] = {}
        self.last_reply_at = time.monotonic()
        async with self.client:
            workers = {
                asyncio.create_task(self._work())
                for _ in range(min(self.pace.max_concurrent, len(self.todo)))
            }
            await self._watch(workers)
            if self.end is not None:
                await asyncio.wait(workers, timeout=GRACE_S)
            for worker in workers:
                worker.cancel()
            for ended in await asyncio.gather(*workers, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended

    async def _watch(self, workers: set[asyncio.Task[None]]) -> None:
        """Until all is asked, or there is a reason to end."""
        told = time.monotonic()
        pending = workers
        while pending and self.end is None:
            ended, pending = await asyncio.wait(
                pending, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED
            )
            if any(worker.exception() is not None for worker in ended):
                self.ending.set()
                return
            silent_s = time.monotonic() - self.last_reply_at
            if self.panel.stop_requested():
                self._end(lambda: Interrupted(f"asked to stop; {self._so_far()}"))
            elif pending and silent_s > self.patience_s:
                self._end(partial(self._impatient, f"has replied nothing for {silent_s:.0f} s"))
            if time.monotonic() - told >= TELL_S:
                told = time.monotonic()
                await asyncio.to_thread(self.panel.progress, self._num_done(), self.total)
                async with self.writing:
                    await self._promise()

    async def _work(self) -> None:
        while self.todo and self.end is None:
            job: _Job | None = self.todo.popleft()
            while job is not None:
                stored = await self._stored(job)
                if stored is None:
                    return
                job = self._taken(job, stored)
                self.meter.reasks += job is not None

    async def _stored(self, job: _Job) -> StoredReply | None:
        """The reply, from the store or asked for; None: no further call is made."""
        asked = self._asked(job)
        async with self.locks.setdefault(asked.key, asyncio.Lock()):
            found = self.panel.replies.find(asked, endpoint=self.host)
            return found or await self._called(asked)

    async def _called(self, asked: Asked) -> StoredReply | None:
        """Call until there is a reply or a refusal; None: no further call is made."""
        assert self.client is not None
        failures = 0
        while await self._may_send(asked.request):
            most = most_usd(asked.request, self.price)
            self.pace.in_flight += 1
            self.reserved_usd += most
            sent_at = None
            try:
                if not await self._is_promised():
                    return None
                sent_at = time.monotonic()
                outcome = await self.client.send(asked.model, asked.request)
            except asyncio.CancelledError:
                if sent_at is not None:  # the endpoint may charge for what nobody waits for
                    self.meter.broke_off(asked.request)
                raise
            finally:
                self.pace.in_flight -= 1
                self.reserved_usd -= most
            if isinstance(outcome, Received):
                return await self._kept(asked, outcome)
            if outcome.may_cost:
                self.meter.broke_off(asked.request)
            if outcome.fault not in AGAIN:
                return await self._given_up(asked, outcome)
            failures += 1
            self._faulted(outcome, sent_at=sent_at)
            if outcome.fault is not Fault.rate_limit:
                await self._pause(self.pace.backoff(failures))
        return None

    async def _is_promised(self) -> bool:
        """Have the account on disk say, before a call goes out, that it may have to be paid: what
        a kill leaves there is never less than what was paid. False: no further call is made."""
        async with self.writing:
            if self.meter.most_usd + self.reserved_usd > self.promised_usd:
                await self._promise()
        return self.end is None

    async def _promise(self) -> None:
        """Write the account, with calls under way, and as many again, as if they were charged."""
        ahead = 2 * self.reserved_usd
        if self.max_usd is not None:
            left = self.max_usd - self.panel.spent_usd - self.meter.most_usd
            ahead = max(self.reserved_usd, min(ahead, left))
        promised = self.meter.most_usd + ahead
        await asyncio.to_thread(self.panel.record, self.account(ahead_usd=ahead))
        self.promised_usd = promised

    async def _may_send(self, request: Request) -> bool:
        """Wait for the pace and the budget; False: no further call is made."""
        while self.end is None:
            if (wait := self.pace.wait_s()) > 0:
                await self._pause(wait)
            elif self.pace.has_room() and self._fits(request):
                return True
            elif self.end is None:
                await self._pause(POLL_S / 2)
        return False

    def _fits(self, request: Request) -> bool:
        """Whether this call keeps to the limit whatever comes back."""
        if self.max_usd is None:
            return True
        paid = self.panel.spent_usd + self.meter.most_usd
        if paid + self.reserved_usd + most_usd(request, self.price) <= self.max_usd:
            return True
        if self.pace.in_flight == 0:  # what is under way may cost less than is held back for it
            self._end(
                lambda: StageError(
                    f"judge.max_usd={self.max_usd:g}: the next call to {self.panel.model} might go "
                    f"over it ({usd_text(paid)} paid); {self._so_far()}; raise it and the same "
                    "line goes on with the rest"
                )
            )
        return False

    async def _kept(self, asked: Asked, received: Received) -> StoredReply:
        self.last_reply_at = time.monotonic()
        self.pace.replied()
        self.bad_in_a_row = 0
        self.meter.replied(
            asked.request, received.text, (received.input_tokens, received.output_tokens)
        )
        reply = StoredReply(
            asked=asked.to_json(),
            text=received.text,
            finish_reason=received.finish_reason,
            input_tokens=received.input_tokens,
            output_tokens=received.output_tokens,
            answered_by=received.model,
            endpoint=self.host,
            at=_now(),
        )
        return await asyncio.to_thread(self.panel.replies.add, asked, reply)

    async def _given_up(self, asked: Asked, failure: Failure) -> StoredReply | None:
        """A refusal, kept where it is the filter's; None: it ends the stage."""
        assert self.client is not None
        self.last_reply_at = time.monotonic()
        if failure.fault not in FOR_ITEM:
            words = f"{self._judge()}: {failure.text}: {self.client.way_out(failure.fault)}"
            self._end(lambda: StageError(f"{words}; {self._so_far()}"))
            return None
        refusal = StoredReply(
            asked=asked.to_json(),
            text="",
            finish_reason=None,
            input_tokens=None,
            output_tokens=None,
            answered_by=None,
            endpoint=self.host,
            at=_now(),
            refused=failure.text,
        )
        if failure.fault is Fault.refused:
            return await asyncio.to_thread(self.panel.replies.add, asked, refusal)
        # The request may be mended: it is asked again another time.
        self.bad_in_a_row += 1
        self.bad_causes.add(failure.text)
        in_a_row = self.bad_in_a_row
        no_reply = self.meter.replies + self.num_stored == 0
        if in_a_row >= (min(HOPELESS, max(self.total, 2)) if no_reply else HOPELESS):
            self._end(
                lambda: StageError(
                    f"{self._judge()}: takes none of the {'' if no_reply else 'last '}{in_a_row} "
                    f"requests it was sent ({failure.text}): choose another judge; "
                    f"{self._so_far()}"
                )
            )
            return None
        return refusal

    def _faulted(self, failure: Failure, *, sent_at: float) -> None:
        self.meter.retries[failure.fault] += 1
        now = time.monotonic()
        if now - self.said_at.get(failure.fault, -SAY_AGAIN_S) >= SAY_AGAIN_S:
            self.said_at[failure.fault] = now
            log.info("%s: %s; trying again", self._judge(), failure.text)
        self.last_fault = failure.text
        wanted = failure.retry_after_s
        if wanted is not None and wanted > self.patience_s:
            self._end(partial(self._impatient, f"asks to wait {wanted:.0f} s"))
        elif failure.fault is Fault.rate_limit or wanted is not None:
            self.pace.limited(sent_at=sent_at, retry_after_s=wanted)

    async def _pause(self, seconds: float) -> None:
        """Sleep, at most until there is a reason to end."""
        try:
            async with asyncio.timeout(seconds):
                await self.ending.wait()
        except TimeoutError:
            return

    def _end(self, reason: Callable[[], Exception]) -> None:
        if self.end is None:
            self.end = reason
            self.ending.set()

    # -------------------------------------------------------------- words and figures

    def _judge(self) -> str:
        return f"{self.panel.title}: the judge {self.panel.model} at {self.host}"

    def _so_far(self) -> str:
        return f"{self._num_done()} of {self.total} replies are stored"

    def _first_open(self) -> str:
        """For people: the endpoint may fail at this one alone."""
        for run, replies in enumerate(self.got, start=1):
            for item in self.items:
                if item.item not in replies:
                    return f"{item.item} in run {run}"
        return "none"

    def _impatient(self, what: str) -> StageError:
        last = f" (last: {self.last_fault})" if self.last_fault else ""
        return StageError(
            f"{self._judge()} {what}{last}; {self._so_far()} ({self._first_open()} is the first "
            "without one); the same line goes on with the rest "
            f"(judge.patience_s={self.patience_s:g} is how long it may be silent)"
        )

    def _note(self) -> None:
        self.panel.progress(self._num_done(), self.total)
        self.panel.record(self.account())

    def account(self, *, ahead_usd: float = 0.0) -> dict[str, Any]:
        """What judging.json says about it. ahead_usd: that may be paid before it is written
        again."""
        missing = Counter(
            reply.cause for replies in self.got for reply in replies.values() if reply.text is None
        )
        return {
            "model": self.panel.model,
            "endpoint": self.host or None,
            "runs": self.panel.num_runs,
            "items": len(self.items),
            "stored_before": self.num_stored,
            "done": self._num_done(),
            "unparsable": sum(
                reply.text is not None and not reply.valid
                for replies in self.got
                for reply in replies.values()
            ),
            "missing": dict(sorted(missing.items())),
            "price_usd_per_million": None
            if self.price is None
            else {"input": self.price.input, "output": self.price.output},
            "estimate": self.estimate.to_json(),
            "metered": self.meter.to_json(ahead_usd=ahead_usd),
        }

    def _say_end(self) -> None:
        meter = self.meter
        causes = ", ".join(f"{cause} {n}" for cause, n in sorted(meter.retries.items()))
        unsure = f", at most {usd_text(meter.unsure_usd)} more" if meter.unsure_usd else ""
        guessed = (
            f"; {meter.replies_without_usage} replies came without a count of tokens, which is "
            "estimated"
            if meter.replies_without_usage
            else ""
        )
        log.info(
            "%s: %d replies came (%d re-asks), %d tokens there and %d back, %s%s (estimated %s)%s; "
            "tried again: %s",
            self._judge(), meter.replies, meter.reasks, meter.input_tokens, meter.output_tokens,
            usd_text(meter.usd), unsure, usd_text(self.estimate.usd), guessed, causes or "nothing",
        )  # fmt: skip


def _price_setting(model: str) -> str:
    """For people: how a price is set. A dot or slash would be read as levels of the settings."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", model):
        return f"set judge.prices.{model}"
    return f"add '+judge.prices={{{model}:{{input: , output: , source: }}}}'"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
