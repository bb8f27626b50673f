"""The journal of requests: an intent before the model is called, a completion before the last byte.

Both are durable when the call returns. Concurrent writers share one transaction (group commit), so the
price of durability is one fsync per batch, not per request.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from proveout.domain import Outcome, Parameters, Scope, Usage
from proveout.errors import NotFound, Unavailable
from proveout.store.pool import Row, Store, as_json

log = logging.getLogger(__name__)

_BATCH = 256
_QUEUE = 4096


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
    usage: Usage
    total_ms: float
    ended: datetime
    grounded: bool | None = None
    quoted: bool = False
    first_token_ms: float | None = None
    first_sentence_ms: float | None = None
    cost_usd: float | None = None
    documents: tuple[str, ...] = ()


def new_request_id() -> str:
    """A request id that sorts by time: 48 bits of milliseconds, then 80 random bits (as a ULID's)."""
    return f"req_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


class Journal:
    """Writes intents and completions, and reads requests back. `run` must be running beside it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: asyncio.Queue[tuple[Intent | Completion, asyncio.Future[None]]] = asyncio.Queue(_QUEUE)

    async def write(self, entry: Intent | Completion) -> None:
        """Returns when `entry` is durable. Raises Unavailable when it could not be written."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            self._waiting.put_nowait((entry, done))
        except asyncio.QueueFull:
            raise Unavailable("Too many requests wait to be recorded; try again in a moment.") from None
        await done

    async def run(self) -> None:
        """Commits what waits, batch by batch, until cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < _BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            error: Exception | None = None
            try:
                await self._commit([entry for entry, _ in batch])
            except Exception as raised:  # whatever it is, the writers must hear of it, and the next batch go on
                log.error("a batch of %d was not recorded: %s", len(batch), raised)
                error = raised
            for _, done in batch:
                if done.done():
                    continue  # its writer was cancelled; the entry is written all the same
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(Unavailable("The request could not be recorded; try again in a moment."))

    async def _commit(self, entries: list[Intent | Completion]) -> None:
        intents = [asdict(e) for e in entries if isinstance(e, Intent)]
        completions = [_completion_row(e) for e in entries if isinstance(e, Completion)]
        async with self._store.unscoped() as session:
            await session.run("ledger.record", intents=as_json(intents), completions=as_json(completions))

    async def get(self, scope: Scope, request: str) -> Row:
        """One request of the scope's workspace. Raises NotFound."""
        async with self._store.within(scope) as session:
            row = await session.row("requests.get", request=request)
        if row is None:
            raise NotFound(f"There is no request {request}.")
        return row

    async def newest(self, scope: Scope, limit: int) -> list[Mapping[str, object]]:
        """The newest requests of the scope's workspace."""
        async with self._store.within(scope) as session:
            return list(await session.fetch("requests.list", limit=limit))


def _completion_row(completion: Completion) -> dict[str, object]:
    row: dict[str, Any] = asdict(completion)
    usage: dict[str, int] = row.pop("usage")
    return row | usage


def now() -> datetime:
    """The present time, UTC."""
    return datetime.now(UTC)
