"""The salts of entries as they are kept: a subject's are sealed under the subject's key, and go with it.

A deleted row's bytes stay in a large table's file until they are written over; the small table of keys is rewritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proveout.store.pool import Row, Session
from proveout.store.sealing import Keyring, Unsealable, seal, unseal


async def subject_keys(session: Session, keyring: Keyring, workspace: str, events: Sequence[Row]) -> dict[str, bytes]:
    """The keys of the subjects of events, made at their first use."""
    owners = sorted({event["subject"] for event in events if event["subject"]})
    return dict(zip(owners, await keyring.keys(session, workspace, "subject", owners), strict=True)) if owners else {}


def keep(salt: bytes, event: Row, keys: Mapping[str, bytes]) -> bytes:
    """The salt of an event's entry as it is kept."""
    return seal(keys[event["subject"]], salt, _purpose(event)) if event["subject"] else salt


async def read(session: Session, keyring: Keyring, workspace: str, events: Sequence[Row]) -> list[bytes | None]:
    """The salts of events, None where they were erased."""
    owners = sorted({e["subject"] for e in events if e["subject"] and e["salt"]})
    found = await session.fetch("sealing.get_many", workspace=workspace, kind="subject", owners=owners)
    keys = {
        row["owner"]: await keyring.unwrap(session, workspace, "subject", row["owner"], bytes(row["wrapped"]))
        for row in found
    }
    return [_read(event, keys) for event in events]


def _read(event: Row, keys: Mapping[str, bytes]) -> bytes | None:
    if event["salt"] is None or event["record"] is None:
        return None
    kept = bytes(event["salt"])
    if event["subject"] is None or len(kept) == _PLAIN:
        return kept
    try:
        return unseal(keys[event["subject"]], kept, _purpose(event))
    except (KeyError, Unsealable):  # erased meanwhile
        return None


_PLAIN = 32  # bytes: of no subject, or from before salts were sealed


def _purpose(event: Row) -> str:
    return f"salt of {event['request']} {event['kind']}"
