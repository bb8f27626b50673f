"""Starts processes, restarts those that die, with back-off, and stops all in reverse order."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_BACKOFF_FIRST, _BACKOFF_LAST = 0.1, 0.5  # a process killed again and again is still back within seconds
_STABLE_SECONDS = 10.0
_STOP_SECONDS = 15.0
_LOG_BYTES = 10 * 2**20

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Process:
    """A child to keep alive: its command, what it inherits, and how it is asked to stop."""

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    sockets: tuple[int, ...] = ()  # file descriptors that it inherits
    stop: signal.Signals = signal.SIGTERM


class Supervisor:
    """The children of `up`. Their output goes to `logs`/NAME.log."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._keepers: list[tuple[Process, asyncio.Task[None]]] = []
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, process: Process) -> None:
        """Starts `process` and keeps it alive from now on."""
        first = await self._spawn(process)
        self._keepers.append((process, asyncio.create_task(self._keep(process, first))))

    async def stop(self) -> None:
        """Stops all, the last started first; what does not stop in 15 s is killed."""
        for process, keeper in reversed(self._keepers):
            keeper.cancel()
            await asyncio.wait({keeper})
            child = self._running.get(process.name)
            if child is None or child.returncode is not None:
                continue
            child.send_signal(process.stop)
            try:
                await asyncio.wait_for(child.wait(), _STOP_SECONDS)
            except TimeoutError:
                child.kill()
                await child.wait()

    async def _keep(self, process: Process, child: asyncio.subprocess.Process) -> None:
        backoff = _BACKOFF_FIRST
        while True:
            began = time.monotonic()
            code = await child.wait()
            log.warning("%s ended with %s; it is started again", process.name, code)
            if time.monotonic() - began > _STABLE_SECONDS:
                backoff = _BACKOFF_FIRST
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _BACKOFF_LAST)
            try:
                child = await self._spawn(process)
            except OSError as error:  # a disk that is full, say; tried again
                log.warning("%s cannot be started: %s", process.name, error)

    async def _spawn(self, process: Process) -> asyncio.subprocess.Process:
        path = self._logs / f"{process.name}.log"
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        with path.open("ab") as output:
            child = await asyncio.create_subprocess_exec(
                *process.argv,
                env=dict(process.environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=process.sockets,
                start_new_session=True,  # a Ctrl-C is for the supervisor alone, which stops them in order
            )
        self._running[process.name] = child
        return child
