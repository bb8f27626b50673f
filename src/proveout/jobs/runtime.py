"""Durable jobs on DBOS: checkpointed steps that survive a killed worker.

DBOS is set up with care (docs/decisions/004): arguments and results are ids and counts in JSON, never
content; the application version is fixed, so a new build takes over old workflows; a worker's executor id
is its slot, held by an advisory lock, so nobody else re-runs what it is running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import psycopg
from dbos import DBOS, DBOSClient, DBOSConfig, DBOSPortableJSONSerializer, EnqueueOptions

from proveout.domain import Scope
from proveout.errors import NotFound, ProveoutError, Unavailable

_VERSION = "1"  # of the workflows' shapes: raise it when a running workflow could not go on
Queue = Literal["jobs", "measuring"]
"""What people wait for, and what takes long: an evaluation keeps no push and no erasure waiting."""

_QUEUES: tuple[Queue, ...] = get_args(Queue)
_SLOTS = 64
_SLOT_LOCK = 0x70726F76  # the high half of the advisory lock's key; the slot is the low half
_POLL_SECONDS = 0.1

Result = Mapping[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


def migrate(dsn: str) -> None:
    """Brings the tables of the jobs up to date. Nothing may use them meanwhile: neither `Worker` nor `Jobs` does it."""
    DBOS.migrate(dsn)


class Steps:
    """What a job is given: its scope, checkpointed steps, and a place to report progress."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def run(self, name: str, step: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `step` once: after a crash its stored result is used. It must be idempotent all the same."""

        async def run() -> T:
            return await step(*args, **kwargs)

        return await DBOS.run_step_async({"name": name}, run)

    async def progress(self, done: int, total: int, what: str) -> None:
        """Says how far the job is."""
        await DBOS.set_event_async("progress", {"done": done, "total": total, "what": what})


Job = Callable[..., Awaitable[Result]]
"""`async (steps, *ids) -> result`; ids and results are small JSON, never content."""


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job stands: `waiting`, `running`, `done` or `failed`."""

    state: str
    progress: Mapping[str, Any] | None
    result: Result | None
    error: Mapping[str, str] | None


class Worker:
    """Runs jobs in this process, in one of the slots, until stopped."""

    def __init__(self, dsn: str, jobs: Mapping[str, Job]) -> None:
        self._dsn = dsn
        self._jobs = jobs
        self._slot: psycopg.AsyncConnection[Any] | None = None

    async def start(self) -> None:
        """Takes a slot, launches DBOS on the running loop and recovers what the slot left unfinished."""
        slot = await self._take_slot()
        config: DBOSConfig = {
            "name": "proveout",
            "system_database_url": self._dsn,
            "application_version": _VERSION,
            "executor_id": f"worker-{slot}",
            "serializer": DBOSPortableJSONSerializer(),
            "sys_db_pool_size": 5,
            "log_level": "WARNING",
            "run_migrations": False,
            "enable_otlp": False,
        }
        DBOS(config=config)
        for name, job in self._jobs.items():
            DBOS.workflow(name=name)(_workflow(name, job))
        DBOS.launch()
        for queue in _QUEUES:
            await DBOS.register_queue_async(queue, worker_concurrency=2, polling_interval_sec=0.2)

    async def stop(self) -> None:
        await asyncio.to_thread(DBOS.destroy, workflow_completion_timeout_sec=2)
        if self._slot is not None:
            await self._slot.close()

    async def _take_slot(self) -> int:
        self._slot = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        for slot in range(1, _SLOTS + 1):
            cursor = await self._slot.execute("select pg_try_advisory_lock(%s, %s)", (_SLOT_LOCK, slot))
            if (await cursor.fetchone()) == (True,):
                return slot
        raise Unavailable(f"All {_SLOTS} worker slots of this database are taken.")


def _workflow(name: str, job: Job) -> Callable[..., Awaitable[dict[str, Any]]]:
    async def workflow(workspace: str, *ids: str | int) -> dict[str, Any]:
        try:
            result = await job(Steps(Scope.system(workspace, name)), *ids)
        except ProveoutError as error:
            return {"error": {"code": error.code, "message": error.message}}
        return {"result": dict(result)}

    workflow.__name__ = workflow.__qualname__ = name
    return workflow


class Jobs:
    """Hands jobs to the workers from another process, and asks how they stand."""

    def __init__(self, dsn: str) -> None:
        self._client = DBOSClient(
            system_database_url=dsn, serializer=DBOSPortableJSONSerializer(), system_database_pool_size=2, lazy=True
        )

    async def enqueue(
        self, name: str, workspace: str, *ids: str | int, job: str | None = None, queue: Queue = "jobs"
    ) -> str:
        """Puts a job into a queue; answers with its id. One that is named, `job`, is done once however often."""
        named: EnqueueOptions = {"workflow_name": name, "queue_name": queue, "app_version": _VERSION}
        if job is not None:
            named["workflow_id"] = job
        handle: Any = await self._client.enqueue_async(named, workspace, *ids)
        return str(handle.get_workflow_id())

    async def state(self, workspace: str, job: str) -> JobState:
        """How a job of this workspace stands. Raises NotFound."""
        found = await self._client.list_workflows_async(workflow_ids=[job], load_input=True, load_output=True)
        if not found or (found[0].input or {"args": [None]})["args"][0] != workspace:
            raise NotFound(f"There is no job {job}.")
        status: Any = found[0]
        if status.status in ("PENDING", "ENQUEUED", "DELAYED"):
            progress = await self._client.get_event_async(job, "progress", timeout_seconds=0)
            waiting = status.status != "PENDING"
            return JobState("waiting" if waiting else "running", progress, None, None)
        if status.status != "SUCCESS":
            return JobState("failed", None, None, {"code": "internal_error", "message": str(status.error)})
        outcome = status.output
        if "error" in outcome:
            return JobState("failed", None, None, outcome["error"])
        return JobState("done", None, outcome["result"], None)

    async def wait(self, workspace: str, job: str) -> JobState:
        """Waits for the job's end."""
        while True:
            state = await self.state(workspace, job)
            if state.state not in ("waiting", "running"):
                return state
            await asyncio.sleep(_POLL_SECONDS)

    def close(self) -> None:
        self._client.destroy()
