"""Puts the rooms together, once per process, and keeps the configuration in memory fresh."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
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
from proveout.releases.refresh import REFRESH, Followers, Refresh
from proveout.releases.rollouts import Rollouts
from proveout.releases.routes import Routes
from proveout.releases.sampled import Sampling
from proveout.retrieval.ingest import Ingester
from proveout.retrieval.remembered import Remembered
from proveout.retrieval.search import Searcher
from proveout.retrieval.versions import Versions
from proveout.serving.assignments import Assignments
from proveout.serving.call import Rooms
from proveout.settings import ProviderSettings, RetentionSettings, Settings, WitnessSettings
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
_EXPIRE_SECONDS = 3600.0
_INTEGRATE_SECONDS = 0.25
_ROLL_OUT_SECONDS = 0.25
_SAMPLE_SECONDS = 1.0
_FOLLOW_SECONDS = 1.0
_NOTIFY_SECONDS = 0.5
_MIRROR_SECONDS = 1.0
_COSIGN_SECONDS = 1.0  # until a witness that was away, or another worker's log, is looked at
_GATEWAY_CONNECTIONS = 4  # and one that listens, one for the journal, two for jobs: 8
_WORKER_CONNECTIONS = 4  # and one that listens, one for the journal, one for the slot, seven for jobs: 14

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
    async with _ground(settings, _WORKER_CONNECTIONS) as ground:
        catalogue = ground.rooms.catalogue
        embedder = catalogue.digest(f"local/{weights.EMBEDDER}")
        versions = Versions(ground.store, ground.keyring, catalogue.embed, embedder)
        ingester = Ingester(ground.store, ground.keyring, versions)
        gate = Gate(policy, ground.log_keys)
        rollouts = Rollouts(ground.store, Routes(ground.store, gate), ground.directory)
        approvals = Approvals(ground.store, gate, ground.directory.fresh)
        evaluate = Evaluate(ground.store, ground.keyring, ground.log_keys, ground.rooms, policy)
        jobs, signed = Jobs(database(settings)), asyncio.Event()
        tasks = [
            asyncio.create_task(_roll_out(ground.store, rollouts)),
            asyncio.create_task(_sample(ground.store, Sampling(ground.store, ground.keyring, ground.rooms))),
            asyncio.create_task(_await_approvals(ground.store, approvals)),
            asyncio.create_task(_expire(ground.store, settings.retention)),
            asyncio.create_task(_integrate(ground.store, Integrator(ground.store, ground.log_keys), signed)),
        ]
        for target in targets(settings.notify):
            outbox = Outbox(ground.store, target, ground.directory.name_of)
            tasks.append(asyncio.create_task(_notify(ground.store, outbox)))
        if policy.refresh.criteria:
            followers = Followers(ground.store, jobs, ground.directory, gate)
            tasks.append(asyncio.create_task(_follow(ground.store, followers)))
        if settings.ledger.witnesses:
            tasks.append(asyncio.create_task(_cosign(ground.store, settings.ledger.witnesses, signed)))
        if settings.mlflow:
            check(settings.mlflow)
            mirror = Mirror(ground.store, ground.keyring, ground.directory, settings.mlflow)
            tasks.append(asyncio.create_task(_mirror(ground.store, mirror)))
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
    )


async def _expire(store: Store, kept: RetentionSettings) -> None:
    """Deletes records past their time, every hour, until cancelled."""
    while True:
        try:
            for workspace in await _workspaces(store):
                await expire(store, Scope.system(workspace, "retention"), kept)
        except ProveoutError as error:
            log.warning("old records not deleted: %s", error.message)
        await asyncio.sleep(_EXPIRE_SECONDS)


async def _integrate(store: Store, integrator: Integrator, signed: asyncio.Event) -> None:
    """Takes every workspace's events into its log, a few times a second, until cancelled; sets `signed` each time."""
    while True:
        try:
            for workspace in await _workspaces(store):
                taken = BATCH
                while taken == BATCH:  # fewer: what has come since may wait for the next turn, with what comes then
                    taken = await integrator.integrate(Scope.system(workspace, "ledger"))
                    if taken:
                        signed.set()
        except ProveoutError as error:
            log.warning("events not taken into the log: %s", error.message)
        await asyncio.sleep(_INTEGRATE_SECONDS)


async def _roll_out(store: Store, rollouts: Rollouts) -> None:
    """Lets every rollout see and decide, a few times a second, until cancelled."""
    while True:
        try:
            for workspace in await _workspaces(store):
                await rollouts.tick(Scope.system(workspace, "rollouts"))
        except ProveoutError as error:
            log.warning("rollouts not watched: %s", error.message)
        await asyncio.sleep(_ROLL_OUT_SECONDS)


async def _sample(store: Store, sampling: Sampling) -> None:
    """Lets judges see a sample of what users were answered, every second, until cancelled."""
    while True:
        try:
            for workspace in await _workspaces(store):
                while await sampling.tick(Scope.system(workspace, "judge")):
                    pass
        except ProveoutError as error:
            log.warning("answers not judged: %s", error.message)
        await asyncio.sleep(_SAMPLE_SECONDS)


async def _follow(store: Store, followers: Followers) -> None:
    """Offers newer snapshots to the stages that follow them, every second, until cancelled."""
    while True:
        try:
            for workspace in await _workspaces(store):
                await followers.tick(Scope.system(workspace, REFRESH))
        except ProveoutError as error:
            log.warning("followed knowledge not looked at: %s", error.message)
        await asyncio.sleep(_FOLLOW_SECONDS)


async def _await_approvals(store: Store, approvals: Approvals) -> None:
    """Puts on record which releases wait for approval, until cancelled."""
    while True:
        try:
            for workspace in await _workspaces(store):
                await approvals.tick(Scope.system(workspace, "approvals"))
        except ProveoutError as error:
            log.warning("not seen whether releases wait for approval: %s", error.message)
        await asyncio.sleep(_NOTIFY_SECONDS)


async def _notify(store: Store, outbox: Outbox) -> None:
    """Tells one target what happens, until cancelled."""
    while True:
        try:
            for workspace in await _workspaces(store):
                while await outbox.turn(Scope.system(workspace, "notifications")):
                    pass
        except ProveoutError as error:
            log.warning("%s not told: %s", outbox.target.name, error.message)
        await asyncio.sleep(_NOTIFY_SECONDS)


async def _mirror(store: Store, mirror: Mirror) -> None:
    """Mirrors evaluations, every second, until cancelled."""
    while True:
        try:
            for workspace in await _workspaces(store):
                while await mirror.turn(Scope.system(workspace, "mlflow")):
                    pass
        except ProveoutError as error:
            log.warning("evaluations not mirrored: %s", error.message)
        await asyncio.sleep(_MIRROR_SECONDS)


async def _cosign(store: Store, witnesses: Sequence[WitnessSettings], signed: asyncio.Event) -> None:
    """Shows witnesses what was `signed`, and what they missed, until cancelled."""
    async with aclosing(Cosigner(store, witnesses)) as cosigner:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(signed.wait(), _COSIGN_SECONDS)
            signed.clear()
            try:
                for workspace in await _workspaces(store):
                    await cosigner.collect(Scope.system(workspace, "ledger"))
            except ProveoutError as error:
                log.warning("witnesses not asked: %s", error.message)


async def _workspaces(store: Store) -> list[str]:
    async with store.unscoped() as session:
        return [row["name"] for row in await session.fetch("log.workspaces")]


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
