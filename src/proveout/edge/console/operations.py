"""The operations page: what is running, how it is used, what it costs, and the requests that are looked for.

Rendered whole by the server. A script asks for the page again and swaps what changed; without it the page stands still.
Nothing here shows what was asked or answered: that is sealed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from proveout.domain import STAGES, Outcome, Principal, Release, Right, Route
from proveout.edge.console import charts, shell
from proveout.edge.http import health
from proveout.edge.http.requests import gateway
from proveout.edge.notify.outbox import states
from proveout.edge.wiring import Gateway
from proveout.engine.catalogue import ECHO, LOCAL
from proveout.errors import InvalidInput, Unavailable
from proveout.ledger import report
from proveout.ledger.erase import pseudonyms
from proveout.ledger.journal import Ending, Filter, now
from proveout.store.pool import Row

_LISTED = 25  # requests on one page
_ENDED_HOURS = 24  # after its end, a rollout is listed for so long
_NO_END_AFTER = timedelta(minutes=15)  # longer than any answer takes
_SEEN = timedelta(hours=24)  # how far back a model's state looks


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time up to now, in windows that begin on the clock."""

    name: str
    step: timedelta
    windows: int
    per: str

    def since(self, at: datetime) -> datetime:
        """Where the first window begins: the window of `at` is the last."""
        day = at.replace(hour=0, minute=0, second=0, microsecond=0)
        last = day + (at - day) // self.step * self.step
        return last - (self.windows - 1) * self.step


PERIODS = {
    "24h": Period("24 hours", timedelta(hours=1), 24, "hour"),
    "7d": Period("7 days", timedelta(hours=6), 28, "6 hours"),
    "30d": Period("30 days", timedelta(days=1), 30, "day"),
}
BY: Mapping[report.By, str] = {"app": "App", "model": "Model", "day": "Day", "key": "Key"}
GUARDS = (
    "injection",
    "personal_data",
    "secrets",
    "unicode",
    "egress",
    "canary",
    "toxicity",
    "content",
    "groundedness",
)
ENDINGS: tuple[Ending, ...] = (*Outcome, "open")


@dataclass(frozen=True, slots=True)
class View:
    """What of the page is looked at, as its address says."""

    period: str = "24h"
    by: report.By = "app"
    app: str = ""
    outcome: Ending | Literal[""] = ""
    release: str = ""
    guard: str = ""
    subject: str = ""
    since: str = ""
    until: str = ""
    before: str = ""

    @property
    def narrows(self) -> bool:
        """Whether it looks for more than an app and an outcome."""
        return any((self.release, self.guard, self.subject, self.since, self.until))

    def but(self, **changed: str) -> str:
        """The address of the same view with something changed; what is as by default is left out."""
        chosen = {f.name: changed.get(f.name, getattr(self, f.name)) for f in fields(self)}
        query = urlencode({f.name: chosen[f.name] for f in fields(self) if chosen[f.name] != f.default})
        return f"/operations?{query}" if query else "/operations"


@dataclass(frozen=True, slots=True)
class Running:
    """A stage of an app, and the release that it serves."""

    route: Route
    release: Release

    @property
    def models(self) -> list[str]:
        manifest = self.release.manifest
        return list(dict.fromkeys([*(c.use.name for c in manifest.model), *(m.name for m in manifest.fallback)]))


@dataclass(frozen=True, slots=True)
class ModelState:
    """A model: what runs it, who uses it, and whether it works as far as is known. `good` None: nothing is known."""

    name: str
    runtime: str
    used_by: Sequence[str]
    good: bool | None
    state: str
    last: datetime | None


@dataclass(frozen=True, slots=True)
class Numbers:
    """What comes from the database."""

    database: Row
    load: report.Load
    costs: Sequence[report.Cost]
    asked: Mapping[str, Row]  # of each model
    requests: Sequence[Row]
    rollouts: Sequence[Mapping[str, Any]]  # that run, or ended lately
    untold: Sequence[Mapping[str, Any]]  # targets of notifications that do not take them


@shell.for_holders(Right.REQUESTS_READ)
async def operations(request: Request, caller: Principal) -> Response:
    """`GET /operations`: what is running, how it is used, what it costs, the last requests."""
    view, times = _view(request)
    here, at = gateway(request), now()
    period = PERIODS[view.period]
    absent = await health.missing(here)
    running = _running(here, caller)
    try:
        numbers, problem = await _numbers(here, caller, view, times, period.since(at)), None
    except Unavailable as error:
        numbers, problem = None, error.message
    apps = sorted({r.route.app for r in running} | {view.app} - {""})
    return shell.page(
        "operations.html",
        caller,
        at=at,
        view=view,
        period=period,
        periods=PERIODS,
        by=BY,
        absent=absent,
        running=running,
        models=_models(here, running, absent, numbers.asked if numbers else {}),
        keys=shell.key_names(request, caller),
        numbers=numbers,
        rollouts=numbers.rollouts if numbers else (),
        problem=problem,
        total=report.total(numbers.costs) if numbers else None,
        bars=charts.bars(numbers.load.windows) if numbers else None,
        lines=charts.lines(numbers.load.windows) if numbers else None,
        requests=[listed(row, at) for row in numbers.requests[:_LISTED]] if numbers else [],
        older=numbers.requests[_LISTED - 1]["begun"].isoformat() if numbers and numbers.requests[_LISTED:] else None,
        apps=apps,
        endings=ENDINGS,
        guards=GUARDS,
    )


