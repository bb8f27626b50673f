"""Reading a workspace's log: its checkpoint, its tiles, and the receipt of a request."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from proveout.domain import Scope
from proveout.errors import NotFound, Unavailable
from proveout.ledger import leaf, salts
from proveout.ledger.integrate import LogKeys, read_tiles
from proveout.ledger.receipt import encode_receipt
from proveout.ledger.tree import hashes, inclusion_spans, tiles_for
from proveout.ledger.verify import Checkpoint, Receipt, TileId, split_note
from proveout.store.events import Kind
from proveout.store.pool import Row, Session, Store

_WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Proof:
    """What proves to an outsider that a request's end is on record.

    `receipt` is a tlog-proof that carries the log's entry, `opening` what the entry commits to (None once erased).
    """

    receipt: bytes
    opening: bytes | None


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events: those that meet everything that is given. `subjects` are pseudonyms; `kind` may be a beginning."""

    kind: str | None = None
    request: str | None = None
    subjects: list[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None  # the id of an event


class Log:
    """The logs of all workspaces, each read within a scope of it."""

    def __init__(self, store: Store, keys: LogKeys, *, witnessed: bool = False) -> None:
        """`witnessed`: there are witnesses, and a receipt is worth waiting for one of them."""
        self._store = store
        self._keys = keys
        self._witnessed = witnessed

    async def key(self, scope: Scope) -> str:
        """The public key of the workspace's log, as C2SP writes verifier keys."""
        async with self._store.within(scope) as session:
            return str((await self._keys.get(session, scope.workspace)).verifier)

    async def checkpoint(self, scope: Scope) -> bytes:
        """The newest signed checkpoint. Raises NotFound while the log is empty."""
        async with self._store.within(scope) as session:
            return bytes((await _checkpoint(session))["note"])

    async def witnessed(self, scope: Scope) -> bytes:
        """The newest checkpoint that a witness has cosigned. Raises NotFound while there is none."""
        async with self._store.within(scope) as session:
            note = (await _checkpoint(session))["witnessed_note"]
        if note is None:
            raise NotFound("No witness has cosigned this log yet.")
        return bytes(note)

    async def tile(self, scope: Scope, tile: TileId) -> bytes:
        """A tile of hashes or a bundle of entries, full or partial. Raises NotFound."""
        async with self._store.within(scope) as session:
            try:
                content = (await read_tiles(session, [tile]))(tile)
            except FileNotFoundError:
                raise NotFound(f"The log has no {tile.path}.") from None
        return content

    async def events(self, scope: Scope, which: Filter, limit: int) -> list[Row]:
        """Events of the workspace, newest first, as many as `limit`."""
        async with self._store.within(scope) as session:
            return list(await session.fetch("events.list", **asdict(which), limit=limit))

    async def proof(
        self, scope: Scope, request: str, kind: Kind = Kind.REQUEST_ENDED, *, patience: float = _WAIT_SECONDS
    ) -> Proof:
        """The proof for an event of a request; waits up to `patience` seconds for the checkpoint that covers it.

        Where there are witnesses, the checkpoint is one that was cosigned. It is the plain newest one when no witness
        has covered the event 2 s after it happened: they are away, and waiting longer is in vain.

        Raises NotFound for a request that is not this workspace's or has not ended, Unavailable when it takes longer.
        """
        deadline = asyncio.get_running_loop().time() + patience
        while True:
            late = asyncio.get_running_loop().time() >= deadline
            async with self._store.within(scope) as session:
                rows = await session.fetch("log.of_request", request=request)
                event = next((row for row in rows if row["kind"] == kind), None)
                if event is None:
                    raise NotFound(f"There is no request {request}, or it has not ended yet.")
                if event["position"] is not None:
                    checkpoint = await _checkpoint(session)
                    covered = (checkpoint["witnessed_size"] or 0) > event["position"]
                    if covered or late or not self._witnessed or _is_old(event["at"]):
                        note = checkpoint["witnessed_note"] if covered else checkpoint["note"]
                        salt = (await salts.read(session, self._keys.keyring, scope.workspace, [event]))[0]
                        return await _proof(session, scope.workspace, event, salt, bytes(note))
            if late:
                raise Unavailable("The log has not taken this request in yet: is a worker running? Try again.")
            await asyncio.sleep(_POLL_SECONDS)


def _is_old(at: datetime) -> bool:
    return datetime.now(UTC) - at > timedelta(seconds=_WAIT_SECONDS)


async def _checkpoint(session: Session) -> Row:
    row = await session.row("log.checkpoint")
    if row is None:
        raise NotFound("The log is empty: its first checkpoint is signed within a second of its first record.")
    return row


async def _proof(session: Session, workspace: str, event: Row, salt: bytes | None, note: bytes) -> Proof:
    checkpoint = Checkpoint.parse(split_note(note)[0])
    spans = inclusion_spans(event["position"], checkpoint.size)
    read = await read_tiles(session, list(tiles_for(spans, checkpoint.size)))
    proof = tuple(hashes(read, spans, checkpoint.size))
    entry = leaf.entry(event["kind"], workspace, event["at"], event["commitment"])
    receipt = encode_receipt(Receipt(event["position"], proof, note, entry))
    if salt is None:
        return Proof(receipt, None)
    return Proof(receipt, leaf.opening(msgspec.json.decode(event["record"]), salt))
