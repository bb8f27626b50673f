"""The one writer of routes: which release a stage serves. Every way into a stage passes its gate here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from proveout.domain import Candidate, Principal, Release, Right, StageName
from proveout.errors import Conflict, InvalidInput, NotFound
from proveout.releases.gate import Gate, closed_to
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Session, Store, as_json

Ended = Literal["promoted", "rolled_back", "aborted"]
_SHORTEST_REASON = 20  # letters and digits
_STAY_SECONDS = 86_400.0
_JUST_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Routes:
    """Changes routes, each change in one transaction with the gate's word and its event."""

    store: Store
    gate: Gate

    async def promote(self, principal: Principal, release: Release, stage: StageName, break_glass: str = "") -> None:
        """Makes `release` the stable one of `stage`. Raises GateClosed with what is missing.

        `break_glass` is the reason for which somebody with the right to goes in without the evidence; it is recorded
        and alarms. Raises InvalidInput for a reason that says nothing, NotFound without the right.
        """
        if break_glass:
            _may_break(principal, break_glass)
        async with self.store.within(principal.scope) as session:
            await self.lock(session, release.workspace, release.app, stage)
            checked = await self.gate.check(session, release, stage)
            lacking = [criterion.id for criterion, lack in checked if lack]
            if not break_glass:
                closed_to(release, stage, checked)
            elif lacking:
                about = _about(release, stage) | {"reason": break_glass, "lacking": lacking}
                await note(session, release.workspace, Kind.GLASS_BROKEN, principal.key.id, about)
            active = await self.active(session, release.workspace, release.app, stage)
            ended: str | None = None
            if active is not None and active["stable"] != release.number:  # a restart promotes what serves already
                end: Ended = "promoted" if active["release"] == release.number else "aborted"
                await self.end(session, principal.key.id, active, end, f"{release.label} was promoted by hand")
                ended = active["id"] if end == "promoted" else None
            await self.make_stable(session, principal.key.id, release, stage, bool(lacking), rollout=ended)

    async def roll_back(
        self, principal: Principal, app: str, stage: StageName, to: int | None, releases: Mapping[int, Release]
    ) -> Release:
        """Makes an earlier stable release of the stage stable again: number `to`, or the last good one before.

        It must have come through the gate, not by breaking the glass; one that was itself rolled back from must be
        named. A rollout under way ends; without `to` that is all, for its candidate is what is rolled back. Raises
        Conflict, and NotFound for a stage without a release.
        """
        async with self.store.within(principal.scope) as session:
            await self.lock(session, principal.key.workspace, app, stage)
            about = {"workspace": principal.key.workspace, "app": app, "stage": stage}
            tenures = await session.fetch("tenures.of_stage", **about)
            if not tenures:
                raise NotFound(f"{app} has no stable release in {stage}.")
            active = await self.active(session, principal.key.workspace, app, stage)
            if active is not None:
                await self.end(session, principal.key.id, active, "rolled_back", "rolled back by hand")
                if to in (None, active["stable"]):
                    return releases[active["stable"]]
            if to is None:
                await self._just_ended(session, about, tenures[0])
            back = releases[_way_back(tenures, f"{app} in {stage}", to)]
            await session.run("tenures.withdraw", **about)
            await self.make_stable(session, principal.key.id, back, stage, broke_glass=False, action="rolled_back")
        return back

    async def _just_ended(self, session: Session, about: Mapping[str, Any], tenure: Row) -> None:
        """Raises Conflict where the rollout that somebody wants to end has just ended itself: what is stable now was
        so before it, and is not in doubt."""
        row, stable = await session.row("rollouts.latest", **about), tenure["release"]
        if row is None or row["state"] != "rolled_back" or row["started"] < tenure["since"]:
            return
        since = (datetime.now(UTC) - row["ended"]).total_seconds()
        if since < _JUST_SECONDS:
            app, stage = about["app"], about["stage"]
            raise Conflict(
                f"{app}@{row['release']} was rolled back {since:.0f} s ago, and {app}@{stable} serves all of {stage}. "
                "To leave that one too, name the release to go to."
            )

    # -- within a transaction that holds the stage's lock ----------------------------------------------

    async def lock(self, session: Session, workspace: str, app: str, stage: StageName) -> None:
        """Waits until this transaction alone may change the stage. Taken before the row of a rollout."""
        await session.run("routes.lock", workspace=workspace, app=app, stage=stage)

    async def active(self, session: Session, workspace: str, app: str, stage: StageName) -> Row | None:
        """The rollout of a stage that has not ended, for this transaction to change."""
        return await session.row("rollouts.active_of_stage", workspace=workspace, app=app, stage=stage)

    async def set_candidate(
        self, session: Session, by: str, release: Release, stage: StageName, candidate: Candidate
    ) -> None:
        """Gives a stage a candidate."""
        where = {"workspace": release.workspace, "app": release.app, "stage": stage}
        drawn = {"weight": candidate.weight, "salt": candidate.salt, "rollout": candidate.rollout}
        pilots = as_json(candidate.pilots)
        await session.run("routes.set_candidate", **where, **drawn, candidate=release.number, pilots=pilots)
        facts = {**_about(release, stage), "candidate": release.number, "weight": candidate.weight}
        await note(session, release.workspace, Kind.ROUTE_CHANGED, by, {**facts, "rollout": candidate.rollout})

    async def set_weight(self, session: Session, by: str, rollout: Row, weight: float) -> None:
        """Gives the candidate of a rollout another weight."""
        where = {name: rollout[name] for name in ("workspace", "app", "stage")}
        await session.run("routes.set_weight", **where, rollout=rollout["id"], weight=weight)
        facts = {"app": rollout["app"], "stage": rollout["stage"], "candidate": rollout["release"], "weight": weight}
        await note(session, rollout["workspace"], Kind.ROUTE_CHANGED, by, {**facts, "rollout": rollout["id"]})

    async def end(
        self,
        session: Session,
        by: str,
        rollout: Row,
        state: Ended,
        reason: str,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends a rollout: its candidate gets no more traffic, and the decision is on record.

        After a promotion, conversations on the old stable release stay on it for a day, or until the stage changes.
        """
        where = {name: rollout[name] for name in ("workspace", "app", "stage")}
        if state == "promoted":
            await session.run("routes.retire", **where, rollout=rollout["id"], seconds=_STAY_SECONDS)
        await session.run("routes.clear", **where, rollout=rollout["id"])
        await session.run("rollouts.end", id=rollout["id"], state=state)
        await session.run("assignments.forget", rollout=rollout["id"], stay=state == "promoted")
        gone = {"app": rollout["app"], "stage": rollout["stage"], "candidate": None, "rollout": rollout["id"]}
        await note(session, rollout["workspace"], Kind.ROUTE_CHANGED, by, gone)
        await decided(session, rollout, state, by, reason, facts or {})

    async def make_stable(
        self,
        session: Session,
        by: str,
        release: Release,
        stage: StageName,
        broke_glass: bool,
        action: Literal["promoted", "rolled_back", "refreshed"] = "promoted",
        rollout: str | None = None,
    ) -> None:
        """Gives a stage its stable release; `rollout` is the one that ends with it."""
        where = {"workspace": release.workspace, "app": release.app, "stage": stage}
        before = await session.row("routes.stable", **where)
        changed = await session.row("routes.set_stable", **where, number=release.number, broke_glass=broke_glass)
        if changed is not None:
            facts = {"app": release.app, "stage": stage, "stable": release.number, "digest": release.digest}
            was = {"before": before["stable"] if before else None, "action": action, "rollout": rollout}
            await note(session, release.workspace, Kind.ROUTE_CHANGED, by, {**facts, **was})


async def decided(session: Session, rollout: Row, action: str, by: str, reason: str, facts: Mapping[str, Any]) -> None:
    """Puts a decision over a rollout on record, with the numbers that made it."""
    said = {"rollout": rollout["id"], "action": action, "by": by, "reason": reason}
    await session.run("decisions.insert", **said, facts=as_json(facts))
    about = {name: rollout[name] for name in ("app", "stage", "release", "stable")}
    await note(session, rollout["workspace"], Kind.ROLLOUT_DECIDED, by, {**about, **facts, **said})


def _way_back(tenures: Sequence[Row], where: str, to: int | None) -> int:
    """The number of the release to go back to; `tenures` newest first. Raises Conflict."""
    last: dict[int, Row] = {}
    for tenure in tenures:
        last.setdefault(tenure["release"], tenure)
    sound = [number for number, tenure in last.items() if not tenure["broke_glass"]]
    sound = [number for number in sound if number != tenures[0]["release"]]
    if to is not None and to not in sound:
        came = ", ".join(map(str, sound)) or "none"
        raise Conflict(
            f"{where}: release {to} cannot be gone back to. Releases that came through the gate before: {came}."
        )
    good = [n for n in sound if not last[n]["withdrawn"]]
    if to is None and not sound:
        raise Conflict(f"{where}: there is no release to go back to: none came through the gate before.")
    if to is None and not good:
        named = ", ".join(map(str, sound))
        raise Conflict(f"{where}: each earlier release was itself rolled back from; name the one to go to: {named}.")
    return to if to is not None else good[0]


def _may_break(principal: Principal, reason: str) -> None:
    if Right.RELEASES_BREAK_GLASS not in principal.rights:
        raise NotFound(f"There is no such thing here, or your key does not grant it ({Right.RELEASES_BREAK_GLASS}).")
    if sum(character.isalnum() for character in reason) < _SHORTEST_REASON:
        raise InvalidInput(
            f"break_glass: give the reason in {_SHORTEST_REASON} letters and digits or more: it is recorded."
        )


def _about(release: Release, stage: StageName) -> dict[str, object]:
    return {"app": release.app, "stage": stage, "release": release.number, "digest": release.digest}
