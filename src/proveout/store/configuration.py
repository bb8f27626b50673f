"""Reads the configuration that gateways keep in memory."""

from __future__ import annotations

import msgspec

from proveout.domain import Candidate, Directory, Key, Manifest, Pilots, Release, Retired, Route
from proveout.store.pool import Row, Store


async def load(store: Store, known: Directory | None = None) -> Directory:
    """The configuration as it stands; `known` itself when nothing has changed since."""
    async with store.unscoped() as session:
        # The version is read first: a change in between is then seen again at the next look.
        current = await session.row("configuration.version")
        assert current is not None
        if known is not None and known.version == current["version"]:
            return known
        keys = await session.fetch("configuration.keys")
        releases = await session.fetch("configuration.releases")
        routes = await session.fetch("configuration.routes")
    return Directory(
        version=current["version"],
        session_secret=bytes(current["session_secret"]),
        keys={bytes(row["digest"]): _key(row) for row in keys},
        releases={(row["workspace"], row["app"], row["number"]): release_of(row) for row in releases},
        routes={(row["workspace"], row["app"], row["stage"]): _route(row) for row in routes},
    )


def _key(row: Row) -> Key:
    return Key(
        id=row["id"],
        name=row["name"],
        workspace=row["workspace"],
        role=row["role"],
        groups=frozenset(row["groups"]),
        apps=None if row["apps"] is None else frozenset(row["apps"]),
        models=frozenset(row["models"]),
    )


def _route(row: Row) -> Route:
    candidate = None
    if row["candidate"] is not None:
        pilots = msgspec.convert(row["pilots"], Pilots)
        candidate = Candidate(row["candidate"], row["weight"], row["rollout"], row["salt"], pilots)
    retired = row["retired"] and msgspec.convert(row["retired"], Retired)
    return Route(row["workspace"], row["app"], row["stage"], row["stable"], row["since"], candidate, retired)


def release_of(row: Row) -> Release:
    """A release with its newest facts, from a row that has both."""
    manifest = msgspec.convert(row["manifest"], Manifest)
    return Release(**{**row, "manifest": manifest, "origins": frozenset(row["origins"])})
