"""The integrator: takes events into their workspace's log and signs a checkpoint, all in one transaction.

Whatever is read of the log was committed with its checkpoint, so a killed integrator leaves no half of it, and two at
once are kept apart by a lock: an index that was given means durable, contiguous and never given again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proveout.domain import Scope
from proveout.errors import InvalidInput
from proveout.ledger import leaf, salts
from proveout.ledger.note import SigningKey, sign_checkpoint
from proveout.ledger.tree import Tree
from proveout.ledger.verify import ENTRIES, Checkpoint, TileId, TileReader, extent, split_note, tile_of
from proveout.store.pool import Row, Session, Store, as_json
from proveout.store.sealing import Keyring

BATCH = 5_000
_LARGEST = 2**53 - 1  # of the whole numbers that RFC 8785 can write


class LogKeys:
    """The keys that sign logs. `origin` is the name of this installation; a workspace's log is `ORIGIN/WORKSPACE`."""

    def __init__(self, keyring: Keyring, origin: str) -> None:
        self.keyring = keyring
        self._origin = origin

    async def get(self, session: Session, workspace: str) -> SigningKey:
        """The key of a workspace's log, kept sealed under the workspace's own; made at its first use."""
        seed = await self.keyring.key(session, workspace, "log", workspace)
        return SigningKey.of(f"{self._origin}/{workspace}", Ed25519PrivateKey.from_private_bytes(seed))


class Integrator:
    """Extends the logs of workspaces."""

    def __init__(self, store: Store, keys: LogKeys) -> None:
        self._store = store
        self._keys = keys

    async def integrate(self, scope: Scope) -> int:
        """Takes in what waits, at most 5,000 events; answers with how many. 0 as well while another is at it."""
        async with self._store.within(scope) as session:
            lock = await session.row("log.lock")
            if lock is None or not lock["mine"]:
                return 0
            events = await session.fetch("log.pending", limit=BATCH)
            if not events:
                return 0
            key = await self._keys.get(session, scope.workspace)
            keys = await salts.subject_keys(session, self._keys.keyring, scope.workspace, events)
            placed = await asyncio.to_thread(_commit, events, scope.workspace, keys)  # hashing beside the loop
            tree = await _tree(session)
            first = tree.size
            tiles = tree.append([entry for entry, _ in placed])
            for tile, content in tiles.items():
                await session.run("log.store_tile", level=tile.level, n=tile.n, content=content)
            await session.run("log.place", first=first, placed=as_json([place for _, place in placed]))
            await session.run("log.sign", size=tree.size, note=sign_checkpoint(key, tree.size, tree.root))
            return len(events)


async def _tree(session: Session) -> Tree:
    row = await session.row("log.checkpoint")
    if row is None:
        return Tree()
    size = Checkpoint.parse(split_note(bytes(row["note"]))[0]).size
    edge = [tile_of(level, size >> 8 * (level + 1), size) for level in range((size.bit_length() + 7) // 8)]
    last = tile_of(ENTRIES, size >> 8, size)
    return Tree.load(await read_tiles(session, [*edge, last]), size)


async def read_tiles(session: Session, wanted: list[TileId]) -> TileReader:
    """A reader of these tiles, fetched at once. A tile that is not there raises FileNotFoundError when it is read."""
    rows = await session.fetch("log.tiles", levels=[t.level for t in wanted], numbers=[t.n for t in wanted])
    found = {(row["level"], row["n"]): bytes(row["content"]) for row in rows}

    def read(tile: TileId) -> bytes:
        content = found.get((tile.level, tile.n), b"")
        end = extent(content, tile)
        if end > len(content):  # a tile that is not as wide yet is not there: what is given once must stay so
            raise FileNotFoundError(tile.path)
        return content[:end]

    return read


def _commit(events: list[Any], workspace: str, keys: Mapping[str, bytes]) -> list[tuple[bytes, dict[str, Any]]]:
    """For each event its entry, and what is kept of it: the record and the salt that the entry commits to.

    `keys` are those of the events' subjects.
    """
    placed = []
    for event in events:
        record, salt = _written(record_of(event)), leaf.new_salt()
        commitment = leaf.commitment(record, salt)
        entry = leaf.entry(event["kind"], workspace, event["at"], commitment)
        kept = {
            "id": event["id"],
            "record": record.decode(),
            "salt": salts.keep(salt, event, keys),
            "commitment": commitment,
            "subject": event["subject"],
        }
        placed.append((entry, kept))
    return placed


def _written(record: Mapping[str, Any]) -> bytes:
    """A record as its entry commits to it. Numbers that canonical JSON cannot hold become text: one such event may not
    stop the log."""
    try:
        return leaf.canonical(record)
    except InvalidInput:
        return leaf.canonical(_spelled(record))


def _spelled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    plain = value is None or isinstance(value, bool | str) or (abs(value) <= _LARGEST and math.isfinite(value))
    return value if plain else str(value)


def record_of(event: Row) -> Mapping[str, Any]:
    """The private record of an event: the facts that were noted, or the whole row of a request's intent or end."""
    about: dict[str, Any] = {"kind": event["kind"], **event["facts"]}
    about |= event["intent"] or event["completion"] or {}
    if event["subject"] is not None:
        about["subject"] = event["subject"]
    return about
