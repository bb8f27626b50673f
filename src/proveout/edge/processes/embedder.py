"""The embedder process: no HTTP, an inherited listening Unix socket."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from proveout.edge.processes.parent import end_with_parent
from proveout.engine.embedder import Embedder
from proveout.engine.minilm import Encoder


def main() -> None:
    parser = argparse.ArgumentParser(prog="proveout embedder", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, help="a bound and listening Unix socket")
    parser.add_argument("--weights", type=Path, required=True, help="the model's folder")
    parser.add_argument("--cache", type=Path, required=True, help="a folder that keeps the compiled model")
    options = parser.parse_args()
    end_with_parent()
    Embedder(Encoder(options.weights, options.cache)).serve(socket.socket(fileno=options.socket_fd))


if __name__ == "__main__":
    main()
