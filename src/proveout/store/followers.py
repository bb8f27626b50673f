"""Following the log: each follower has a row that says how far it has come, and takes the events after that in turn.

The log is the queue. An event is in it when it is durable, and has its place there whatever was committed late. Whoever
acts outside the database moves the row's `due` on first, so that nobody else does meanwhile, and its position on when
the act is done. Who dies in between leaves the row as it is: the same event has its turn again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from proveout.store.events import Kind
from proveout.store.pool import Row, Session


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: to the second attempt, twice that to the third, at most so many; until an event is given up."""

    first: float = 2.0
    most: float = 900.0
    total: float = 86_400.0

    def after(self, attempts: int) -> float:
        """Until the next attempt, after so many; spread by half, lest all come back at once."""
        return min(self.most, self.first * 2.0 ** min(attempts - 1, 30)) * random.uniform(0.5, 1)  # noqa: S311


@dataclass(frozen=True, slots=True)
class Follower:
    """Follows the events of some kinds. Each event brings along where the follower stood: at the position it `was`,
    with so many `attempts` at its next event so far and the last one's `error`. A step holds only while it still does.
    """

    name: str
    kinds: tuple[Kind, ...]
    patience: Patience = Patience()

    async def take(self, session: Session, limit: int) -> Sequence[Row]:
        """The next events in the session's workspace, at most so many; none while the follower's time has not come."""
        await session.run("followers.ensure", name=self.name)
        stands = await session.row("followers.take", name=self.name)
        return await self.events(session, stands, limit) if stands else ()

    async def events(self, session: Session, stands: Row, limit: int) -> Sequence[Row]:
        """The events after where its row says that it stands, at most so many."""
        where = {"after": stands["position"], "since": stands["since"], "limit": limit}
        events = await session.fetch("followers.events", **where, kinds=[kind.value for kind in self.kinds])
        stood = {"was": stands["position"], "attempts": stands["attempts"], "error": stands["error"]}
        return [{**event, **stood} for event in events]

    def late(self, event: Row) -> bool:
        """Whether an event is too old for another attempt."""
        return bool(event["age"] > timedelta(seconds=self.patience.total))

    async def attempt(self, session: Session, event: Row, seconds: float) -> bool:
        """Whether the event is this process's to act on, for so many seconds."""
        return bool(await session.run("followers.attempt", name=self.name, was=event["was"], seconds=seconds))

    async def fail(self, session: Session, event: Row, error: str) -> bool:
        """Puts the next attempt off; whether it was this process that did."""
        where = {"name": self.name, "was": event["was"], "seconds": self.patience.after(event["attempts"] + 1)}
        return bool(await session.run("followers.fail", **where, error=error))

    async def move(self, session: Session, event: Row, *, sent: bool = False) -> bool:
        """Is done with all up to the event, which was `sent` or passed over; whether it was this process that moved."""
        where = {"name": self.name, "was": event["was"], "position": event["position"]}
        return bool(await session.run("followers.move", **where, sent=sent))
