"""The outbox: each target follows the log by itself and gets what concerns it, in the log's order, at least once.

Who dies between sending and writing down that the target has taken it leaves the target where it was: the same
notification goes out again, under the same id.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from proveout.domain import Scope
from proveout.edge.notify.messages import KINDS, NameOf, Notification, notification
from proveout.edge.notify.targets import SECONDS, Target, Undelivered
from proveout.store.events import Kind, note
from proveout.store.followers import Follower, Patience
from proveout.store.pool import Row, Session, Store

log = logging.getLogger(__name__)

_AT_ONCE = 100  # events that are looked at in one transaction
_LEASE = SECONDS + 10  # of whoever sends
_REFUSALS = 3  # of one notification by its content, after which the next one has its turn


@dataclass(frozen=True, slots=True)
class Outbox:
    """Sends one target what it is to be told."""

    store: Store
    target: Target
    name_of: NameOf
    url: str = ""  # of the console
    patience: Patience = field(default_factory=Patience)
    taken: dict[str, int] = field(default_factory=dict)
    """By workspace, up to which position the target has taken what was sent, also where that is not written yet."""

    async def turn(self, scope: Scope) -> bool:
        """Sends the next notification of the scope's workspace, if one is due; whether there may be more at once."""
        async with self.store.within(scope) as session:
            events = await self._follower.take(session, _AT_ONCE)
            due = self._due(scope.workspace, events)
            if due is None:
                if events:
                    await self._follower.move(session, events[-1])
                return len(events) == _AT_ONCE
            event, given = due
            if event["position"] <= self.taken.get(scope.workspace, -1):
                return await self._follower.move(session, event, sent=True)
            if self._follower.late(event):
                return await self._give_up(session, event, given, event["error"] or "it could not be sent in time")
            if not await self._follower.attempt(session, event, _LEASE):
                return False  # another worker is at it
        await self._send(scope, event, given)
        return True

    async def waiting(self, session: Session, stands: Row) -> int:
        """How many notifications wait for the target, of the next hundred events."""
        events = await self._follower.events(session, stands, _AT_ONCE)
        told = (notification(event, "", self.name_of) for event in events)
        return sum(given is not None and self.target.wants(given) for given in told)

    @property
    def _follower(self) -> Follower:
        return Follower(self.target.name, KINDS, self.patience)

    def _due(self, workspace: str, events: Sequence[Row]) -> tuple[Row, Notification] | None:
        """The first of the events that the target is to be told of, and what it is told."""
        for event in events:
            given = notification(event, workspace, self.name_of, self.url)
            if given is not None and self.target.wants(given):
                return event, given
        return None

    async def _send(self, scope: Scope, event: Row, given: Notification) -> None:
        try:
            await self.target.send(given)
        except Undelivered as error:
            await self._failed(scope, event, given, error)
            return
        self.taken[scope.workspace] = event["position"]
        async with self.store.within(scope) as session:
            await self._follower.move(session, event, sent=True)

    async def _failed(self, scope: Scope, event: Row, given: Notification, error: Undelivered) -> None:
        if not event["attempts"]:
            log.warning("%s did not take %s: %s", self.target.name, given.id, error)
        async with self.store.within(scope) as session:
            mine = await self._follower.fail(session, event, str(error))
            if mine and error.refused and event["attempts"] + 1 >= _REFUSALS:
                await self._give_up(session, event, given, str(error))

    async def _give_up(self, session: Session, event: Row, given: Notification, error: str) -> bool:
        """Goes on to the next notification, and puts on record that the target did not get this one."""
        if not await self._follower.move(session, event):
            return False
        log.error("%s never got %s (%s): %s", self.target.name, given.id, given.title, error)
        about = {"target": self.target.name, "notification": given.id, "type": given.type, "title": given.title}
        told = {**about, "attempts": event["attempts"] + 1, "error": error}
        await note(session, given.workspace, Kind.NOTIFICATION_FAILED, "system", told)
        return True


async def states(store: Store, scope: Scope, targets: Sequence[Target]) -> list[dict[str, Any]]:
    """How each target stands in a workspace: what it is told, what waits, and since when it fails and why."""
    async with store.within(scope) as session:
        rows = {row["name"]: row for row in await session.fetch("followers.list", names=[t.name for t in targets])}
        return [await _state(session, store, target, rows.get(target.name)) for target in targets]


async def _state(session: Session, store: Store, target: Target, row: Row | None) -> dict[str, Any]:
    told = {"name": target.name, "on": sorted(target.on), "apps": sorted(target.apps) if target.apps else None}
    if row is None:
        return {**told, "sent": None, "waiting": 0, "failing": None, "error": ""}
    waiting = await Outbox(store, target, str).waiting(session, row)
    return {**told, "sent": row["sent"], "waiting": waiting, "failing": row["failing"], "error": row["error"]}
