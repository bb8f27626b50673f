"""Content at rest is sealed: AES-256-GCM under a key of its own, wrapped by the workspace's, wrapped by the master's.

A document's text is sealed under the document's key, what a subject asked under the subject's; destroying that one
small row makes every copy of the text unreadable, in backups and logs too. The master key is never stored beside them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import os
import secrets
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proveout.errors import ProveoutError, StartRefused
from proveout.settings import MASTER_KEY, MASTER_KEY_COMMAND
from proveout.store.pool import Session

MASTER_KEY_FILE = "master.key"  # in the data folder, mode 0600
KeyKind = Literal["workspace", "document", "subject", "log"]
_KEY_BYTES, _NONCE_BYTES = 32, 12
_SPOOL = "/spool"  # no workspace is called so
_COMMAND_SECONDS = 30.0


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
    """The keys of content. Unwrapped workspace keys stay in memory; the others are unwrapped as rows bring them.

    A workspace has keys of several versions. The newest wraps the keys of documents, subjects and logs; the first also
    makes pseudonyms and seals what has no owner, and stays. `master` is the key above them, or what reads it, the
    newest first: it is read again when what was read opens nothing, so that it may be exchanged while processes run.
    """

    def __init__(self, master: bytes | Callable[[], Sequence[bytes]]) -> None:
        self._read = (lambda: (master,)) if isinstance(master, bytes) else master
        self._masters = self._read()
        self._workspaces: dict[str, dict[int, bytes]] = {}

    async def workspace(self, session: Session, workspace: str) -> bytes:
        """The first key of a workspace, made at its first use."""
        return (await self._versions(session, workspace))[1]

    async def key(self, session: Session, workspace: str, kind: KeyKind, owner: str) -> bytes:
        """The key of a document or subject, made at its first use."""
        row = await session.row("sealing.get", workspace=workspace, kind=kind, owner=owner)
        if row is None:
            return (await self.keys(session, workspace, kind, [owner]))[0]
        return await self.unwrap(session, workspace, kind, owner, bytes(row["wrapped"]))

    async def keys(self, session: Session, workspace: str, kind: KeyKind, owners: Sequence[str]) -> list[bytes]:
        """The keys of documents or subjects in the order of `owners`, made at their first use."""
        wanted = sorted(set(owners))
        where = {"workspace": workspace, "kind": kind, "owners": wanted}
        rows = {row["owner"]: row["wrapped"] for row in await session.fetch("sealing.get_many", **where)}
        if missing := [owner for owner in wanted if owner not in rows]:
            fresh = {owner: secrets.token_bytes(_KEY_BYTES) for owner in missing}
            await self._keep(session, workspace, kind, fresh)
            rows = {row["owner"]: row["wrapped"] for row in await session.fetch("sealing.get_many", **where)}
        found = {owner: await self.unwrap(session, workspace, kind, owner, bytes(rows[owner])) for owner in wanted}
        return [found[owner] for owner in owners]

    async def pseudonym(self, session: Session, workspace: str, subject: str) -> str:
        """What stands for a subject wherever it is written down: HMAC-SHA256 under the workspace's key, 128 bits."""
        key = await self.workspace(session, workspace)
        return hmac.digest(key, f"subject {subject}".encode(), "sha256")[:16].hex()

    async def spool_key(self, session: Session, workspace: str) -> bytes:
        """The key of the spool, which is written while no other key can be read."""
        if await session.row("sealing.get", workspace=workspace, kind="log", owner=_SPOOL) is None:
            derived = hmac.digest(self._masters[-1], b"proveout spool", "sha256")  # as it was before it was kept
            await self._keep(session, workspace, "log", {_SPOOL: derived})
        return await self.key(session, workspace, "log", _SPOOL)

    async def unwrap(self, session: Session, workspace: str, kind: KeyKind, owner: str, wrapped: bytes) -> bytes:
        """The key that a row brought along. Raises Unsealable."""
        for again in (False, True):  # what is in memory may be older than the row
            versions = await self._versions(session, workspace, again=again)
            for version in sorted(versions, reverse=True):
                with suppress(Unsealable):
                    return unseal(versions[version], wrapped, _purpose(kind, owner))
        raise Unsealable

    async def add_version(self, session: Session, workspace: str) -> int:
        """A newer key of the workspace, which wraps all that is made from now on; answers with its version.

        The newest, while anything is still wrapped by an older one: a rotation was not ended.
        """
        await session.row("sealing.lock", workspace=workspace)  # what is being made under an older one is waited for
        versions = await self._versions(session, workspace, again=True)
        newest = max(versions)
        if newest > 1 and await session.row("sealing.older", workspace=workspace, version=newest, limit=1):
            return newest
        await self._insert_version(session, workspace, newest + 1)
        return newest + 1

    async def rewrap(self, session: Session, workspace: str, version: int, limit: int) -> int:
        """Wraps anew what an older key of the workspace wraps, at most `limit` keys; answers with how many."""
        rows = await session.fetch("sealing.older", workspace=workspace, version=version, limit=limit)
        above = (await self._versions(session, workspace, again=True))[version]
        for row in rows:
            key = await self.unwrap(session, workspace, row["kind"], row["owner"], bytes(row["wrapped"]))
            wrapped = seal(above, key, _purpose(row["kind"], row["owner"]))
            where = {"workspace": workspace, "kind": row["kind"], "owner": row["owner"]}
            await session.run("sealing.rewrap", **where, wrapped=wrapped, version=version)
        return len(rows)

    async def rewrap_workspace(self, session: Session, workspace: str) -> int:
        """Wraps the workspace's keys by the newest master key; answers with how many were wrapped by an older one."""
        await session.row("sealing.lock_master")  # what is being made under an older one is waited for
        self._masters = await asyncio.to_thread(self._read)
        moved = 0
        for row in await session.fetch("sealing.versions", workspace=workspace):
            key, master = await self._under_master(row["owner"], bytes(row["wrapped"]))
            if master != self._masters[0]:
                wrapped = seal(self._masters[0], key, _purpose("workspace", row["owner"]))
                where = {"workspace": workspace, "kind": "workspace", "owner": row["owner"]}
                await session.run("sealing.rewrap", **where, wrapped=wrapped, version=row["version"])
                moved += 1
        return moved

    async def _keep(self, session: Session, workspace: str, kind: KeyKind, fresh: Mapping[str, bytes]) -> None:
        """Stores keys of owners that have none; the first one stays."""
        await session.row("sealing.lock_shared", workspace=workspace)
        newest = await session.row("sealing.newest", workspace=workspace)
        versions = await self._versions(session, workspace)
        version = newest["version"] if newest is not None and newest["version"] else 1
        if version not in versions:
            versions = await self._versions(session, workspace, again=True)
        owners = sorted(fresh)
        wrapped = [seal(versions[version], fresh[owner], _purpose(kind, owner)) for owner in owners]
        where = {"workspace": workspace, "kind": kind, "owners": owners}
        await session.run("sealing.insert_many", **where, wrapped=wrapped, version=version)

    async def _versions(self, session: Session, workspace: str, *, again: bool = False) -> dict[int, bytes]:
        """The keys of a workspace by version; the first is made at its first use."""
        if again or workspace not in self._workspaces:
            rows = await session.fetch("sealing.versions", workspace=workspace)
            if not rows:
                await self._insert_version(session, workspace, 1)
                rows = await session.fetch("sealing.versions", workspace=workspace)  # another may have been first
            self._workspaces[workspace] = {
                row["version"]: (await self._under_master(row["owner"], bytes(row["wrapped"])))[0] for row in rows
            }
        return self._workspaces[workspace]

    async def _insert_version(self, session: Session, workspace: str, version: int) -> None:
        await session.row("sealing.lock_master_shared")
        self._masters = await asyncio.to_thread(self._read)
        owner = workspace if version == 1 else f"{workspace}/{version}"
        wrapped = seal(self._masters[0], secrets.token_bytes(_KEY_BYTES), _purpose("workspace", owner))
        where = {"workspace": workspace, "kind": "workspace", "owners": [owner]}
        await session.run("sealing.insert_many", **where, wrapped=[wrapped], version=version)

    async def _under_master(self, owner: str, wrapped: bytes) -> tuple[bytes, bytes]:
        """A workspace's key, and the master key that wraps it. Raises Unsealable."""
        for again in (False, True):
            if again:
                self._masters = await asyncio.to_thread(self._read)
            for master in self._masters:
                with suppress(Unsealable):
                    return unseal(master, wrapped, _purpose("workspace", owner)), master
        raise Unsealable


