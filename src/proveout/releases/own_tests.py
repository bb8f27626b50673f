"""What a release brought along to be measured by, unsealed."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from proveout.domain import Release
from proveout.evals.cases import Case, read_cases
from proveout.evals.judge import Judge
from proveout.store.pool import Session
from proveout.store.sealing import Keyring, unseal


@dataclass(frozen=True, slots=True)
class OwnTests:
    """Golden questions (JSON lines), the code of scorers, and a judge: "" or None where the release brought none."""

    golden: str
    scorers: str
    judge: Judge | None

    @property
    def cases(self) -> list[Case]:
        """The golden questions that count."""
        return [case for case in read_cases(self.golden, "golden") if case.counts]


async def own_tests(session: Session, keyring: Keyring, release: Release) -> OwnTests:
    """As they came with the release the last time."""
    about = {"workspace": release.workspace, "app": release.app, "number": release.number}
    row = await session.row("releases.golden", **about)
    assert row is not None  # a release is never deleted
    key = await keyring.workspace(session, release.workspace)

    def text(name: str) -> str:
        return unseal(key, row[name], name).decode() if row[name] else ""

    judge = text("judge")
    return OwnTests(text("golden"), text("scorers"), msgspec.json.decode(judge, type=Judge) if judge else None)
