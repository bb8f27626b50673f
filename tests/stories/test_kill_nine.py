"""kill -9 of everything under load, then `up` again: no answered request without its completed row."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.request
from pathlib import Path

from conftest import Server, start_server

CLIENTS = 8


def ask(url: str, key: str, streamed: bool) -> tuple[str, bool]:
    """The request's id, and whether its answer came whole."""
    body = {"model": "echo", "stream": streamed, "messages": [{"role": "user", "content": "word " * 40}]}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        number = response.headers["x-proveout-request"]
        try:
            text = response.read()
        except http.client.IncompleteRead as cut:  # the last event may have come all the same
            text = cut.partial
        except OSError:
            return number, False
    return number, text.endswith(b"data: [DONE]\n\n") if streamed else b'"finish_reason":"stop"' in text


def load(server: Server, until: threading.Event) -> list[tuple[str, bool]]:
    seen: list[tuple[str, bool]] = []

    def client(streamed: bool) -> None:
        while not until.is_set():
            try:
                seen.append(ask(server.url, server.owner_key, streamed))
            except (OSError, http.client.HTTPException):
                return

    threads = [threading.Thread(target=client, args=(i % 2 == 0,)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    until.wait(1.5)
    server.kill_everything()
    until.set()
    for thread in threads:
        thread.join()
    return seen


def test_what_was_answered_is_on_record_after_kill_nine(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = start_server(data)
    key = server.owner_key
    seen = load(server, threading.Event())
    again = start_server(data)  # on another port
    try:
        assert again.owner_key == key
        whole = [number for number, complete in seen if complete]
        assert len(whole) > 50
        for number in whole:
            request = urllib.request.Request(
                f"{again.url}/api/v1/requests/{number}", headers={"Authorization": f"Bearer {key}"}
            )
            with urllib.request.urlopen(request) as response:
                assert json.load(response)["outcome"] == "answered"
        assert ask(again.url, key, streamed=True)[1]
    finally:
        assert again.stop() == 0
    print(f"{len(whole)} whole answers, {len(seen) - len(whole)} cut; second start {again.seconds:.1f} s")
