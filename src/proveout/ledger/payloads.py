"""What was asked and answered, sealed under the subject's key, so that an answer can be replayed until it is erased."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from proveout.domain import Message, Outcome, Scope, ToolCallPiece
from proveout.errors import Conflict
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Store
from proveout.store.sealing import Keyring, seal, unseal

_CACHED = 10_000


class Payload(msgspec.Struct, frozen=True, array_like=True):
    """The content of one request, and as whom it was asked: what it takes to ask it again."""

    messages: Sequence[Message]
    answer: str
    options: Mapping[str, Any] = {}
    tool_calls: Sequence[ToolCallPiece] = ()
    subject: str = ""  # `user:…` or `key:…`; empty where it was recorded before this was kept
    reader: str = ""  # the caller's name among readers
    groups: Sequence[str] = ()
    bounds_thoughts: bool = False
    embed: bool = False


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

    async def salt(self, scope: Scope, subject: str, request: str) -> bytes:
        """What a request's commitments are salted with; gone with the subject's key. Raises Unavailable."""
        _, key = await self._of(scope, subject)
        return _salt(key, request)

    async def open(self, scope: Scope, request: str, by: str) -> tuple[Payload, bytes]:
        """What was asked and answered, and the salt of the request's commitments; on record as opened by the key `by`.

        Raises Conflict, saying why, when there is nothing to open any more.
        """
        async with self._store.within(scope) as session:
            row = await session.row("payloads.get", request=request)
            if row is None or row["sealed"] is None:
                raise Conflict(f"{request} cannot be opened: {_why(row)}.")
            key = await self._keyring.key(session, scope.workspace, "subject", row["subject"])
            payload = msgspec.msgpack.decode(unseal(key, row["sealed"], f"payload {request}"), type=Payload)
            await note(session, scope.workspace, Kind.PAYLOAD_OPENED, by, {"request": request})
        return payload, _salt(key, request)

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


def _salt(key: bytes, request: str) -> bytes:
    return hmac.digest(key, f"commitments of {request}".encode(), "sha256")


def _why(row: Row | None) -> str:
    """Why there is no payload of a request, as `payloads.get` found it."""
    if row is None or row["outcome"] is None:
        return "it has not ended"
    if row["erased"]:
        return "its subject was erased"
    if row["outcome"] == Outcome.UNKNOWN:
        return "the process that answered died before what it said was recorded"
    return "its content expired" if row["captured"] else "its content was not kept, as `capture` says of its app"
