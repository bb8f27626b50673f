"""`GET /metrics`: what all processes of this server counted, as OpenMetrics; and the counting of what comes and goes.

https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proveout.access import keys
from proveout.domain import Right
from proveout.edge import telemetry
from proveout.edge.http import problems
from proveout.edge.http.requests import gateway, principal
from proveout.edge.tally import Counted, Label
from proveout.errors import ProveoutError

MEDIA_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_LABELS = ("workspace", "app", "stage", "model", "purpose", "outcome")
_BY_APP = (0, 1, 2, 4)  # of _LABELS: what the histograms are told by
_SUMS = (
    ("proveout_requests", "Requests that ended.", telemetry.COUNT),
    ("proveout_input_tokens", "Tokens of prompts.", telemetry.INPUT_TOKENS),
    ("proveout_output_tokens", "Tokens of answers.", telemetry.OUTPUT_TOKENS),
    ("proveout_cost_usd", "What models cost, in USD.", telemetry.COST),
)
_HISTOGRAMS = (
    ("proveout_time_to_first_token_seconds", "From admission to the model's first token.", telemetry.FIRST_TOKEN),
    ("proveout_time_to_first_text_seconds", "From admission to the first text that leaves.", telemetry.FIRST_SENTENCE),
    ("proveout_time_per_output_token_seconds", "From one token to the next, the first left out.", telemetry.PER_TOKEN),
    ("proveout_request_duration_seconds", "From admission to the end.", telemetry.DURATION),
)


async def metrics(request: Request) -> Response:
    """`GET /metrics`: OpenMetrics over all processes of this server, the engine's included while it answers.

    Needs a key with the right `requests:read`, which sees its own workspace, or `telemetry.metrics_public`.
    """
    here = gateway(request)
    workspace = None
    if not here.settings.telemetry.metrics_public:
        try:
            caller = principal(request)
            keys.require(caller, Right.REQUESTS_READ)
        except ProveoutError as error:
            return problems.response(error)
        workspace = caller.key.workspace
    here.telemetry.waiting(here.rooms.journal.depth)
    try:
        engine = await here.rooms.catalogue.metrics()
    except ProveoutError:
        engine = ""  # it is away, which /readyz says; the page is of the others too
    return Response(engine + "\n".join(lines(here.telemetry.read(), workspace)) + "\n", media_type=MEDIA_TYPE)


def lines(counted: Counted, workspace: str | None = None) -> Iterator[str]:
    """The exposition of what was counted, of one workspace or of all."""
    requests = {
        label[1:]: numbers
        for label, numbers in sorted(counted.numbers.items())
        if label[0] == telemetry.REQUEST and workspace in (None, label[1])
    }
    for name, about, at in _SUMS:
        yield from _head(name, "counter", about)
        for label, numbers in requests.items():
            yield f"{name}_total{_labels(_LABELS, label)} {numbers[at]}"
    by_app: dict[Label, list[float]] = {}
    for label, numbers in requests.items():
        key = tuple(label[n] for n in _BY_APP)
        by_app[key] = [a + b for a, b in zip(by_app.get(key, [0.0] * len(numbers)), numbers, strict=True)]
    for name, about, at in _HISTOGRAMS:
        yield from _head(name, "histogram", about)
        for label, numbers in by_app.items():
            yield from _histogram(name, label, numbers[at:])
    yield from _head("proveout_responses", "counter", "Answers of the data plane by HTTP status.")
    for label, numbers in sorted(counted.numbers.items()):
        if label[0] == telemetry.RESPONSE:
            yield f"proveout_responses_total{_labels(('status',), label[1:])} {numbers[telemetry.COUNT]}"
    yield from _head("proveout_requests_in_flight", "gauge", "Requests of the data plane that have no end yet.")
    yield f"proveout_requests_in_flight {counted.gauges[telemetry.IN_FLIGHT]}"
    yield from _head("proveout_journal_waiting", "gauge", "Entries that wait to be written to the journal.")
    yield f"proveout_journal_waiting {counted.gauges[telemetry.WAITING]}"
    yield "# EOF"


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    if name.endswith("_seconds"):
        yield f"# UNIT {name} seconds"
    yield f"# HELP {name} {about}"


def _histogram(name: str, label: Label, numbers: list[float]) -> Iterator[str]:
    names = tuple(_LABELS[n] for n in _BY_APP)
    counts = list(accumulate(numbers[: len(telemetry.BUCKETS) + 1]))
    for bound, found in zip([*map(str, telemetry.BUCKETS), "+Inf"], counts, strict=True):
        yield f"{name}_bucket{_labels((*names, 'le'), (*label, bound))} {found}"
    yield f"{name}_count{_labels(names, label)} {counts[-1]}"
    yield f"{name}_sum{_labels(names, label)} {numbers[len(counts)]}"


def _labels(names: Label, values: Label) -> str:
    escaped = (v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for v in values)
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(names, escaped, strict=True)) + "}"


class Counting:
    """Counts the requests of the data plane that are under way, and the statuses that they end with."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(("/v1/", "/generate")):
            return await self._app(scope, receive, send)
        told: telemetry.Telemetry = scope["app"].state.gateway.telemetry

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.respond(message["status"])
            await send(message)

        told.flight(1)
        try:
            if told.traces:
                with told.parent(Headers(scope=scope)):
                    await self._app(scope, receive, counted)
            else:
                await self._app(scope, receive, counted)
        finally:
            told.flight(-1)