def _purpose(kind: KeyKind, owner: str) -> str:
    return f"key of {kind} {owner}"


def new_master_key() -> bytes:
    """A fresh master key."""
    return secrets.token_bytes(_KEY_BYTES)


def read_master_keys(text: str | None, command: str | None, path: Path) -> list[bytes]:
    """The master keys, the newest first: from the environment's `text`, else a command, else the file.

    Base64, with blanks between. Raises StartRefused.
    """
    if text is not None:
        given, place = text, MASTER_KEY.name
    elif command is not None:
        given, place = _printed(command), MASTER_KEY_COMMAND.name
    else:
        place = str(path)
        try:
            given = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise StartRefused(
                f"The master key cannot be read from {path}: put it back, or set {MASTER_KEY.name}."
            ) from error
    try:
        keys = [base64.b64decode(word, validate=True) for word in given.split()]
    except binascii.Error as error:
        raise StartRefused(f"The master key of {place} is not base64.") from error
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        found = len(keys[0]) if keys else 0
        raise StartRefused(f"The master key of {place} has {found} bytes; it must be the base64 text of {_KEY_BYTES}.")
    return keys


def write_master_keys(path: Path, keys: Sequence[bytes]) -> None:
    """Puts these keys into the file, whole or not at all, for its owner alone; durable when this returns."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600, exist_ok=False)
    with draft.open("w", encoding="ascii") as file:
        file.writelines(base64.b64encode(key).decode() + "\n" for key in keys)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _printed(command: str) -> str:
    try:
        done = subprocess.run(
            shlex.split(command), capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise StartRefused(f"{MASTER_KEY_COMMAND.name} cannot be run: {error}.") from error
    if done.returncode:
        words = " ".join(done.stderr.split())
        raise StartRefused(f"{MASTER_KEY_COMMAND.name} ended with {done.returncode}: {words}")
    return done.stdout
