"""A server with a collector: a request's span arrives in the caller's trace and tells which model was chosen for it."""

from __future__ import annotations

import http.server
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from conftest import start_server

TRACE = "0af7651916cd43dd8448eb211c80319c"
APP = """\
app: pick
purpose: Show that a question's length picks the model.
owners: {accountable: someone@example.com}
model: {use: [{when: {words: ">4"}, use: echo/long}, {use: echo}]}
"""


@pytest.fixture
def collector() -> Iterator[tuple[int, list[ExportTraceServiceRequest]]]:
    received: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port, received
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_span_in_the_callers_trace(
    tmp_path: Path, app_folder: Callable[..., Path], collector: tuple[int, list[ExportTraceServiceRequest]]
) -> None:
    port, received = collector
    config = tmp_path / "proveout.yaml"
    config.write_text(f"telemetry: {{otlp: 'http://127.0.0.1:{port}'}}\necho: {{long: {{replies: [at length]}}}}\n")
    folder = app_folder({"app.yaml": APP}, "pick")
    server = start_server(tmp_path / "data", str(folder), "--config", str(config))
    try:
        for question, streamed in (("short one", False), ("a question of five words", True)):
            body = {"model": "pick", "stream": streamed, "messages": [{"role": "user", "content": question}]}
            request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode())
            request.add_header("authorization", f"Bearer {server.owner_key}")
            request.add_header("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.read()
    finally:
        assert server.stop() == 0, "what is left is sent before the end"
    deadline = time.monotonic() + 5
    spans: list[Any] = []
    while len(spans) < 2 and time.monotonic() < deadline:
        parts = [part for request in received for part in request.resource_spans]
        spans = [span for part in parts for scope in part.scope_spans for span in scope.spans]
        time.sleep(0.05)
    told = {
        attributes["gen_ai.request.model"].string_value: (span, attributes)
        for span in spans
        if (attributes := {a.key: a.value for a in span.attributes})["proveout.app"].string_value == "pick"
    }
    assert set(told) == {"echo", "echo/long"}, "the first choice that applies is served"
    for span, attributes in told.values():
        assert span.trace_id.hex() == TRACE and span.parent_span_id.hex() == "b7ad6b7169203331"
        assert attributes["proveout.release"].string_value == "pick@1" and attributes["proveout.outcome"].string_value
    assert all(b"five words" not in request.SerializeToString() for request in received)
