"""Evaluations as runs of an MLflow tracking server, in the order in which the log tells of them.

Each run is written by a process of its own: MLflow takes its settings from the environment, and one that hangs holds
nobody up.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proveout import settings
from proveout.domain import Directory, Scope
from proveout.errors import StartRefused
from proveout.evals import report
from proveout.releases.findings import report_of, scored_cases
from proveout.settings import MlflowSettings
from proveout.store.events import Kind
from proveout.store.followers import Follower
from proveout.store.pool import Row, Session, Store
from proveout.store.sealing import Keyring

_FOLLOWER = Follower("mlflow", (Kind.EVALUATION_ENDED,))
_CHILD = "proveout.edge.processes.mirror"
_SECONDS = 60.0  # for one run
_LEASE = _SECONDS + 10

log = logging.getLogger(__name__)


def check(told: MlflowSettings | None) -> None:
    """Raises StartRefused where runs are to be mirrored and MLflow is not installed."""
    if told is not None and importlib.util.find_spec("mlflow") is None:
        raise StartRefused(
            "mlflow: the package is not installed: `pip install 'proveout[mlflow]'`, or take the key out."
        )


@dataclass(frozen=True, slots=True)
class Mirror:
    """Writes what has been evaluated since it was first asked to, each evaluation once."""

    store: Store
    keyring: Keyring
    directory: Callable[[], Directory]
    told: MlflowSettings

    async def turn(self, scope: Scope) -> bool:
        """Mirrors the next evaluation of the scope's workspace, if one is due; whether there may be more at once."""
        async with self.store.within(scope) as session:
            events = await _FOLLOWER.take(session, 1)
            if not events:
                return False
            event = events[0]
            run = await self._run(session, scope, event)
            if run is None or _FOLLOWER.late(event):
                if run is not None:
                    why = event["error"] or "it was away for too long"
                    log.error("mlflow never got %s: %s", run["evaluation"], why)
                return await _FOLLOWER.move(session, event)
            if not await _FOLLOWER.attempt(session, event, _LEASE):
                return False  # another worker is at it
        error = await self._put(run)
        async with self.store.within(scope) as session:
            if not error:
                return await _FOLLOWER.move(session, event, sent=True)
            if not event["attempts"]:
                log.warning("mlflow did not take %s, which will be tried again: %s", run["evaluation"], error)
            await _FOLLOWER.fail(session, event, error)
        return False

    async def _run(self, session: Session, scope: Scope, event: Row) -> dict[str, Any] | None:
        """The evaluation of an event as a run; None where it is kept no longer."""
        evaluation = await session.row("evaluations.get", evaluation=event["facts"]["evaluation"])
        if evaluation is None:
            return None
        release = self.directory().releases[scope.workspace, evaluation["app"], evaluation["release"]]
        cases = await scored_cases(session, self.keyring, scope.workspace, evaluation["id"])
        made = report_of(release, evaluation, cases)
        summary = evaluation["summary"]
        seconds = (event["at"] - evaluation["created"]).total_seconds()
        return {
            "experiment": self.told.experiment or f"proveout/{release.app}",
            "evaluation": evaluation["id"],
            "name": f"{release.label} {evaluation['id']}",
            "began": evaluation["created"].timestamp(),
            "ended": event["at"].timestamp(),
            "parameters": {
                "app": release.app,
                "release": release.number,
                "digest": release.digest,
                "data_set": summary["data_set"],
                "cases": summary["cases"],
                "repeats": summary["repeats"],
                "models": ", ".join(choice.use.name for choice in release.manifest.model),
                "baseline": summary["baseline"] or "",
            },
            "metrics": {**metrics(summary), "seconds": seconds},
            "tags": {"proveout.verdict": summary["verdict"], "proveout.workspace": scope.workspace},
            "artefacts": {"report.html": report.as_html(made), "summary.json": json.dumps(summary, indent=2)},
        }

    async def _put(self, run: Mapping[str, Any]) -> str:
        """Why the run could not be written, "" once it is."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", _CHILD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=settings.for_mlflow(self.told),
        )
        try:
            async with asyncio.timeout(_SECONDS):
                _, said = await process.communicate(json.dumps(run).encode())
        except TimeoutError:
            return f"no answer within {_SECONDS:.0f} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        lines = said.decode(errors="replace").split("\n")
        return (
            ""
            if process.returncode == 0
            else next((line for line in reversed(lines) if line.strip()), "it failed")[:500]
        )


def metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The figures of an evaluation by name: of each score `NAME.mean`, and `.low`, `.high` where they are known."""
    found = {
        f"{name}.{bound}": score[bound]
        for name, score in summary["scores"].items()
        for bound in ("mean", "low", "high")
        if score[bound] is not None
    }
    return {**found, "answers": summary["answers"], "asked": summary["asked"], "spent_usd": summary["spent_usd"]}
