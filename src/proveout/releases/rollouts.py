"""Rollouts in the store: started, watched, decided and ended, each step in one transaction with its route.

A rollout is a row, and the row is the whole machine: whoever holds the stage's lock reads what has entered the log
since the row's position, decides, and writes row, route, decision and event together. A process that dies in between
has done nothing, and the next one begins where the row stands. So nothing is ever done twice, without a coordinator.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from proveout.domain import Candidate, Directory, Pilots, Principal, Release, Scope, StageName
from proveout.errors import Conflict, NotFound
from proveout.evals import online
from proveout.evals.sequential import SampleRatio
from proveout.releases import rollout as machines
from proveout.releases.gate import closed_to
from proveout.releases.plan import Plan, plan_of
from proveout.releases.rollout import AMOUNTS, Decision, Machine, Progress, Units, decide
from proveout.releases.routes import Ended, Routes, decided
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Session, Store, as_json

Order = Literal["pause", "resume", "promote", "abort"]
_ENTRIES = 5000  # of the log, in one transaction
_BEHIND_SECONDS = 2.0  # until what happened is missed in the log
_SAMPLED = 1000  # answers of the stable release from which thresholds are frozen
_WEEK, _BASELINE = 7, 10_000  # days, and requests, of the baseline
_OUTCOMES = 100  # that are shown: their names are their givers' own
_SYSTEM = "system"
_ENDS: dict[str, Ended] = {"promote": "promoted", "roll_back": "rolled_back", "abort": "aborted"}


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Moves candidates to stable, or back."""

    store: Store
    routes: Routes
    directory: Callable[[], Directory]

    async def start(self, principal: Principal, release: Release, stage: StageName) -> None:
        """Gives a stage `release` as a candidate, at its plan's first step.

        Raises GateClosed with what is missing; Conflict where there is nothing to compare it with, or a rollout runs.
        """
        async with self.store.within(principal.scope) as session:
            await self.routes.lock(session, release.workspace, release.app, stage)
            await self.begin(session, principal.key.id, release, stage)

    async def begin(self, session: Session, by: str, release: Release, stage: StageName) -> None:
        """As `start`, within a transaction that holds the stage's lock."""
        where = {"workspace": release.workspace, "app": release.app, "stage": stage}
        plan, rollout = plan_of(release), f"rollout_{secrets.token_hex(8)}"
        stable = await session.row("routes.stable", **where)
        if stable is None:
            raise Conflict(f"{release.app} has no stable release in {stage} to compare with: promote {release.label}.")
        if stable["stable"] == release.number:
            raise Conflict(f"{release.label} is the stable release of {stage} already.")
        running = await self.routes.active(session, release.workspace, release.app, stage)
        if running is not None:
            label = f"{release.app}@{running['release']}"
            raise Conflict(f"A rollout of {label} to {stage} is {running['state']}: abort it, or wait for its end.")
        await self.routes.gate.demand(session, release, stage)
        progress = await _first_progress(session, release.app, stage, stable["stable"])
        newest = await session.row("readings.newest", seconds=_BEHIND_SECONDS)
        assert newest is not None
        row = {"id": rollout, **where, "release": release.number, "stable": stable["stable"], "key": by}
        kept = {"plan": as_json(plan.model_dump(mode="json")), "progress": as_json(progress)}
        await session.run("rollouts.insert", **row, **kept, weight=plan.steps[0], position=newest["position"])
        pilots = Pilots(frozenset(plan.pilots.users), frozenset(plan.pilots.groups), plan.pilots.share)
        candidate = Candidate(release.number, plan.steps[0], rollout, secrets.token_hex(16), pilots)
        await self.routes.set_candidate(session, by, release, stage, candidate)
        facts = {"plan": plan.model_dump(mode="json"), "weights": machines.weights(plan), "digest": release.digest}
        about = {name: row[name] for name in ("app", "stage", "release", "stable")} | {"rollout": rollout}
        await note(session, release.workspace, Kind.ROLLOUT_STARTED, by, {**about, **facts})
        share = f"{100 * plan.steps[0]:.3g} % of the traffic"
        await decided(session, row, "start", by, share, {"weight": plan.steps[0]})

    async def order(self, principal: Principal, app: str, stage: StageName, order: Order) -> None:
        """Pauses, resumes, promotes or aborts the rollout of a stage. Raises Conflict where its state forbids it.

        Raises NotFound where none runs, and GateClosed for a promotion without its evidence.
        """
        by, workspace = principal.key.id, principal.key.workspace
        async with self.store.within(principal.scope) as session:
            await self.routes.lock(session, workspace, app, stage)
            row = await self.routes.active(session, workspace, app, stage)
            if row is None:
                raise NotFound(f"No rollout of {app} to {stage} is under way.")
            if order == "abort":
                await self.routes.end(session, by, row, "aborted", "aborted by hand")
            elif order == "promote":
                await self._promote(session, by, row, Decision("promote", "promoted by hand"), demand=True)
            else:
                await self._switch(session, by, row, order)

    async def _switch(self, session: Session, by: str, row: Row, order: Literal["pause", "resume"]) -> None:
        allowed, following = (("running",), "paused") if order == "pause" else (("paused", "frozen"), "running")
        if row["state"] not in allowed:
            of = f"The rollout of {row['app']}@{row['release']} to {row['stage']} is {row['state']}"
            raise Conflict(f"{of} already." if row["state"] == following else f"{of}: resume, promote or abort it.")
        machine = _machine(row)
        if row["state"] == "frozen":
            machine.progress.split = SampleRatio()  # whoever resumes has mended the split: it is looked at afresh
        machine.state = "paused" if order == "pause" else "running"
        await _save(session, row, machine, row["position"])
        await decided(session, row, order, by, f"{order}d by hand", {"step": machine.step, "weight": machine.weight})

    async def _promote(self, session: Session, by: str, row: Row, decision: Decision, *, demand: bool) -> str:
        """Makes the candidate stable. Returns what the candidate still lacks for the gate; "" if it was promoted."""
        stage: StageName = row["stage"]
        release = self.directory().releases[row["workspace"], row["app"], row["release"]]
        checked = await self.routes.gate.check(session, release, stage)
        if demand:
            closed_to(release, stage, checked)
        if lacking := [f"{criterion.id}: {lack}" for criterion, lack in checked if lack]:
            return "; ".join(lacking)
        await self.routes.end(session, by, row, "promoted", decision.reason, decision.facts)
        await self.routes.make_stable(session, by, release, stage, broke_glass=False, rollout=row["id"])
        return ""

    async def tick(self, scope: Scope) -> None:
        """Lets every rollout of the scope's workspace see what has ended since, and decide."""
        async with self.store.unscoped() as session:
            await session.run("routes.let_go")
            rows = await session.fetch("rollouts.active", workspace=scope.workspace)
        for row in rows:
            async with self.store.within(scope) as session:
                await self._advance(session, row)

    async def _advance(self, session: Session, named: Row) -> None:
        where = {name: named[name] for name in ("workspace", "app", "stage")}
        mine = await session.row("routes.try_lock", **where)
        row = await self.routes.active(session, **where) if mine and mine["mine"] else None
        newest = await session.row("readings.newest", seconds=_BEHIND_SECONDS)
        if row is None or row["id"] != named["id"] or newest is None:
            return  # another worker, or a person, is at it
        until = min(newest["position"], row["position"] + _ENTRIES)
        about = {name: row[name] for name in ("app", "stage", "started", "stable", "release")}
        seen = await session.fetch("readings.since", **about, after=row["position"], until=until)
        batch = [online.read(one) for one in seen]
        names = [name for one in batch for name in (one.unit, one.about) if name is not None]
        units = await _units(session, row["id"], names)
        machine = _machine(row)
        behind = bool(newest["behind"]) or until < newest["position"]
        decision = decide(machine, batch, units, time.time(), behind=behind)
        news = bool(batch) or until - row["position"] >= _ENTRIES
        if decision.action == "hold" and not news:
            return
        if units:
            kept = [{"unit": unit, "used": used} for unit, used in units.items()]
            await session.run("exposures.put", rollout=row["id"], units=as_json(kept))
        facts = {**decision.facts, "position": until}
        decision = Decision(decision.action, decision.reason, facts)
        before, machine.progress.closed = machine.progress.closed, ""
        if decision.action == "promote":
            closed = await self._promote(session, _SYSTEM, row, decision, demand=False)
            if closed and closed == before and not news:
                return  # the gate says what it said
            machine.progress.closed = closed
            machine.state = "running" if closed else machine.state
            if closed and closed != machine.progress.held:  # told once, however often it is tried
                machine.progress.held = closed
                await decided(session, row, "held", _SYSTEM, closed, facts)
        await _save(session, row, machine, until)
        if decision.action == "step":
            await self.routes.set_weight(session, _SYSTEM, row, machine.weight)
        if decision.action in ("step", "freeze"):
            await decided(session, row, decision.action, _SYSTEM, decision.reason, facts)
        elif decision.action in ("roll_back", "abort"):
            await self.routes.end(session, _SYSTEM, row, _ENDS[decision.action], decision.reason, facts)

    async def show(self, scope: Scope, app: str, stage: StageName) -> dict[str, Any]:
        """The latest rollout of a stage, also after its end; with what came of its requests, by arm.

        Raises NotFound where there was none.
        """
        async with self.store.within(scope) as session:
            row = await session.row("rollouts.latest", workspace=scope.workspace, app=app, stage=stage)
            if row is None:
                raise NotFound(f"There was no rollout of {app} to {stage}.")
            return {**await _shown(session, row), "outcomes": await _outcomes(session, row)}

    async def baseline(self, scope: Scope, app: str, stage: StageName) -> dict[str, Any]:
        """How the stable release of a stage answered in the last week. Raises NotFound for a stage without one."""
        async with self.store.within(scope) as session:
            stable = await session.row("routes.stable", workspace=scope.workspace, app=app, stage=stage)
            if stable is None:
                raise NotFound(f"{app} has no stable release in {stage}.")
            about = {"app": app, "stage": stage, "release": stable["stable"]}
            rows = await session.fetch("readings.baseline", **about, days=_WEEK, limit=_BASELINE)
        return {"app": app, "stage": stage, "release": stable["stable"], **online.baseline(rows, datetime.now(UTC))}

    async def recent(self, scope: Scope, hours: int) -> list[dict[str, Any]]:
        """The newest rollout of each stage that runs, or that ended in the last hours."""
        async with self.store.unscoped() as session:
            rows = await session.fetch("rollouts.recent", workspace=scope.workspace, hours=hours)
            return [await _shown(session, row) for row in rows]


