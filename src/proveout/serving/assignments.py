"""Which arm of a route each conversation is on: it stays there while a rollout runs, and after a promotion."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from proveout.errors import Unavailable
from proveout.store.pool import Store

Arm = Literal["stable", "candidate"]
_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class Drawn:
    """An arm, and the candidate's weight when it was drawn; None: it was not drawn (pilots, older conversations)."""

    arm: Arm
    weight: float | None

    @property
    def of_arm(self) -> float | None:
        """The weight of the arm itself."""
        return self.weight if self.weight is None or self.arm == "candidate" else 1 - self.weight


class Assignments:
    """Which arm each conversation is on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[tuple[str, str], Drawn | None] = OrderedDict()

    async def keep(self, rollout: str, conversation: str, drawn: Drawn) -> Drawn:
        """What the conversation was given first, which is `drawn` at its first turn.

        While the database is away, what is drawn now: mostly the same.
        """
        return await self._find(rollout, conversation, drawn) or drawn

    async def kept(self, rollout: str, conversation: str) -> Drawn | None:
        """What the conversation was given in a rollout that has ended; None: nothing, as far as one can tell."""
        return await self._find(rollout, conversation, None)

    async def _find(self, rollout: str, conversation: str, drawn: Drawn | None) -> Drawn | None:
        where, about = (rollout, conversation), {"rollout": rollout, "conversation": conversation}
        if where not in self._known:
            try:
                async with self._store.unscoped() as session:
                    row = await session.row("assignments.get", **about)
                    if row is None and drawn is not None:
                        row = await session.row("assignments.put", **about, arm=drawn.arm, weight=drawn.weight)
            except Unavailable:
                return None
            self._known[where] = Drawn(row["arm"], row["weight"]) if row else None
            while len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return self._known[where]
