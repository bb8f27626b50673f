"""What is sealed of a document: its text, and each chunk with the title and headings it stands under."""

from __future__ import annotations

import msgspec

from proveout.store.pool import Row, Session
from proveout.store.sealing import Keyring, seal, unseal


class Content(msgspec.Struct, frozen=True, array_like=True):
    """A chunk as it is sealed."""

    title: str
    headings: tuple[str, ...]
    text: str


class Whole(msgspec.Struct, frozen=True, array_like=True):
    """A document as it is sealed; its metadata is JSON."""

    title: str
    text: str
    metadata: bytes


def owner(knowledge: str, document: str) -> str:
    """The owner of a document's key."""
    return f"{knowledge}/{document}"


def seal_chunk(key: bytes, content: Content) -> bytes:
    """The chunk under its document's key."""
    return seal(key, msgspec.msgpack.encode(content), "chunk")


def seal_whole(key: bytes, whole: Whole) -> bytes:
    """The document under its key."""
    return seal(key, msgspec.msgpack.encode(whole), "version")


def unseal_whole(key: bytes, sealed: bytes) -> Whole:
    """The document. Raises Unsealable."""
    return msgspec.msgpack.decode(unseal(key, sealed, "version"), type=Whole)


async def unseal_chunks(session: Session, keyring: Keyring, workspace: str, rows: list[Row]) -> list[Content]:
    """The contents of rows that bring `knowledge`, `document`, `sealed` and their document's `wrapped` key."""
    keys: dict[str, bytes] = {}
    contents = []
    for row in rows:
        name = owner(row["knowledge"], row["document"])
        if name not in keys:
            keys[name] = await keyring.unwrap(session, workspace, "document", name, row["wrapped"])
        contents.append(msgspec.msgpack.decode(unseal(keys[name], row["sealed"], "chunk"), type=Content))
    return contents