async def _first_progress(session: Session, app: str, stage: StageName, stable: int) -> Progress:
    """The progress of a new rollout, with the thresholds that recent answers of the stable release are enough for."""
    progress = Progress(stepped=time.time())
    rows = await session.fetch("readings.of_stable", app=app, stage=stage, release=stable, limit=_SAMPLED)
    amounts = [online.amounts(row) for row in rows]
    for name in AMOUNTS:
        machines.freeze(progress, name, [one[name] for one in amounts if one[name] == one[name]])
    return progress


async def _units(session: Session, rollout: str, names: list[str]) -> Units:
    """What the rollout knows of these units; those that it has not seen are absent."""
    if not names:
        return {}
    rows = await session.fetch("exposures.get", rollout=rollout, units=list(set(names)))
    return {row["unit"]: row["used"] for row in rows}


def _machine(row: Row) -> Machine:
    plan = Plan.model_validate(row["plan"])
    progress = msgspec.convert(row["progress"], Progress)
    return Machine(plan, row["started"].timestamp(), progress, row["state"], row["step"])


async def _save(session: Session, row: Row, machine: Machine, position: int) -> None:
    now = {"state": machine.state, "step": machine.step, "weight": machine.weight, "position": position}
    await session.run("rollouts.save", id=row["id"], **now, progress=as_json(machine.progress))


