"""Content at rest is sealed: AES-256-GCM under a key of its own, wrapped by the workspace's, wrapped by the master's.

A document's text is sealed under the document's key, what a subject asked under the subject's; destroying that one
small row makes every copy of the text unreadable, in backups and logs too. The master key is never stored beside them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proveout.errors import ProveoutError, StartRefused
from proveout.store.pool import Session

MASTER_KEY_FILE = "master.key"  # in the data folder, mode 0600
KeyKind = Literal["workspace", "document", "subject", "log"]
_KEY_BYTES, _NONCE_BYTES = 32, 12


class Unsealable(ProveoutError):
    """Sealed content could not be opened: its key was destroyed, or the master key is not the one that sealed it."""

    code = "unsealable"


def seal(key: bytes, content: bytes, purpose: str) -> bytes:
    """nonce ‖ ciphertext ‖ tag. `purpose` is authenticated: what was sealed for one place opens in no other."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, content, purpose.encode())


def unseal(key: bytes, sealed: bytes, purpose: str) -> bytes:
    """The content. Raises Unsealable when key, purpose or a single bit is not what it was."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], purpose.encode())
    except (InvalidTag, ValueError) as error:
        raise Unsealable from error


class Keyring:
    """The keys of content. Unwrapped workspace keys stay in memory; the others are unwrapped as rows bring them."""

    def __init__(self, master: bytes) -> None:
        self._master = master
        self._workspaces: dict[str, bytes] = {}

    async def workspace(self, session: Session, workspace: str) -> bytes:
        """The key of a workspace, made at its first use."""
        if workspace not in self._workspaces:
            wrapped = await _wrapped(session, self._master, workspace, "workspace", workspace)
            self._workspaces[workspace] = unseal(self._master, wrapped, _purpose("workspace", workspace))
        return self._workspaces[workspace]

    async def key(self, session: Session, workspace: str, kind: KeyKind, owner: str) -> bytes:
        """The key of a document or subject, made at its first use."""
        above = await self.workspace(session, workspace)
        return unseal(above, await _wrapped(session, above, workspace, kind, owner), _purpose(kind, owner))

    async def keys(self, session: Session, workspace: str, kind: KeyKind, owners: Sequence[str]) -> list[bytes]:
        """The keys of documents or subjects in the order of `owners`, made at their first use."""
        above = await self.workspace(session, workspace)
        wanted = sorted(set(owners))
        fresh = [seal(above, secrets.token_bytes(_KEY_BYTES), _purpose(kind, owner)) for owner in wanted]
        where = {"workspace": workspace, "kind": kind, "owners": wanted}
        await session.run("sealing.insert_many", **where, wrapped=fresh)  # those that are there already stay
        rows = await session.fetch("sealing.get_many", **where)
        found = {row["owner"]: unseal(above, row["wrapped"], _purpose(kind, row["owner"])) for row in rows}
        return [found[owner] for owner in owners]

    async def pseudonym(self, session: Session, workspace: str, subject: str) -> str:
        """What stands for a subject wherever it is written down: HMAC-SHA256 under the workspace's key, 128 bits."""
        key = await self.workspace(session, workspace)
        return hmac.digest(key, f"subject {subject}".encode(), "sha256")[:16].hex()

    @property
    def spool_key(self) -> bytes:
        """The key of the spool, which is written while no other key can be read."""
        return hmac.digest(self._master, b"proveout spool", "sha256")

    def unwrap(self, workspace: str, kind: KeyKind, owner: str, wrapped: bytes) -> bytes:
        """The key that a row brought along, of a workspace whose own key is in memory. Raises Unsealable."""
        return unseal(self._workspaces[workspace], wrapped, _purpose(kind, owner))


async def _wrapped(session: Session, above: bytes, workspace: str, kind: KeyKind, owner: str) -> bytes:
    """The wrapped key as stored; a new one is stored first when there is none."""
    where = {"workspace": workspace, "kind": kind, "owner": owner}
    row = await session.row("sealing.get", **where)
    if row is None:
        fresh = seal(above, secrets.token_bytes(_KEY_BYTES), _purpose(kind, owner))
        await session.run("sealing.insert", **where, wrapped=fresh)
        row = await session.row("sealing.get", **where)  # another process may have been first
    assert row is not None
    return bytes(row["wrapped"])


def _purpose(kind: KeyKind, owner: str) -> str:
    return f"key of {kind} {owner}"


def new_master_key() -> str:
    """A fresh master key, as text."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def read_master_key(text: str | None, path: Path) -> bytes:
    """The master key from the environment's `text`, else from the file. Raises StartRefused."""
    try:
        given = text or path.read_text(encoding="ascii")
        key = base64.b64decode(given.strip(), validate=True)
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        raise StartRefused(
            f"The master key cannot be read from {path}: put it back, or set PROVEOUT_MASTER_KEY."
        ) from error
    if len(key) != _KEY_BYTES:
        raise StartRefused(f"The master key has {len(key)} bytes; it must be the base64 text of {_KEY_BYTES}.")
    return key
