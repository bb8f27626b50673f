"""Puts the rooms together, once per process, and keeps the configuration in memory fresh."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from proveout.domain import WORKSPACE, Directory, Scope
from proveout.edge.mirror import Mirror, check
from proveout.edge.notify.outbox import Outbox
from proveout.edge.notify.targets import Target, targets
from proveout.edge.telemetry import Telemetry, open_telemetry
from proveout.engine import weights
from proveout.engine.catalogue import Catalogue, Provider
from proveout.engine.local import local_models
from proveout.errors import ProveoutError, StartRefused
from proveout.evals.gather import Draft
from proveout.jobs.runtime import Job, Jobs
from proveout.ledger.cosign import Cosigner
from proveout.ledger.erase import Erase
from proveout.ledger.integrate import BATCH, Integrator, LogKeys
from proveout.ledger.journal import Journal
from proveout.ledger.log import Log
from proveout.ledger.payloads import Payloads
from proveout.ledger.retention import expire
from proveout.ledger.rotate import Rotate
from proveout.ledger.spool import Spool
from proveout.releases.approvals import Approvals
from proveout.releases.create import CreateRelease, Sync
from proveout.releases.gate import Gate
from proveout.releases.measure import Evaluate
from proveout.releases.policy import read_policy
from proveout.releases.refresh import REFRESH, Refresh, Refreshes
from proveout.releases.rollouts import Rollouts
from proveout.releases.routes import Routes
from proveout.releases.sampled import Sampling
from proveout.retrieval.ingest import Ingester
from proveout.retrieval.remembered import Remembered
from proveout.retrieval.search import Searcher
from proveout.retrieval.versions import Versions
from proveout.serving.assignments import Assignments
from proveout.serving.call import Rooms
from proveout.settings import ProviderSettings, RetentionSettings, Settings
from proveout.store.configuration import load
from proveout.store.pool import Store
from proveout.store.postgres import is_full
from proveout.store.sealing import MASTER_KEY_FILE, Keyring, read_master_keys

CREATE_RELEASE = "create-release"
DRAFT = "draft"
ERASE = "erase"
EVALUATE = "evaluate"
PUSH = "push"
ROLLBACK = "rollback-knowledge"
ROTATE = "rotate"
SYNC = "sync"

_REFRESH_SECONDS = 0.5
_GATEWAY_CONNECTIONS = 4  # and one that listens, one for the journal, two for jobs: 8
_WORKER_CONNECTIONS = 4  # and one that listens, one for the journal, one for the slot, seven for jobs: 14
_TURNS = 100  # of a loop for one workspace, before the next one has its turn

log = logging.getLogger(__name__)


class Configuration:
    """The configuration in memory, at most half a second behind the database."""

    def __init__(self, store: Store, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    def __call__(self) -> Directory:
        return self._directory

    async def refresh(self) -> None:
        """Looks now; after a change of one's own, so that the next request sees it."""
        self._directory = await load(self._store, self._directory)

    async def fresh(self) -> Directory:
        """The configuration as it is now."""
        await self.refresh()
        return self._directory

    def name_of(self, key: str) -> str:
        """The name of the key with this id, the id itself where the key was revoked."""
        return next((k.name for k in self._directory.keys.values() if k.id == key), key)

    async def run(self) -> None:
        """Looks at every change and every half second, until cancelled. Without the database the last one serves on."""
        while True:
            try:
                async with aclosing(self._store.listen("proveout_configuration", _REFRESH_SECONDS)) as changes:
                    async for _ in changes:
                        await self.refresh()
            except ProveoutError as error:
                log.warning("configuration not refreshed: %s", error.message)
                await asyncio.sleep(_REFRESH_SECONDS)


@dataclass(frozen=True, slots=True)
class Ground:
    """What every process with rooms has."""

    settings: Settings
    store: Store
    keyring: Keyring
    directory: Configuration
    rooms: Rooms
    telemetry: Telemetry
    log_keys: LogKeys


@dataclass(frozen=True, slots=True)
class Gateway(Ground):
    """The rooms of a gateway."""

    jobs: Jobs
    log: Log
    routes: Routes
    rollouts: Rollouts
    targets: Sequence[Target]


