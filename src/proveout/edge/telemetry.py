"""What is told of requests to those who run the server: numbers for /metrics and, where configured, spans.

Never content: no text of a question, passage or answer is looked at here.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from proveout.edge.tally import Counted, Label, Tally
from proveout.ledger.journal import Completion
from proveout.serving.call import Call
from proveout.settings import TelemetrySettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

REQUEST, RESPONSE = "request", "response"  # what a label counts: its first word
IN_FLIGHT, WAITING = 0, 1  # the gauges

# The numbers under a request's label: four sums, then four histograms of a bucket count each, +Inf and the sum.
COUNT, INPUT_TOKENS, OUTPUT_TOKENS, COST = range(4)
BUCKETS: tuple[float, ...] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds
_HISTOGRAM = len(BUCKETS) + 2
FIRST_TOKEN, FIRST_SENTENCE, PER_TOKEN, DURATION = (4 + _HISTOGRAM * n for n in range(4))
_OTHER = "(other)"


class Spans(Protocol):
    """Where spans go."""

    def parent(self, headers: Mapping[str, str]) -> AbstractContextManager[None]: ...

    def tell(self, call: Call, completion: Completion) -> None: ...

    def close(self) -> None: ...


class Telemetry:
    """Of one process. `observe` is called once for each completion that was written."""

    def __init__(self, tally: Tally, spans: Spans | None = None) -> None:
        self._tally = tally
        self._spans = spans

    def observe(self, call: Call, completion: Completion) -> None:
        """Counts an ended request and tells its span."""
        release = call.release
        app = release.app if release else ""
        model = call.models[0].name if call.models else ""
        label = (REQUEST, completion.workspace, app, call.stage or "", model, call.purpose, completion.outcome)
        _count(self._slots(label), completion)
        if self._spans is not None:
            self._spans.tell(call, completion)

    def respond(self, status: int) -> None:
        """Counts an HTTP answer of the data plane."""
        slots = self._tally.slots((RESPONSE, str(status)), bounded=True)
        if slots is not None:
            slots[COUNT] += 1

    def flight(self, change: int) -> None:
        """A request came (1) or went (-1)."""
        self._tally.gauges[IN_FLIGHT] += change

    def parent(self, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        """Within it, spans belong to the trace that `headers` (traceparent, tracestate) name."""
        return nullcontext() if self._spans is None else self._spans.parent(headers)

    @property
    def traces(self) -> bool:
        return self._spans is not None

    def read(self) -> Counted:
        """What all processes of this server counted."""
        return self._tally.read()

    def waiting(self, entries: int) -> None:
        """How many entries wait to be written to the journal."""
        self._tally.gauges[WAITING] = entries

    def close(self) -> None:
        """Sends what is left."""
        if self._spans is not None:
            self._spans.close()
        self._tally.close()

    def _slots(self, label: Label) -> memoryview[float]:
        """A caller may make up model names, and there is room for a thousand labels: the rest is counted together."""
        slots = self._tally.slots(label)
        if slots is None:
            kind, workspace, _, _, _, purpose, outcome = label
            slots = self._tally.slots((kind, workspace, _OTHER, "", _OTHER, purpose, outcome), bounded=True)
        return memoryview(bytearray(8 * 64)).cast("d") if slots is None else slots


def _count(slots: memoryview[float], completion: Completion) -> None:
    slots[COUNT] += 1
    slots[INPUT_TOKENS] += completion.prompt_tokens
    slots[OUTPUT_TOKENS] += completion.completion_tokens
    slots[COST] += completion.cost_usd or 0.0
    first, tokens = completion.first_token_ms, completion.completion_tokens
    if first is not None:
        _time(slots, FIRST_TOKEN, first)
        if tokens > 1:  # as the GenAI conventions have it: the first token has a time of its own
            _time(slots, PER_TOKEN, (completion.total_ms - first) / (tokens - 1))
    if completion.first_sentence_ms is not None:
        _time(slots, FIRST_SENTENCE, completion.first_sentence_ms)
    _time(slots, DURATION, completion.total_ms)


def _time(slots: memoryview[float], start: int, milliseconds: float) -> None:
    seconds = milliseconds / 1000
    slots[start + bisect_left(BUCKETS, seconds)] += 1
    slots[start + _HISTOGRAM - 1] += seconds


@dataclass(frozen=True, slots=True)
class OpenTelemetrySpans:
    """One span a request by the GenAI semantic conventions, sent in the background by OTLP over HTTP.

    https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ ; the attributes that hold content are never set.
    """

    provider: TracerProvider
    tracer: Tracer

    def parent(self, headers: Mapping[str, str]) -> AbstractContextManager[None]:
        return _Within(headers)

    def tell(self, call: Call, completion: Completion) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        ended = time.time_ns()
        began = ended - int((time.perf_counter() - call.progress.admitted) * 1e9)
        finished = began + int(completion.total_ms * 1e6)
        attributes = _attributes(call, completion)
        name = f"{attributes['gen_ai.operation.name']} {attributes['gen_ai.request.model']}"
        span = self.tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes, start_time=began)
        for event, after in (("first token", completion.first_token_ms), ("first text", completion.first_sentence_ms)):
            if after is not None:
                span.add_event(event, timestamp=began + int(after * 1e6))
        if completion.outcome in ("failed", "truncated"):
            span.set_status(Status(StatusCode.ERROR))
        span.end(finished)

    def close(self) -> None:
        self.provider.shutdown()


class _Within(AbstractContextManager[None]):
    """Makes the caller's trace the present context, as OpenTelemetry keeps it."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __enter__(self) -> None:
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._token = context.attach(TraceContextTextMapPropagator().extract(self._headers))

    def __exit__(self, *_: object) -> None:
        from opentelemetry import context

        context.detach(self._token)


