"""The outbox: each target follows the log by itself and gets what concerns it, in the log's order, at least once.

The log is the queue. An event is in it when it is durable, and has its place there whatever was committed late; a
target's row says how far it has come. Whoever sends moves the row's `due` on first, so that nobody else does meanwhile,
and moves its position on when the target has taken the notification. Who dies in between leaves the row as it is: the
same notification goes out again, under the same id.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from proveout.domain import Scope
from proveout.edge.notify.messages import KINDS, NameOf, Notification, notification
from proveout.edge.notify.targets import SECONDS, Target, Undelivered
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Session, Store

log = logging.getLogger(__name__)

_AT_ONCE = 100  # events that are looked at in one transaction
_REFUSALS = 3  # of one notification by its content, after which the next one has its turn


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: to the second attempt, twice that to the third, at most so many; until a notification is given up."""

    first: float = 2.0
    most: float = 900.0
    total: float = 86_400.0
    lease: float = SECONDS + 10

    def after(self, attempts: int) -> float:
        """Until the next attempt, after so many; spread by half, lest all come back at once."""
        return min(self.most, self.first * 2.0 ** min(attempts - 1, 30)) * random.uniform(0.5, 1)  # noqa: S311


@dataclass(frozen=True, slots=True)
class _Due:
    """A notification that is to be sent now, and where its target stands."""

    given: Notification
    age: timedelta
    position: int
    was: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Outbox:
    """Sends one target what it is to be told."""

    store: Store
    target: Target
    name_of: NameOf
    url: str = ""  # of the console
    patience: Patience = Patience()
    taken: dict[str, int] = field(default_factory=dict)
    """By workspace, up to which position the target has taken what was sent, also where that is not written yet."""

    async def turn(self, scope: Scope) -> bool:
        """Sends the next notification of the scope's workspace, if one is due; whether there may be more at once."""
        async with self.store.within(scope) as session:
            await session.run("followers.ensure", name=self.target.name)
            row = await session.row("followers.take", name=self.target.name)
            if row is None:
                return False
            events = await self._events(session, row)
            due = self._next(scope.workspace, row, events)
            if due is None:
                if events:
                    await self._move(session, row["position"], events[-1]["position"], sent=False)
                return len(events) == _AT_ONCE
            if due.position <= self.taken.get(scope.workspace, -1):
                return await self._move(session, due.was, due.position, sent=True)
            if due.age > timedelta(seconds=self.patience.total):
                return await self._give_up(session, due, row["error"] or "it could not be sent in time")
            where = {"name": self.target.name, "was": due.was}
            if not await session.run("followers.attempt", **where, seconds=self.patience.lease):
                return False  # another worker is at it
        await self._send(scope, due)
        return True

    async def waiting(self, session: Session, row: Row) -> int:
        """How many notifications wait for the target, of the next hundred events."""
        events = await self._events(session, row)
        told = (notification(event, "", self.name_of) for event in events)
        return sum(given is not None and self.target.wants(given) for given in told)

    async def _events(self, session: Session, row: Row) -> Sequence[Row]:
        where = {"after": row["position"], "since": row["since"], "limit": _AT_ONCE}
        return await session.fetch("followers.events", **where, kinds=list(KINDS))

    def _next(self, workspace: str, row: Row, events: Sequence[Row]) -> _Due | None:
        for event in events:
            given = notification(event, workspace, self.name_of, self.url)
            if given is not None and self.target.wants(given):
                return _Due(given, event["age"], event["position"], row["position"], row["attempts"] + 1)
        return None

    async def _send(self, scope: Scope, due: _Due) -> None:
        try:
            await self.target.send(due.given)
        except Undelivered as error:
            await self._failed(scope, due, error)
            return
        self.taken[scope.workspace] = due.position
        async with self.store.within(scope) as session:
            await self._move(session, due.was, due.position, sent=True)

    async def _failed(self, scope: Scope, due: _Due, error: Undelivered) -> None:
        if due.attempts == 1:
            log.warning("%s did not take %s: %s", self.target.name, due.given.id, error)
        async with self.store.within(scope) as session:
            seconds = self.patience.after(due.attempts)
            where = {"name": self.target.name, "was": due.was}
            mine = await session.run("followers.fail", **where, seconds=seconds, error=str(error))
            if mine and error.refused and due.attempts >= _REFUSALS:
                await self._give_up(session, due, str(error))

    async def _give_up(self, session: Session, due: _Due, error: str) -> bool:
        """Goes on to the next notification, and puts on record that the target did not get this one."""
        if not await self._move(session, due.was, due.position, sent=False):
            return False
        given = due.given
        log.error("%s never got %s (%s): %s", self.target.name, given.id, given.title, error)
        about = {"target": self.target.name, "notification": given.id, "type": given.type, "title": given.title}
        told = {**about, "attempts": due.attempts, "error": error}
        await note(session, given.workspace, Kind.NOTIFICATION_FAILED, "system", told)
        return True

    async def _move(self, session: Session, was: int, position: int, *, sent: bool) -> bool:
        """Whether it was this process that moved the target on."""
        moved = {"name": self.target.name, "was": was, "position": position, "sent": sent}
        return bool(await session.run("followers.move", **moved))


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