@asynccontextmanager
async def gateway(settings: Settings) -> AsyncIterator[Gateway]:
    """A gateway's rooms, open."""
    policy = read_policy(settings.stages)
    async with _ground(settings, _GATEWAY_CONNECTIONS) as ground:
        jobs = Jobs(database(settings))
        routes = Routes(ground.store, Gate(policy, ground.log_keys))
        try:
            yield Gateway(
                ground.settings,
                ground.store,
                ground.keyring,
                ground.directory,
                ground.rooms,
                ground.telemetry,
                ground.log_keys,
                jobs,
                Log(ground.store, ground.log_keys, witnessed=bool(settings.ledger.witnesses)),
                routes,
                Rollouts(ground.store, routes, ground.directory),
                targets(settings.notify),
            )
        finally:
            jobs.close()


@asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[Mapping[str, Job]]:
    """A worker's jobs by name, their rooms open."""
    policy = read_policy(settings.stages)
    async with _ground(settings, _WORKER_CONNECTIONS) as ground, AsyncExitStack() as stack:
        catalogue = ground.rooms.catalogue
        embedder = catalogue.digest(f"local/{weights.EMBEDDER}")
        versions = Versions(ground.store, ground.keyring, catalogue.embed, embedder)
        ingester = Ingester(ground.store, ground.keyring, versions)
        gate = Gate(policy, ground.log_keys)
        rollouts = Rollouts(ground.store, Routes(ground.store, gate), ground.directory)
        approvals = Approvals(ground.store, gate, ground.directory.fresh)
        evaluate = Evaluate(ground.store, ground.keyring, ground.log_keys, ground.rooms, policy)
        jobs = Jobs(database(settings))
        loops = [
            *_log_loops(ground, stack),
            Loop("rollouts", rollouts.tick, 0.25, "rollouts not watched"),
            Loop("judge", Sampling(ground.store, ground.keyring, ground.rooms).tick, 1, "answers not judged"),
            Loop("approvals", approvals.tick, 0.5, "not seen whether releases wait for approval"),
            Loop("retention", partial(_expire, ground.store, settings.retention), 3600, "old records not deleted"),
        ]
        for target in targets(settings.notify):
            outbox = Outbox(ground.store, target, ground.directory.name_of, settings.url)
            loops.append(Loop("notifications", outbox.turn, 0.5, f"{target.name} not told"))
        if policy.refresh.criteria:
            refreshes = Refreshes(ground.store, jobs, ground.directory, gate)
            loops.append(Loop(REFRESH, refreshes.tick, 1, "followed knowledge not looked at"))
        if settings.mlflow:
            check(settings.mlflow)
            mirror = Mirror(ground.store, ground.keyring, ground.directory, settings.mlflow)
            loops.append(Loop("mlflow", mirror.turn, 1, "evaluations not mirrored"))
        tasks = [asyncio.create_task(loop.run(ground.store)) for loop in loops]
        for task in tasks:
            task.add_done_callback(_stop_with)
        yield {
            CREATE_RELEASE: CreateRelease(ground.store, ground.keyring, ingester, catalogue),
            PUSH: ingester.push,
            ROLLBACK: ingester.rollback,
            SYNC: Sync(ground.store, ground.keyring, ingester),
            ERASE: Erase(ground.store, database(settings)),
            ROTATE: _rotation(ground),
            DRAFT: Draft(ground.store, ground.keyring, ground.rooms),
            EVALUATE: evaluate,
            REFRESH: Refresh(
                ground.store,
                ground.log_keys,
                policy.refresh,
                catalogue,
                ground.directory,
                ground.directory.refresh,
                evaluate,
                rollouts,
            ),
        }
        for task in tasks:
            await _cancel(task)
        jobs.close()


@dataclass(frozen=True, slots=True)
class Loop:
    """What a worker does again and again, beside its jobs: a turn for every workspace, in a scope with this purpose.

    `turn` says whether there is more to do at once. `failing` is what is said when it could not be done; it is tried
    again. `pause` waits for so many seconds, or for less.
    """

    purpose: str
    turn: Callable[[Scope], Awaitable[object]]
    seconds: float
    failing: str
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep

    async def run(self, store: Store) -> None:
        """Until cancelled. What fails in one workspace keeps no other one waiting, nor does one that has much to do."""
        while True:
            more = False
            try:
                for workspace in await _workspaces(store):
                    more |= await self._turns(workspace)
            except ProveoutError as error:
                log.warning("%s: %s", self.failing, error.message)
            if not more:
                await self.pause(self.seconds)

    async def _turns(self, workspace: str) -> bool:
        """Some turns for one workspace; whether there is more to do."""
        try:
            for _ in range(_TURNS):
                if not await self.turn(Scope.system(workspace, self.purpose)):
                    return False
        except ProveoutError as error:
            log.warning("%s: %s", self.failing, error.message)
            return False
        return True


