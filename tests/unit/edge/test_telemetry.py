"""What is told of requests: OpenMetrics that another library reads, spans only where configured, content never."""

from __future__ import annotations

import gzip
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from proveout.domain import Key, Message, ModelUse, Outcome, Principal
from proveout.edge.http.metrics import lines
from proveout.edge.tally import Tally
from proveout.edge.telemetry import Telemetry, open_telemetry
from proveout.ledger.journal import Completion
from proveout.serving.call import Asked, Call
from proveout.settings import TelemetrySettings

SECRET = "the-secret-question"


def call(model: str = "acme/large", purpose: str = "request") -> Call:
    principal = Principal(Key("key_1", "n", "default", "user"), frozenset())
    asked = Asked(model, (Message("user", SECRET),))
    return Call("req_1", principal, asked, streamed=False, purpose=purpose, models=(ModelUse(model, "sha256:1"),))


def completion(outcome: Outcome = Outcome.ANSWERED, workspace: str = "default", **given: Any) -> Completion:
    times = {"total_ms": 1020.0, "first_token_ms": 20.0, "first_sentence_ms": 300.0, "cost_usd": 0.25}
    return Completion(
        request="req_1",
        workspace=workspace,
        outcome=outcome,
        reason=SECRET,
        prompt_tokens=10,
        completion_tokens=21,
        ended=datetime.now(UTC),
        **(times | given),
    )


def exposed(telemetry: Telemetry, workspace: str | None = None) -> dict[tuple[str, tuple[str, ...]], float]:
    """Samples by name and label values, as prometheus_client's strict parser reads them."""
    text = "\n".join(lines(telemetry.read(), workspace)) + "\n"
    assert SECRET not in text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


def test_requests_tokens_cost_and_times() -> None:
    telemetry = Telemetry(Tally(None))
    telemetry.observe(call(), completion())
    telemetry.observe(call(), completion(cost_usd=None))
    telemetry.observe(call(), completion(Outcome.FAILED, first_token_ms=None, first_sentence_ms=None))
    telemetry.observe(call(purpose="evaluation"), completion())
    telemetry.respond(200)
    telemetry.respond(429)
    telemetry.flight(1)
    telemetry.waiting(3)
    found = exposed(telemetry)
    answered = ("default", "", "", "acme/large", "request", "answered")
    assert found["proveout_requests_total", answered] == 2
    assert found["proveout_requests_total", (*answered[:-1], "failed")] == 1
    assert found["proveout_requests_total", (*answered[:-2], "evaluation", "answered")] == 1
    assert found["proveout_input_tokens_total", answered] == 20
    assert found["proveout_output_tokens_total", answered] == 42
    assert found["proveout_cost_usd_total", answered] == 0.25
    users = ("default", "", "", "request")
    assert found["proveout_time_to_first_token_seconds_count", users] == 2
    assert found["proveout_time_to_first_token_seconds_sum", users] == pytest.approx(0.04)
    assert found["proveout_time_to_first_token_seconds_bucket", (*users, "0.01")] == 0
    assert found["proveout_time_to_first_token_seconds_bucket", (*users, "0.025")] == 2
    assert found["proveout_time_per_output_token_seconds_bucket", (*users, "0.05")] == 2  # 1 s over 20 tokens
    assert found["proveout_time_per_output_token_seconds_sum", users] == pytest.approx(0.1)
    assert found["proveout_time_to_first_text_seconds_sum", users] == pytest.approx(0.6)
    assert found["proveout_request_duration_seconds_bucket", (*users, "+Inf")] == 3
    assert found["proveout_responses_total", ("200",)] == found["proveout_responses_total", ("429",)] == 1
    assert found["proveout_requests_in_flight", ()] == 1 and found["proveout_journal_waiting", ()] == 3


def test_a_workspace_sees_its_own_requests() -> None:
    telemetry = Telemetry(Tally(None))
    telemetry.observe(call(), completion())
    telemetry.observe(call(), completion(workspace="two"))
    assert {labels[0] for (name, labels) in exposed(telemetry, "two") if name == "proveout_requests_total"} == {"two"}
    assert len([name for (name, _) in exposed(telemetry) if name == "proveout_requests_total"]) == 2


def test_names_that_callers_make_up_cannot_fill_the_memory() -> None:
    telemetry = Telemetry(Tally(None))
    for number in range(1500):
        telemetry.observe(call(f'acme/{number}"\\\n'), completion())
    telemetry.respond(200)
    found = exposed(telemetry)
    counts = {labels: value for (name, labels), value in found.items() if name == "proveout_requests_total"}
    others = ("default", "(other)", "", "(other)", "request", "answered")
    assert sum(counts.values()) == 1500 and counts[others] == 1500 - (1024 - 128)
    assert found["proveout_responses_total", ("200",)] == 1
    fresh = Telemetry(Tally(None))
    fresh.observe(call("x" * 600), completion())
    assert exposed(fresh)["proveout_requests_total", others] == 1


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, str | None, bytes]]]]:
    """An OTLP endpoint that keeps what it is sent."""
    received: list[tuple[str, str | None, bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            received.append((self.path, self.headers.get("x-token"), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_spans_go_where_the_config_says_and_hold_no_content() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    with collector() as (url, received):
        telemetry = open_telemetry(TelemetrySettings(otlp=url, headers={"x-token": "known"}))
        with telemetry.parent({"traceparent": f"00-{trace}-b7ad6b7169203331-01"}):
            telemetry.observe(call(), completion())
        telemetry.observe(call("echo"), completion(Outcome.TRUNCATED))
        telemetry.close()
    ((path, token, body),) = received
    assert (path, token) == ("/v1/traces", "known") and SECRET.encode() not in body
    request = ExportTraceServiceRequest.FromString(body)
    spans = [span for part in request.resource_spans for scope in part.scope_spans for span in scope.spans]
    first, second = spans
    told = {a.key: a.value for a in first.attributes}
    assert first.name == "chat acme/large" and told["gen_ai.provider.name"].string_value == "acme"
    assert told["gen_ai.usage.output_tokens"].int_value == 21
    assert (first.end_time_unix_nano - first.start_time_unix_nano) == pytest.approx(1.02e9)
    assert [event.name for event in first.events] == ["first token", "first text"]
    assert first.trace_id.hex() == trace and first.parent_span_id.hex() == "b7ad6b7169203331"
    assert second.trace_id.hex() != trace and second.status.code == 2
    assert {a.key: a.value for a in second.attributes}["error.type"].string_value == "truncated"


def test_without_a_collector_nothing_of_opentelemetry_s_sdk_is_loaded() -> None:
    import subprocess
    import sys

    program = (
        "import sys; from proveout.edge.telemetry import open_telemetry; from proveout.settings import *;"
        "open_telemetry(TelemetrySettings());"
        "sys.exit(any(name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter')) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
