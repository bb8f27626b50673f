"""Documents that are pushed: read row by row, kept sealed until the job that makes them searchable has run."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from proveout.domain import Scope
from proveout.errors import InvalidInput, TooLarge
from proveout.retrieval.parse import MAX_BYTES, SUFFIXES
from proveout.retrieval.readers import check_readers
from proveout.retrieval.versions import Source, batches, digest
from proveout.store.pool import Store
from proveout.store.sealing import Keyring, seal, unseal

MAX_ID = 1_000  # characters
MAX_METADATA = 64 << 10  # bytes
_ROWS, _BYTES = 500, 4 << 20  # of one statement
_READ, _READ_BYTES = 512, 64 << 20  # of documents in memory


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A document as JSON: `{id, title?, text, metadata?, readers?}`; readers absent: nobody."""

    text: str
    id: str | None = None
    title: str | None = None
    metadata: dict[str, Any] = {}
    readers: str | list[str] = []


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is sealed of an upload's document: a file with its name, or without one a text, word for word."""

    name: str
    title: str
    body: bytes
    metadata: bytes


class Row(msgspec.Struct, frozen=True):
    """A document of an upload, checked."""

    document: str
    digest: str
    readers: tuple[str, ...]
    kept: bytes | None  # None: it is to be deleted

    @property
    def size(self) -> int:
        return len(self.kept or b"")


def text_row(document: str, given: Document) -> Row:
    """A pushed text. Raises InvalidInput."""
    text = given.text if given.text.strip() else (given.title or "")
    if not text.strip():
        raise InvalidInput("text: it is empty, and so is the title")
    title = (given.title or "").strip()
    if len(text) > MAX_BYTES:
        raise InvalidInput(f"text: it has more than {MAX_BYTES >> 20} Mi characters; split it")
    made = digest(text=hashlib.sha256(text.encode()).hexdigest(), title=title, metadata=given.metadata)
    kept = _Kept("", title, text.encode(), _metadata(given.metadata))
    return _row(document, made, check_readers(given.readers), kept)


def file_row(document: str, data: bytes, suffix: str, readers: object, title: str) -> Row:
    """A pushed file in the format of `suffix`; empty: that of the document's own. Raises InvalidInput, TooLarge."""
    own = PurePosixPath(document).suffix.lower()
    if not suffix and own not in SUFFIXES:
        raise InvalidInput(f"Say the body's format by content-type, or end the id in one of {', '.join(SUFFIXES)}.")
    if len(data) > MAX_BYTES:
        raise TooLarge(f"The file has more than {MAX_BYTES >> 20} MiB: split it.")
    name = document if not suffix or own == suffix else document + suffix
    made = digest(source=hashlib.sha256(data).hexdigest(), name=name, title=title)
    return _row(document, made, check_readers(readers), _Kept(name, title, data, b"{}"))


def deletion(document: str) -> Row:
    """That a document is to go."""
    check_id(document)
    return Row(document, "", (), None)


def check_id(document: str) -> str:
    """Raises InvalidInput for what cannot be a document's id."""
    if not 1 <= len(document) <= MAX_ID or any(c < " " or c == "\x7f" for c in document):
        raise InvalidInput(f"id: 1 to {MAX_ID} characters are needed, none of them a control character")
    return document


class Writer:
    """Keeps the rows of one upload."""

    def __init__(self, store: Store, keyring: Keyring, scope: Scope) -> None:
        self.id = f"upload_{secrets.token_hex(8)}"
        self.count = 0
        self._store = store
        self._keyring = keyring
        self._scope = scope
        self._waiting: list[Row] = []
        self._size = 0

    async def put(self, row: Row) -> None:
        """Keeps a row, at the latest when `flush` returns."""
        self._waiting.append(row)
        self._size += row.size
        self.count += 1
        if len(self._waiting) >= _ROWS or self._size >= _BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Returns when every row is durable."""
        rows, self._waiting, self._size = self._waiting, [], 0
        async with self._store.within(self._scope) as session:
            key = await self._keyring.workspace(session, self._scope.workspace)
            await session.run_many(
                "uploads.insert",
                (
                    {
                        "id": self.id,
                        "workspace": self._scope.workspace,
                        "document": row.document,
                        "readers": list(row.readers),
                        "digest": row.digest,
                        "sealed": None if row.kept is None else seal(key, row.kept, "upload"),
                    }
                    for row in rows
                ),
            )

    async def forget(self) -> None:
        """Takes back what was kept."""
        await forget(self._store, self._scope, self.id)


async def forget(store: Store, scope: Scope, upload: str) -> None:
    """Deletes an upload, and all that broke off long ago."""
    async with store.within(scope) as session:
        await session.run("uploads.delete", id=upload)


async def read(
    store: Store, keyring: Keyring, scope: Scope, upload: str, sizes: Sequence[tuple[str, int]]
) -> AsyncIterator[list[Source]]:
    """These documents of an upload, named with their sizes, as many at a time as memory has room for."""
    for part in batches(sizes, lambda item: item[1], _READ, _READ_BYTES):
        async with store.within(scope) as session:
            key = await keyring.workspace(session, scope.workspace)
            rows = await session.fetch("uploads.get", id=upload, documents=[document for document, _ in part])
        yield [_source(row["document"], row["digest"], unseal(key, row["sealed"], "upload")) for row in rows]


def _row(document: str, made: str, readers: tuple[str, ...], kept: _Kept) -> Row:
    return Row(check_id(document), made, readers, msgspec.msgpack.encode(kept))


def _metadata(given: dict[str, Any]) -> bytes:
    encoded = msgspec.json.encode(given)
    if len(encoded) > MAX_METADATA:
        raise InvalidInput(f"metadata: it has more than {MAX_METADATA >> 10} KiB")
    return encoded


def _source(document: str, made: str, kept: bytes) -> Source:
    found = msgspec.msgpack.decode(kept, type=_Kept)
    body = found.body if found.name else found.body.decode()
    return Source(document, made, body, found.name, found.title, metadata=msgspec.json.decode(found.metadata))
