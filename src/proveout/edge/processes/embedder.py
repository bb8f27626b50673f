"""An embedder process: one encoder, no HTTP, an inherited listening Unix socket."""

from __future__ import annotations

import argparse
import socket

from proveout import settings
from proveout.edge.processes.parent import end_with_parent
from proveout.engine.embedder import Embedder
from proveout.engine.local import local_model
from proveout.engine.minilm import Encoder


def main() -> None:
    parser = argparse.ArgumentParser(prog="proveout embedder", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, help="a bound and listening Unix socket")
    parser.add_argument("--model", required=True, help="a local model's name")
    parser.add_argument("--digest", help="of its files, which are refused if they are others")
    options = parser.parse_args()
    end_with_parent()
    told = settings.read()
    model = local_model(told, options.model, options.digest)
    encoder = Encoder(model.weights.folder, told.data / "cache", model.device)
    Embedder(encoder).serve(socket.socket(fileno=options.socket_fd))


if __name__ == "__main__":
    main()
