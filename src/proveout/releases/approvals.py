"""Puts on record that a release waits for approval: everything else that a stage demands of it is there.

Noted once per release, stage and standard.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from proveout.domain import Directory, Release, Scope, StageName
from proveout.releases.evidence import standard
from proveout.releases.gate import Gate
from proveout.store.events import Kind, note
from proveout.store.followers import Follower
from proveout.store.pool import Row, Session, Store, as_json

_KINDS = (Kind.RELEASE_CREATED, Kind.FACTS_RECORDED, Kind.EVIDENCE_RECORDED, Kind.ROUTE_CHANGED)
_FOLLOWER = Follower("approvals", _KINDS)
_AT_ONCE = 100  # events


@dataclass(frozen=True, slots=True)
class Approvals:
    """Follows the log. `directory` gives the configuration as it is now."""

    store: Store
    gate: Gate
    directory: Callable[[], Awaitable[Directory]]

    async def tick(self, scope: Scope) -> None:
        """Looks at what happened to the releases of the scope's workspace since the last time."""
        async with self.store.within(scope) as session:
            events = await _FOLLOWER.take(session, _AT_ONCE)
        if events:
            directory = await self.directory()
            async with self.store.within(scope) as session:
                if await _FOLLOWER.move(session, events[-1]):  # else another worker was quicker
                    await self._look(session, directory, _named(directory, scope.workspace, events))

    async def _look(self, session: Session, directory: Directory, releases: Sequence[Release]) -> None:
        for release in releases:
            for stage, criteria in self.gate.policy.stages.items():
                if any(c.approvals for c in criteria) and stage not in directory.stages_of(release):
                    await self._tell(session, release, stage)

    async def _tell(self, session: Session, release: Release, stage: StageName) -> None:
        lacking = [(criterion, lack) for criterion, lack in await self.gate.check(session, release, stage) if lack]
        if not lacking or not all(criterion.approvals for criterion, _ in lacking):
            return
        about = {"app": release.app, "stage": stage, "digest": release.digest, "standard": standard(release.facts)}
        if await session.row("approvals.awaited", about=as_json(about)) is None:
            facts = {**about, "release": release.number, "lacking": [lack for _, lack in lacking]}
            await note(session, release.workspace, Kind.APPROVAL_AWAITED, "system", facts)


def _named(directory: Directory, workspace: str, events: Sequence[Row]) -> list[Release]:
    """The releases that the events are about."""
    digests = {(event["facts"].get("app"), event["facts"].get("digest")) for event in events}
    found = directory.releases.values()
    return [r for r in found if r.workspace == workspace and (r.app, r.digest) in digests]
