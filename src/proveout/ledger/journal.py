"""The journal of requests: an intent before the model is called, a completion before the last byte.

Both are durable when the call returns. Concurrent writers share one transaction (group commit), so the
price of durability is one fsync per batch, not per request. While the database is away, batches go into the spool.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import msgspec

from proveout.domain import Outcome, Parameters, Scope
from proveout.errors import Conflict, InvalidInput, NotFound, ProveoutError, StorageFull, Unavailable
from proveout.ledger.decision import SCHEMA, Decision
from proveout.ledger.spool import Spool
from proveout.store.pool import Row, Store, as_json

log = logging.getLogger(__name__)

_BATCH = 256
_QUEUE = 4096
_PATIENCE_SECONDS = 4.0  # longer than a restart of Postgres takes
_RETRY_SECONDS = 0.05
_LOOK_SECONDS = 1.0
_COMMIT_SECONDS = 10.0  # for one batch; a database that hangs is away
_LIVE_SECONDS, _SILENT_SECONDS = 4.0, 20.0
_AWAY_SECONDS = 15 * 60.0  # for which requests are served without the database


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
    arm: str = "stable"  # of the route
    weight: float | None = None  # of that arm then; None where nothing was drawn
    unit: str | None = None  # whom it was drawn for, a salted hash; None: for this request alone
    writer: str = ""  # the process; the journal fills it in


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
    schema: int = SCHEMA
    documents: tuple[str, ...] = ()
    subject: str = ""
    payload: bytes | None = field(default=None, repr=False)  # sealed
    decision: Decision | None = None


def new_request_id() -> str:
    """A request id that sorts by time: 48 bits of milliseconds, then 80 random bits (as a ULID's)."""
    return f"req_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


Ending = Outcome | Literal["open"]
"""What a request may be looked for by; `open`: it has no completion (yet)."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which requests: those that meet everything that is given. `subjects` are pseudonyms, `guard` one that spoke."""

    app: str | None = None
    release: int | None = None
    outcome: Ending | None = None
    guard: str | None = None
    subjects: Sequence[str] | None = None
    since: datetime | None = None
    until: datetime | None = None


EVERYTHING = Filter()

_Waiting = tuple[Intent | Completion, asyncio.Future[None]]


class Journal:
    """Writes intents and completions, and reads requests back. `run` and `adopt` must be running beside it.

    While `is_full` says so, nothing new is begun: what is under way needs the rest of the disk. Without a spool nothing
    is recorded while the database is away.
    """

    def __init__(self, store: Store, is_full: Callable[[], bool] = lambda: False, spool: Spool | None = None) -> None:
        self._store = store
        self._is_full = is_full
        self._spool = spool
        self._writer = secrets.token_hex(8)
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(_QUEUE)
        self._turn = asyncio.Lock()  # one writes at a time: batches, and what comes back from the spool
        self._away_since: float | None = None
        self._spooling = False  # what is in the spool must reach the database before anything else does
        self._looked = 0.0

    async def write(self, entry: Intent | Completion) -> None:
        """Returns when `entry` is durable. Raises Unavailable when it could not be written, StorageFull too."""
        if isinstance(entry, Intent):
            if self._is_full():
                raise StorageFull
            if self._spooling and _clock() - (self._away_since or _clock()) > _AWAY_SECONDS:
                raise Unavailable("The database has been away for too long: nothing new is begun.")
            entry = replace(entry, writer=self._writer)
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
            async with self._turn:
                if self._spooling and not await self._drain():
                    again = []
                    _tell(batch, await self._put_aside(batch))
                else:
                    again = await self._try(batch)
            if again:
                await asyncio.sleep(_RETRY_SECONDS)

    async def adopt(self) -> None:
        """Brings home what is in the spool, one's own or a dead process's, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._spool is not None and await asyncio.to_thread(lambda spool: spool.waiting, self._spool):
                async with self._turn:
                    await self._drain()

    async def live(self) -> None:
        """Says that this process is alive, until cancelled, and ends what dead ones left open.

        What they had in a spool was brought home long before they are taken for dead.
        """
        while True:
            try:
                async with self._store.unscoped() as session:
                    await session.run("writers.seen", id=self._writer)
                async with self._store.unscoped() as session:
                    row = await session.row("writers.end_orphans", seconds=_SILENT_SECONDS)
                if row is not None and row["ended"]:
                    log.warning("%d requests of processes that died ended as unknown", row["ended"])
            except ProveoutError as error:
                log.warning("signs of life not written: %s", error.message)
            await asyncio.sleep(_LIVE_SECONDS)

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
            self._away_since = self._away_since or _clock()
            if _clock() - self._away_since < _PATIENCE_SECONDS and not self._is_full():
                return batch
            error = raised if self._spool is None else await self._put_aside(batch)
        except Exception as raised:  # whatever it is, the writers must hear of it, and the next batch go on
            if isinstance(raised, InvalidInput | Conflict) and len(batch) > 1:
                for one in batch:  # an entry that the database does not take costs only itself
                    await self._try([one])
                return []
            log.error("a batch of %d was not recorded: %s", len(batch), raised)
            error = raised
        _tell(batch, error)
        return []

    async def _put_aside(self, batch: list[_Waiting]) -> Unavailable | None:
        """Writes a batch into the spool; answers with why it could not."""
        assert self._spool is not None
        if not self._spooling:
            log.warning("the database is away: requests are recorded in the spool")
        self._spooling = True
        entries = [msgspec.msgpack.encode((type(entry).__name__, entry)) for entry, _ in batch]
        try:
            await asyncio.to_thread(self._spool.append, entries)
        except Unavailable as error:
            return error
        return None

    async def _drain(self) -> bool:
        """Whether the database has got what the spool held; looked at no more than twice a second."""
        if self._spool is None or _clock() - self._looked < _LOOK_SECONDS / 2:
            return False
        self._looked = _clock()
        loop = asyncio.get_running_loop()

        def deliver(batch: list[bytes]) -> None:
            asyncio.run_coroutine_threadsafe(self._commit([_read(entry) for entry in batch]), loop).result()

        try:
            found = await asyncio.to_thread(self._spool.drain, deliver, lambda damage: log.error("%s", damage))
        except Unavailable:
            return False
        finally:
            self._looked = _clock()
        if found:
            log.warning("%d entries came from the spool into the database", found)
        self._spooling = False
        return True

    async def _commit(self, entries: list[Intent | Completion]) -> None:
        intents = [e for e in entries if isinstance(e, Intent)]
        completions = [e for e in entries if isinstance(e, Completion)]
        try:
            async with asyncio.timeout(_COMMIT_SECONDS):
                await self._store.run_alone("ledger.record", intents=as_json(intents), completions=as_json(completions))
        except TimeoutError as error:
            raise Unavailable("The database does not answer.") from error

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
        which: Filter = EVERYTHING,
        *,
        before: datetime | None = None,
    ) -> list[Row]:
        """The newest requests of the scope's workspace, of those that a filter lets through; begun before a time."""
        async with self._store.within(scope) as session:
            return list(await session.fetch("requests.list", **asdict(which), limit=limit, before=before))


def _tell(batch: list[_Waiting], error: Exception | None) -> None:
    """Tells the writers of a batch how it went."""
    for _, done in batch:
        if done.done():
            continue  # its writer was cancelled; the entry is written all the same
        if error is None:
            done.set_result(None)
        elif isinstance(error, StorageFull):
            done.set_exception(StorageFull())
        else:
            done.set_exception(Unavailable("The request could not be recorded; try again in a moment."))


def _read(entry: bytes) -> Intent | Completion:
    """An entry as the spool keeps it."""
    name, content = msgspec.msgpack.decode(entry, type=tuple[str, msgspec.Raw])
    if name == Intent.__name__:
        return msgspec.msgpack.decode(content, type=Intent)
    return msgspec.msgpack.decode(content, type=Completion)


def _clock() -> float:
    return asyncio.get_running_loop().time()


def now() -> datetime:
    """The present time, UTC."""
    return datetime.now(UTC)
