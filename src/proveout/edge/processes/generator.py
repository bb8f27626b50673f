"""The generator process: no HTTP, an inherited listening Unix socket."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from proveout.edge.processes.parent import end_with_parent
from proveout.engine.generator import Generator


def main() -> None:
    parser = argparse.ArgumentParser(prog="proveout generator", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, help="a bound and listening Unix socket")
    parser.add_argument("--weights", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--cache", type=Path, required=True, help="a folder that keeps the converted model")
    options = parser.parse_args()
    end_with_parent()
    Generator(options.weights, options.cache).serve(socket.socket(fileno=options.socket_fd))


if __name__ == "__main__":
    main()
