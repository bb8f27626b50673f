"""The gateway process: the HTTP door and `serving`, on an inherited listening socket."""

from __future__ import annotations

import argparse
import logging
import socket

import uvicorn

from proveout import settings
from proveout.edge.http.routes import application
from proveout.edge.processes.parent import end_with_parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="proveout gateway", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, help="a bound and listening socket")
    options = parser.parse_args()
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    config = uvicorn.Config(
        application(settings.read()),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run([socket.socket(fileno=options.socket_fd)])


if __name__ == "__main__":
    main()
