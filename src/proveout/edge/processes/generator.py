"""A generator process: one model, no HTTP, an inherited listening Unix socket."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

from proveout import settings
from proveout.edge.processes.parent import end_with_parent
from proveout.engine.generator import Generator
from proveout.engine.local import local_model

NICE = 5  # a step takes both cores for 0.15 s, and the embedding of a query, which takes 3 ms, would wait behind it


def main() -> None:
    parser = argparse.ArgumentParser(prog="proveout generator", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, help="a bound and listening Unix socket")
    parser.add_argument("--model", required=True, help="a local model's name")
    parser.add_argument("--digest", help="of its files, which are refused if they are others")
    options = parser.parse_args()
    end_with_parent()
    told = settings.read()
    generator = Generator(local_model(told, options.model, options.digest), told.data / "cache")
    for thread in Path("/proc/self/task").glob("*"):  # Linux has a niceness for each thread; the start has none
        os.setpriority(os.PRIO_PROCESS, int(thread.name), NICE)
    generator.serve(socket.socket(fileno=options.socket_fd))


if __name__ == "__main__":
    main()
