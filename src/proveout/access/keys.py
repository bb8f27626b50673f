"""API keys: made from 256 random bits, kept only as a digest, checked from memory."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from proveout.access.rights import ROLES
from proveout.domain import Directory, Key, Principal, Right
from proveout.errors import InvalidInput, NotFound, Unauthenticated
from proveout.store.events import Kind, note
from proveout.store.pool import Row, Store

_LOGIN_MINUTES = 15


def digest(text: str) -> bytes:
    """What is stored of a key: BLAKE2b-256. A 256-bit random text needs no slow hash."""
    return hashlib.blake2b(text.encode(), digest_size=32, person=b"proveout-key").digest()


def authenticate(directory: Directory, text: str | None) -> Principal:
    """The principal of a key's text. Raises Unauthenticated, alike for no, wrong and revoked keys."""
    key = directory.keys.get(digest(text)) if text else None
    if key is None:
        raise Unauthenticated()
    return Principal(key, ROLES[key.role])


def principal_of(directory: Directory, key: str) -> Principal | None:
    """The principal of a key's id, unless it was revoked."""
    found = next((k for k in directory.keys.values() if k.id == key), None)
    return Principal(found, ROLES[found.role]) if found else None


def system(workspace: str) -> Principal:
    """The principal of background work: it may ask any release, in any group."""
    rights = frozenset({Right.APPS_ASK, Right.RELEASES_PREVIEW, Right.KEYS_MANAGE})
    return Principal(Key("system", "system", workspace, "system"), rights)


def require(principal: Principal, right: Right) -> None:
    """Raises NotFound unless the principal has `right`: forbidden and absent look alike."""
    if right not in principal.rights:
        raise NotFound(f"There is no such thing here, or your key does not grant it ({right}).")


async def create_key(
    store: Store,
    principal: Principal,
    name: str,
    role: str = "user",
    groups: Sequence[str] = (),
    apps: Sequence[str] | None = None,
    models: Sequence[str] = (),
) -> tuple[Key, str]:
    """Makes a key of the principal's workspace; its text is answered once and kept nowhere. Raises InvalidInput."""
    if role not in ROLES:
        raise InvalidInput(f"role: {role!r} is not one of {', '.join(ROLES)}.")
    if role == "owner":
        raise InvalidInput("role: the owner key is made by `proveout up` alone; choose another role.")
    text = new_key_text()
    key = Key(
        id=f"key_{secrets.token_hex(8)}",
        name=name,
        workspace=principal.key.workspace,
        role=role,
        groups=frozenset(groups),
        apps=None if apps is None else frozenset(apps),
        models=frozenset(models),
    )
    async with store.unscoped() as session:
        await session.run(
            "keys.insert",
            workspace=key.workspace,
            digest=digest(text),
            **(about := _about(key)),
        )
        await note(session, key.workspace, Kind.KEY_CREATED, principal.key.id, about)
    return key, text


def _about(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "groups": sorted(key.groups),
        "apps": None if key.apps is None else sorted(key.apps),
        "models": sorted(key.models),
    }


def new_key_text() -> str:
    return f"po_{secrets.token_urlsafe(32)}"


async def ensure_owner(store: Store, workspace: str, text: str) -> None:
    """Registers the owner key of this data folder, once."""
    async with store.unscoped() as session:
        await session.run("workspaces.ensure", name=workspace, secret=secrets.token_bytes(32))
        await session.run(
            "keys.ensure_owner", id=f"key_{secrets.token_hex(8)}", workspace=workspace, digest=digest(text)
        )


async def list_keys(store: Store, workspace: str) -> list[Row]:
    """The workspace's keys, newest first, revoked ones too; never their texts."""
    async with store.unscoped() as session:
        return list(await session.fetch("keys.list", workspace=workspace))


async def revoke_key(store: Store, principal: Principal, key: str) -> None:
    """Revokes a key of the principal's workspace. Raises NotFound, and InvalidInput for one's own."""
    if key == principal.key.id:
        raise InvalidInput("A key cannot revoke itself: use another one.")
    async with store.unscoped() as session:
        if await session.row("keys.revoke", id=key, workspace=principal.key.workspace) is None:
            raise NotFound(f"There is no key {key} that could be revoked.")
        await note(session, principal.key.workspace, Kind.KEY_REVOKED, principal.key.id, {"id": key})


async def create_login(store: Store, principal: Principal) -> str:
    """A one-time code that logs a browser in as this principal within 15 minutes."""
    code = secrets.token_urlsafe(24)
    async with store.unscoped() as session:
        await session.run("logins.expire")
        await session.run("logins.insert", digest=digest(code), key=principal.key.id, minutes=_LOGIN_MINUTES)
    return code


async def take_login(store: Store, code: str) -> str:
    """Uses a one-time code up; answers with its key's id. Raises Unauthenticated."""
    async with store.unscoped() as session:
        row = await session.row("logins.take", digest=digest(code))
        if row is None:
            raise Unauthenticated("This login link was used already or is too old: make one with `proveout login`.")
        await note(session, row["workspace"], Kind.LOGIN_USED, row["key"], {})
    return str(row["key"])
