"""The journal of requests: an intent before the model is called, a completion before the last byte.

Both are durable when the call returns. Concurrent writers share one transaction (group commit), so the
price of durability is one fsync per batch, not per request.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from proveout.domain import Outcome, Parameters, Scope
from proveout.errors import Conflict, InvalidInput, NotFound, StorageFull, Unavailable
from proveout.store.pool import Row, Store, as_json

log = logging.getLogger(__name__)

_BATCH = 256
_QUEUE = 4096
_PATIENCE_SECONDS = 6.0  # longer than a restart of Postgres takes
_RETRY_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Intent:
    """What is about to be asked of which model, on whose behalf. Holds no content."""

    request: str
    workspace: str
    key: str
    purpose: str
    model: str
    parameters: Parameters
    streamed: bool
    begun: datetime
    app: str | None = None
    release: int | None = None
    release_digest: str | None = None
    stage: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """How a request ended. Times in milliseconds since it was admitted; None where it did not happen."""

    request: str
    workspace: str
    outcome: Outcome
    reason: str
    prompt_tokens: int
    completion_tokens: int
    total_ms: float
    ended: datetime
    grounded: bool | None = None
    quoted: bool = False
    first_token_ms: float | None = None
    first_sentence_ms: float | None = None
    cost_usd: float | None = None
    model: str = ""  # the one that answered: the intent's, or a fallback
    served_by: str = ""  # the provider's own name for it
    runtime: str = ""
    schema: int = 1
    documents: tuple[str, ...] = ()
    subject: str = ""
    payload: bytes | None = field(default=None, repr=False)  # sealed


def new_request_id() -> str:
    """A request id that sorts by time: 48 bits of milliseconds, then 80 random bits (as a ULID's)."""
    return f"req_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


Ending = Outcome | Literal["open"]
"""What a request may be looked for by; `open`: it has no completion (yet)."""

_Waiting = tuple[Intent | Completion, asyncio.Future[None]]


class Journal:
    """Writes intents and completions, and reads requests back. `run` must be running beside it.

    While `is_full` says so, nothing new is begun: what is under way needs the rest of the disk.
    """

    def __init__(self, store: Store, is_full: Callable[[], bool] = lambda: False) -> None:
        self._store = store
        self._is_full = is_full
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(_QUEUE)
        self._away_since: float | None = None

    async def write(self, entry: Intent | Completion) -> None:
        """Returns when `entry` is durable. Raises Unavailable when it could not be written, StorageFull too."""
        if isinstance(entry, Intent) and self._is_full():
            raise StorageFull
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((entry, done))
        except asyncio.QueueFull:
            raise Unavailable("Too many requests wait to be recorded; try again in a moment.") from None
        await done

    @property
    def depth(self) -> int:
        """How many entries wait to be written."""
        return self._waiting.qsize()

    async def run(self) -> None:
        """Commits what waits, batch by batch, until cancelled."""
        again: list[_Waiting] = []
        while True:
            batch = again or [await self._waiting.get()]
            while len(batch) < _BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            again = await self._try(batch)
            if again:
                await asyncio.sleep(_RETRY_SECONDS)

    async def _try(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Commits a batch and tells its writers; answers with what should be tried again in a moment."""
        error: Exception | None = None
        try:
            await self._commit([entry for entry, _ in batch])
            self._away_since = None
        except StorageFull as raised:
            error = raised
        except Unavailable as raised:
            # A database that restarts is back within seconds. Its writers wait that long, so that nobody is told of a
            # failure that is none: the commit may have been done, and only its answer lost.
            clock = asyncio.get_running_loop().time()
            self._away_since = self._away_since or clock
            if clock - self._away_since < _PATIENCE_SECONDS and not self._is_full():
                return batch
            error = raised
        except Exception as raised:  # whatever it is, the writers must hear of it, and the next batch go on
            if isinstance(raised, InvalidInput | Conflict) and len(batch) > 1:
                for one in batch:  # an entry that the database does not take costs only itself
                    await self._try([one])
                return []
            log.error("a batch of %d was not recorded: %s", len(batch), raised)
            error = raised
        for _, done in batch:
            if done.done():
                continue  # its writer was cancelled; the entry is written all the same
            if error is None:
                done.set_result(None)
            elif isinstance(error, StorageFull):
                done.set_exception(StorageFull())
            else:
                done.set_exception(Unavailable("The request could not be recorded; try again in a moment."))
        return []

    async def _commit(self, entries: list[Intent | Completion]) -> None:
        intents = [e for e in entries if isinstance(e, Intent)]
        completions = [e for e in entries if isinstance(e, Completion)]
        await self._store.run_alone("ledger.record", intents=as_json(intents), completions=as_json(completions))

    async def get(self, scope: Scope, request: str) -> Row:
        """One request of the scope's workspace. Raises NotFound."""
        async with self._store.within(scope) as session:
            row = await session.row("requests.get", request=request)
        if row is None:
            raise NotFound(f"There is no request {request}.")
        return row

    async def newest(
        self,
        scope: Scope,
        limit: int,
        *,
        app: str | None = None,
        outcome: Ending | None = None,
        before: datetime | None = None,
    ) -> list[Row]:
        """The newest requests of the scope's workspace: of an app, of an outcome, begun before a time."""
        async with self._store.within(scope) as session:
            return list(await session.fetch("requests.list", limit=limit, app=app, outcome=outcome, before=before))


def now() -> datetime:
    """The present time, UTC."""
    return datetime.now(UTC)
