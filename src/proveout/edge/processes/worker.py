"""The worker process: durable jobs."""

from __future__ import annotations

import asyncio
import signal

from proveout import settings
from proveout.edge.logs import begin_log
from proveout.edge.processes.parent import end_with_parent
from proveout.edge.wiring import database, worker
from proveout.jobs.runtime import Worker


async def run(told: settings.Settings) -> None:
    """Works until SIGTERM or SIGINT."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with worker(told) as jobs:
        crew = Worker(database(told), jobs)
        await crew.start()
        await stopped.wait()
        await crew.stop()


def main() -> None:
    end_with_parent()
    told = settings.read()
    begin_log(told.telemetry.log)
    asyncio.run(run(told))


if __name__ == "__main__":
    main()
