"""The worker process: durable jobs."""

from __future__ import annotations

import asyncio
import logging
import signal

from proveout import settings
from proveout.edge.processes.parent import end_with_parent
from proveout.edge.wiring import database, worker
from proveout.jobs.runtime import Worker


async def run() -> None:
    """Works until SIGTERM or SIGINT."""
    told = settings.read()
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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(run())


if __name__ == "__main__":
    main()
