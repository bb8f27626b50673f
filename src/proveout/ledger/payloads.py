"""What was asked and answered, sealed under the subject's key, so that an answer can be replayed until it is erased."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from proveout.domain import Message, Scope, ToolCallPiece
from proveout.store.pool import Store
from proveout.store.sealing import Keyring, seal

RETENTION_DAYS = 30
_CACHED = 10_000


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """The content of one request."""

    messages: Sequence[Message]
    answer: str
    options: Mapping[str, Any] = {}
    tool_calls: Sequence[ToolCallPiece] = ()


class Payloads:
    """Seals payloads. The pseudonyms and keys of the subjects that asked lately stay in memory.

    They are forgotten when `epoch` changes: an erasure changes it.
    """

    def __init__(self, store: Store, keyring: Keyring, epoch: Callable[[], int]) -> None:
        self._store = store
        self._keyring = keyring
        self._epoch = epoch
        self._known: OrderedDict[tuple[str, str], tuple[str, bytes]] = OrderedDict()
        self._known_at = epoch()

    async def subject(self, scope: Scope, subject: str) -> str:
        """The pseudonym of a subject: `user:…` as a client named it, or `key:…`, the id of its key.

        Raises Unavailable while the database is away for a subject that did not ask lately.
        """
        return (await self._of(scope, subject))[0]

    async def seal(self, scope: Scope, subject: str, request: str, payload: Payload) -> bytes:
        """The payload as it is stored; it opens only as that of this request. Raises Unavailable as `subject` does."""
        _, key = await self._of(scope, subject)
        return seal(key, msgspec.msgpack.encode(payload), f"payload {request}")

    async def expire(self, scope: Scope) -> int:
        """Deletes what is older than 30 days; answers with how many there were."""
        async with self._store.within(scope) as session:
            return await session.run("payloads.expire", days=RETENTION_DAYS)

    async def _of(self, scope: Scope, subject: str) -> tuple[str, bytes]:
        """Pseudonym and key of a subject."""
        if (now := self._epoch()) != self._known_at:
            self._known.clear()
            self._known_at = now
        who = (scope.workspace, subject)
        if who not in self._known:
            async with self._store.within(scope) as session:
                pseudonym = await self._keyring.pseudonym(session, scope.workspace, subject)
                key = await self._keyring.key(session, scope.workspace, "subject", pseudonym)
            self._known[who] = (pseudonym, key)
            while len(self._known) > _CACHED:
                self._known.popitem(last=False)
        return self._known[who]