def _log_loops(ground: Ground, stack: AsyncExitStack) -> list[Loop]:
    """What takes events into the log; and, a moment after it has signed, what shows them to witnesses."""
    signed = asyncio.Event()
    integrator = Integrator(ground.store, ground.log_keys)

    async def integrate(scope: Scope) -> bool:
        taken = await integrator.integrate(scope)
        if taken:
            signed.set()
        return taken == BATCH  # fewer: what has come since may wait for the next turn, with what comes then

    async def until_signed(seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(signed.wait(), seconds)
        signed.clear()

    loops = [Loop("ledger", integrate, 0.25, "events not taken into the log")]
    if witnesses := ground.settings.ledger.witnesses:
        cosigner = Cosigner(ground.store, witnesses)
        stack.push_async_callback(cosigner.aclose)
        loops.append(Loop("ledger", cosigner.collect, 1, "witnesses not asked", until_signed))
    return loops


def _stop_with(task: asyncio.Task[None]) -> None:
    """Stops the process when one of its loops has died: the supervisor starts another, and all loops with it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a loop of the worker died, and the worker stops", exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)


def _rotation(ground: Ground) -> Rotate:
    told = ground.settings
    ours = told.master_key is None and told.master_key_command is None
    return Rotate(
        ground.store,
        ground.keyring,
        database(told),
        told.data / MASTER_KEY_FILE if ours else None,
        partial(Scope.system, purpose=ROTATE),
    )


def database(settings: Settings) -> str:
    """The DSN of the database. Raises StartRefused when none was given."""
    if settings.database is None:
        raise StartRefused("No database was named: set PROVEOUT_DATABASE, or start with `proveout up`.")
    return settings.database


def master_keys(settings: Settings) -> Sequence[bytes]:
    """The master keys, the newest first. Raises StartRefused."""
    return read_master_keys(settings.master_key, settings.master_key_command, settings.data / MASTER_KEY_FILE)


@asynccontextmanager
async def _ground(settings: Settings, connections: int) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as stack:
        store = Store(database(settings), size=connections)
        await store.open()
        stack.push_async_callback(store.close)
        telemetry = open_telemetry(settings.telemetry)
        stack.push_async_callback(asyncio.to_thread, telemetry.close)  # what is left is sent
        keyring = Keyring(partial(master_keys, settings))
        directory = Configuration(store, await load(store))
        async with store.within(Scope(WORKSPACE, "spool")) as session:
            spool = Spool(settings.data / "spool", await keyring.spool_key(session, WORKSPACE))
        journal = Journal(store, partial(is_full, settings.data / "postgres"), spool)
        catalogue = await asyncio.to_thread(_catalogue, settings)
        stack.push_async_callback(catalogue.close)
        for task in (directory.run(), journal.run(), journal.adopt(), journal.live()):
            stack.push_async_callback(_cancel, asyncio.create_task(task))
        embed = Remembered(catalogue.embed)
        rooms = Rooms(
            directory=directory,
            catalogue=catalogue,
            searcher=Searcher(store, keyring, embed),
            embed=embed,
            match=catalogue.match,
            journal=journal,
            payloads=Payloads(store, keyring, lambda: directory().version),
            assignments=Assignments(store),
            captures=settings.capture.keeps,
            default=settings.default,
            observe=telemetry.observe,
        )
        log_keys = LogKeys(keyring, settings.ledger.origin)
        yield Ground(settings, store, keyring, directory, rooms, telemetry, log_keys)


def _catalogue(settings: Settings) -> Catalogue:
    if settings.engine is None:
        raise StartRefused("No engine was named: set PROVEOUT_ENGINE, or start with `proveout up`.")
    return Catalogue(
        [_provider(p) for p in settings.providers],
        Path(settings.engine),
        local_models(settings),
        settings.echo,
        settings.serve,
    )


def _provider(given: ProviderSettings) -> Provider:
    return Provider(
        name=given.name,
        base_url=given.base_url,
        api_key=given.api_key,
        price=given.price,
        prices=given.prices,
        versions=given.versions,
        region=given.region,
        timeouts=given.timeouts,
        reasoning=given.reasoning,
        plain=given.plain,
    )


async def _expire(store: Store, kept: RetentionSettings, scope: Scope) -> None:
    await expire(store, scope, kept)


async def _workspaces(store: Store) -> list[str]:
    async with store.unscoped() as session:
        return [row["name"] for row in await session.fetch("log.workspaces")]


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