def _attributes(call: Call, completion: Completion) -> dict[str, str | int | float]:
    model = call.models[0].name if call.models else ""
    provider, _, name = model.rpartition("/")
    known: dict[str, str | int | float | None] = {
        "gen_ai.operation.name": "embeddings" if call.asked.embed else "chat",
        "gen_ai.provider.name": provider.partition("/")[0] or name,
        "gen_ai.request.model": model,
        "gen_ai.request.max_tokens": call.parameters.max_tokens,
        "gen_ai.request.temperature": call.parameters.temperature,
        "gen_ai.request.top_p": call.parameters.top_p,
        "gen_ai.request.seed": call.parameters.seed,
        "gen_ai.usage.input_tokens": completion.prompt_tokens,
        "gen_ai.usage.output_tokens": completion.completion_tokens,
        "error.type": str(completion.outcome) if completion.outcome in ("failed", "truncated") else None,
        "proveout.request": call.request,
        "proveout.workspace": completion.workspace,
        "proveout.app": call.release.app if call.release else None,
        "proveout.release": call.release.label if call.release else None,
        "proveout.stage": call.stage,
        "proveout.purpose": call.purpose,
        "proveout.outcome": str(completion.outcome),
        "proveout.cost_usd": completion.cost_usd,
    }
    return {key: value for key, value in known.items() if value is not None}


def open_telemetry(told: TelemetrySettings) -> Telemetry:
    """What this process tells. Nothing leaves the machine unless the config names where to (`telemetry.otlp`)."""
    tally = Tally(told.shared)
    return Telemetry(tally, None if told.otlp is None else _exporting(told.otlp, told.headers))


def _exporting(url: str, headers: Mapping[str, str]) -> Spans:
    # Imported only here: 0.4 s and 30 MB that a server without a collector does without.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource({"service.name": "proveout", "service.version": version("proveout")})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces", headers=dict(headers))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return OpenTelemetrySpans(provider, provider.get_tracer("proveout", version("proveout")))