async def _outcomes(session: Session, row: Row) -> dict[str, dict[str, Any]]:
    """Of each arm, the mean and the number of each outcome of feedback: `{"candidate": {"minutes": {mean, count}}}`."""
    about = {name: row[name] for name in ("app", "stage", "started", "ended")}
    found: dict[str, dict[str, Any]] = {"candidate": {}, "stable": {}}
    for one in await session.fetch("feedback.outcomes", **about, limit=_OUTCOMES):
        found[one["arm"]][one["name"]] = {"mean": one["mean"], "count": one["count"]}
    return found


async def _shown(session: Session, row: Row) -> dict[str, Any]:
    machine = _machine(row)
    progress = machine.progress
    active = row["state"] in machines.ACTIVE
    decisions = await session.fetch("decisions.list", rollout=row["id"])
    calls = {arm: counts.calls for arm, counts in progress.total.items()}
    split = {"candidate": progress.split.candidate, "stable": progress.split.stable}
    return {
        **{name: row[name] for name in ("id", "app", "stage", "state", "release", "stable", "step")},
        "weight": row["weight"] if active else float(row["state"] == "promoted"),
        "started": row["started"],
        "ended": row["ended"],
        "waiting": (progress.closed or machines.outlook(machine, time.time()).reason) if active else "",
        "exposure": {**calls, "in_this_step": progress.step["candidate"].calls, "needed": machine.plan.minimum.calls},
        "combined": {"e_value": machines.finite(machines.log_e(machine)), "needed": 1 / machine.plan.alpha},
        "guardrails": machines.guardrails(machine),
        "criteria": machines.shown_criteria(machine),
        "split": {**split, "e_value": machines.finite(progress.split.log_e), "needed": 1 / machines.SPLIT_ALPHA},
        "arms": machines.arms(progress.total),
        "history": progress.history,
        "plan": machine.plan.model_dump(mode="json"),
        "deadline": datetime.fromtimestamp(machine.started + machine.plan.deadline, UTC),
        "decisions": [dict(one) for one in decisions],
    }
