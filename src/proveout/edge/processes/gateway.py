"""The gateway process: the HTTP door and `serving`, on an inherited listening socket."""

from __future__ import annotations

import argparse
import socket

import uvicorn

from proveout import settings
from proveout.edge.http.routes import application
from proveout.edge.logs import begin_log
from proveout.edge.processes.parent import end_with_parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="proveout gateway", description=__doc__)
    parser.add_argument("--socket-fd", type=int, required=True, help="a bound and listening socket")
    parser.add_argument("--tls-certificate", help="a PEM file: speak TLS")
    parser.add_argument("--tls-key", help="the PEM file of its key")
    parser.add_argument("--behind-proxy", action="store_true", help="TLS ends at a proxy: it says how it was asked")
    options = parser.parse_args()
    end_with_parent()
    told = settings.read()
    begin_log(told.telemetry.log)
    config = uvicorn.Config(
        application(told),
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,  # uvicorn's own lines go where ours go
        log_level="warning",
        server_header=False,
        proxy_headers=options.behind_proxy,  # without one, nobody is believed about whom a request is from
        forwarded_allow_ips="*" if options.behind_proxy else None,
        ssl_certfile=options.tls_certificate,
        ssl_keyfile=options.tls_key,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run([socket.socket(fileno=options.socket_fd)])


if __name__ == "__main__":
    main()
