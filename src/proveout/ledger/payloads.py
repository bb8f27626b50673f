"""What was asked and answered, sealed under the subject's key, so that an answer can be replayed until it is erased."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from proveout.domain import Message, Scope, ToolCallPiece
from proveout.store.pool import Store
from proveout.store.sealing import Keyring, seal

RETENTION_DAYS = 30
_CACHED_KEYS = 10_000


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """The content of one request."""

    messages: Sequence[Message]
    answer: str
    options: Mapping[str, Any] = {}
    tool_calls: Sequence[ToolCallPiece] = ()


class Payloads:
    """Seals payloads. The keys of the subjects that asked lately stay in memory."""

    def __init__(self, store: Store, keyring: Keyring) -> None:
        self._store = store
        self._keyring = keyring
        self._keys: OrderedDict[tuple[str, str], bytes] = OrderedDict()

    async def seal(self, scope: Scope, subject: str, request: str, payload: Payload) -> bytes:
        """The payload as it is stored; it opens only as that of this request."""
        key = await self._key(scope, subject)
        return seal(key, msgspec.msgpack.encode(payload), f"payload {request}")

    async def expire(self, scope: Scope) -> int:
        """Deletes what is older than 30 days; answers with how many there were."""
        async with self._store.within(scope) as session:
            return await session.run("payloads.expire", days=RETENTION_DAYS)

    async def _key(self, scope: Scope, subject: str) -> bytes:
        owner = (scope.workspace, subject)
        if owner not in self._keys:
            async with self._store.within(scope) as session:
                self._keys[owner] = await self._keyring.key(session, scope.workspace, "subject", subject)
            while len(self._keys) > _CACHED_KEYS:
                self._keys.popitem(last=False)
        return self._keys[owner]
