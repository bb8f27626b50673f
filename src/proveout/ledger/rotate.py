"""Rotation of keys while everything runs: what a key wraps is wrapped anew, batch by batch, and opens all the while.

Every step may be done twice, so a worker that was killed goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from proveout.domain import Scope
from proveout.errors import InvalidInput
from proveout.jobs.runtime import Result, Steps
from proveout.store.events import Kind, note
from proveout.store.pool import Store
from proveout.store.purge import purge
from proveout.store.sealing import Keyring, new_master_key, read_master_keys, write_master_keys

KeyLevel = Literal["master", "workspace"]
KEY_LEVELS: tuple[KeyLevel, ...] = get_args(KeyLevel)
_BATCH = 500


class Rotate:
    """The job `rotate`: given the key that asked for it and what to rotate, `{rotated, rewrapped, not_purged}`.

    `file` holds the master key, unless the environment or a command gives it: there the operator puts the new key
    before the old one, and takes the old one away when the job is done.
    """

    def __init__(
        self, store: Store, keyring: Keyring, dsn: str, file: Path | None, system: Callable[[str], Scope]
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._dsn = dsn
        self._file = file
        self._system = system

    async def __call__(self, steps: Steps, by: str, level: str) -> Result:
        if level == "workspace":
            count = await self._workspace(steps, by)
        elif level == "master":
            count = await self._master(steps, by)
        else:
            raise InvalidInput(f"What is rotated is one of {', '.join(KEY_LEVELS)}.")
        return {"rotated": level, "rewrapped": count, "not_purged": await steps.run("purge", purge, self._dsn)}

    async def _workspace(self, steps: Steps, by: str) -> int:
        scope = steps.scope
        version = await steps.run("add", self._add_version, scope)
        done = await steps.run("rewrap", self._rewrap, scope, version)
        await steps.run("retire", self._retire, scope, by, version, done)
        return done

    async def _add_version(self, scope: Scope) -> int:
        async with self._store.within(scope) as session:
            return await self._keyring.add_version(session, scope.workspace)

    async def _rewrap(self, scope: Scope, version: int) -> int:
        done = 0
        while True:
            async with self._store.within(scope) as session:
                moved = await self._keyring.rewrap(session, scope.workspace, version, _BATCH)
            done += moved
            if moved < _BATCH:
                return done

    async def _retire(self, scope: Scope, by: str, version: int, count: int) -> None:
        async with self._store.within(scope) as session:
            await session.run("sealing.retire", workspace=scope.workspace, version=version)
            about = {"level": "workspace", "version": version, "rewrapped": count}
            await note(session, scope.workspace, Kind.KEYS_ROTATED, by, about)

    async def _master(self, steps: Steps, by: str) -> int:
        await steps.run("put", self._put_new)
        done = await steps.run("rewrap", self._rewrap_workspaces, by)
        await steps.run("drop", self._drop_old)
        return done

    async def _put_new(self) -> None:
        """A new key before the one in the file, where there is only one: two mean that a rotation was begun."""
        if self._file is not None:
            keys = read_master_keys(None, None, self._file)
            if len(keys) == 1:
                write_master_keys(self._file, [new_master_key(), *keys])

    async def _rewrap_workspaces(self, by: str) -> int:
        async with self._store.unscoped() as session:
            workspaces = [row["name"] for row in await session.fetch("log.workspaces")]
        done = 0
        for workspace in workspaces:
            async with self._store.within(self._system(workspace)) as session:
                moved = await self._keyring.rewrap_workspace(session, workspace)
                await note(session, workspace, Kind.KEYS_ROTATED, by, {"level": "master", "rewrapped": moved})
            done += moved
        return done

    async def _drop_old(self) -> None:
        if self._file is not None:
            write_master_keys(self._file, read_master_keys(None, None, self._file)[:1])