def _view(request: Request) -> tuple[View, dict[str, datetime]]:
    """The view that the address asks for, and the times that it names; UTC without a zone. Raises InvalidInput."""
    given = request.query_params
    view = View(**{f.name: given[f.name] for f in fields(View) if given.get(f.name)})  # type: ignore[arg-type]
    for name, known in (("period", PERIODS), ("by", get_args(report.By)), ("outcome", ("", *ENDINGS))):
        if getattr(view, name) not in known:
            raise InvalidInput(f"{name}: {getattr(view, name)!r} is not one of {', '.join(filter(None, known))}.")
    times = {}
    for name in ("since", "until", "before"):
        if text := getattr(view, name):
            try:
                times[name] = datetime.fromisoformat(text)
            except ValueError as error:
                raise InvalidInput(f"{name}: {text!r} is not a time, as 2026-01-31T12:00:00+00:00 is.") from error
    if view.release and not view.release.isdigit():
        raise InvalidInput(f"release: {view.release!r} is not the number of a release.")
    return view, {name: at.replace(tzinfo=at.tzinfo or UTC) for name, at in times.items()}


async def _numbers(
    here: Gateway, caller: Principal, view: View, times: Mapping[str, datetime], since: datetime
) -> Numbers:
    period, scope = PERIODS[view.period], caller.scope
    async with here.store.unscoped() as session:
        database = await session.row("database.about")
    assert database is not None
    subjects = view.subject and await pseudonyms(here.store, here.keyring, scope, view.subject)
    which = Filter(
        app=view.app or None,
        release=int(view.release) if view.release else None,
        outcome=view.outcome or None,
        guard=view.guard or None,
        subjects=subjects or None,
        since=times.get("since"),
        until=times.get("until"),
    )
    targets = await states(here.store, scope, here.targets)
    return Numbers(
        database=database,
        load=await report.load(here.store, scope, since, period.step, period.windows),
        costs=await report.costs(here.store, scope, view.by, since),
        asked=await report.models(here.store, scope, now() - _SEEN),
        requests=await here.rooms.journal.newest(scope, _LISTED + 1, which, before=times.get("before")),
        rollouts=await here.rollouts.recent(scope, _ENDED_HOURS),
        untold=[target for target in targets if target["error"]],
    )


def _running(here: Gateway, caller: Principal) -> list[Running]:
    """The stages that serve a release, apps by name and their highest stage first."""
    directory = here.directory()
    mine = [route for route in directory.routes.values() if route.workspace == caller.key.workspace]
    mine.sort(key=lambda route: (route.app, -STAGES.index(route.stage)))
    return [Running(route, directory.releases[route.workspace, route.app, route.stable]) for route in mine]


def _models(
    here: Gateway, running: Sequence[Running], absent: Mapping[str, str], asked: Mapping[str, Row]
) -> list[ModelState]:
    """The embedded models, those of the releases that are served, and those that were asked of late."""
    catalogue = here.rooms.catalogue
    used: dict[str, list[str]] = {name: [] for name in (catalogue.names()[0], *catalogue.embedders())}
    for one in running:
        for name in one.models:
            used.setdefault(name, []).append(one.release.label)
        if one.release.manifest.knowledge:
            used[catalogue.embedders()[0]].append(one.release.label)
    states = []
    for name in dict.fromkeys([*used, *asked]):
        good, state = _state(name, absent, asked.get(name))
        last = asked[name]["last"] if name in asked else None
        states.append(
            ModelState(name, catalogue.runtime(name), list(dict.fromkeys(used.get(name, ()))), good, state, last)
        )
    return states


def _state(name: str, absent: Mapping[str, str], asked: Row | None) -> tuple[bool | None, str]:
    """Whether a model works, and in words. Of a provider's only its answers tell."""
    kind = name.partition("/")[0]
    if kind == LOCAL:
        return ("models" not in absent, absent.get("models", "loaded"))
    if asked and asked["failed"]:
        return asked["failed"] < asked["requests"] / 2, f"{asked['failed']} of {asked['requests']} failed in 24 h"
    if asked:
        return True, f"{asked['requests']:,} asked in 24 h, none failed"
    return (True, "built in") if kind == ECHO else (None, "not asked in 24 h")


def listed(row: Row, at: datetime) -> dict[str, Any]:
    """A request as it is shown; without a completion it is under way, or after a long time without an end."""
    open_ = "under way" if at - row["begun"] < _NO_END_AFTER else "no end"
    return {**row, "ending": row["outcome"] or open_, "model": row["answered_by"] or row["model"]}
