"""Evaluations in an MLflow store: each once, whoever is at it, and later where MLflow was away."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from proveout import settings
from proveout.domain import Directory, Manifest, ModelChoice, ModelUse, Parameters, PromptTexts, Release, Scope
from proveout.edge.mirror import Mirror, check
from proveout.errors import StartRefused
from proveout.settings import MlflowSettings
from proveout.store.pool import Store, as_json
from proveout.store.sealing import Keyring

SYSTEM = Scope.system("default", "mlflow")
MANIFEST = Manifest("desk", (ModelChoice(ModelUse("echo", "1")),), (), Parameters(), PromptTexts("", ""), (), "quote")
RELEASE = Release("default", "desk", 1, "sha256:1", MANIFEST, {}, datetime.now(UTC))
SUMMARY = {
    "verdict": "pass",
    "data_set": "sha256:2",
    "cases": 2,
    "answers": 2,
    "asked": 1,
    "repeats": 1,
    "spent_usd": 0.25,
    "whole": True,
    "scores": {
        "correct": {"mean": 1.0, "low": 0.5, "high": 1.0, "cases": 2, "better": "higher", "kind": "score"},
        "exact": {"mean": 1.0, "low": None, "high": None, "cases": 1, "better": "higher", "kind": "score"},
    },
    "targets": [],
    "bias": [],
    "notes": [],
    "baseline": None,
    "comparison": None,
    "changed": [],
    "judge": None,
}
ENDED = """
insert into proveout.events (workspace, kind, at, facts, position)
select 'default', 'evals:evaluation:ended', clock_timestamp(), jsonb_build_object('evaluation', %(evaluation)s::text),
       coalesce(max(position), 0) + 1 from proveout.events
"""


def evaluate(dsn: str, evaluation: str) -> None:
    """An evaluation that has ended, and is in the log."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "insert into proveout.evaluations (id, workspace, app, release, key, dataset, summary) "
            "values (%s, 'default', 'desk', 1, 'key_1', '', %s)",
            (evaluation, as_json(SUMMARY)),
        )
        connection.execute(ENDED, {"evaluation": evaluation})


def runs(folder: Path) -> dict[str, Path]:
    """The runs in an MLflow file store by their evaluation."""
    found = {tag.read_text(): tag.parent.parent for tag in folder.glob("*/*/tags/proveout.evaluation")}
    assert len(found) == len(list(folder.glob("*/*/meta.yaml")))
    return found


def test_each_evaluation_becomes_one_run(dsn: str, tmp_path: Path) -> None:
    folder = tmp_path / "runs"

    async def work(store: Store) -> None:
        def made(uri: str) -> Mirror:
            directory = Directory(1, {}, {("default", "desk", 1): RELEASE}, {}, b"")
            return Mirror(store, Keyring(bytes(32)), lambda: directory, MlflowSettings(uri, None, "secret"))

        one, other = made(folder.as_uri()), made(folder.as_uri())
        async with store.unscoped() as session:
            await session.run("workspaces.ensure", name="default", secret=b"k" * 32)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(
                "insert into proveout.keys (id, workspace, name, role, digest) "
                "values ('key_1', 'default', 'o', 'owner', 'd');"
                "insert into proveout.releases (workspace, app, number, digest, manifest) "
                "values ('default', 'desk', 1, 'sha256:1', '{}')"
            )
        evaluate(dsn, "evaluation_before")
        with psycopg.connect(dsn, autocommit=True) as connection:  # the log is as long as its checkpoint says
            connection.execute("insert into proveout.checkpoints (workspace, size, note) values ('default', 2, '')")
        assert not await one.turn(SYSTEM)  # it was not asked to then
        evaluate(dsn, "evaluation_1")
        (tmp_path / "file").touch()
        assert not await made(f"file://{tmp_path}/file/runs").turn(SYSTEM)  # MLflow is away
        assert not runs(folder)
        with psycopg.connect(dsn, autocommit=True) as connection:
            (error,) = connection.execute("select error from proveout.followers").fetchone() or ("",)
            assert "file/runs" in error
            connection.execute("update proveout.followers set due = now()")
        assert sorted(await asyncio.gather(one.turn(SYSTEM), other.turn(SYSTEM))) == [False, True]
        assert [*runs(folder)] == ["evaluation_1"]
        run = runs(folder)["evaluation_1"]
        # The worker died when the run was begun, and MLflow knows of it.
        (run / "meta.yaml").write_text((run / "meta.yaml").read_text().replace("status: 3", "status: 1"))
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("update proveout.followers set position = position - 1")
        assert await one.turn(SYSTEM) and [*runs(folder)] == ["evaluation_1"]
        assert "status: 3" in (run / "meta.yaml").read_text()
        assert not await one.turn(SYSTEM)
        assert (run / "params" / "digest").read_text() == "sha256:1" and (
            run / "params" / "models"
        ).read_text() == "echo"
        assert (run / "metrics" / "correct.low").read_text().split()[1] == "0.5"
        assert (run / "metrics" / "spent_usd").exists() and not (run / "metrics" / "exact.low").exists()
        assert (run / "tags" / "proveout.verdict").read_text() == "pass"
        assert "desk@1" in (run / "artifacts" / "report.html").read_text()
        assert (run / "artifacts" / "summary.json").exists()

    async def go() -> None:
        store = Store(dsn, size=4)
        await store.open()
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(go())


def test_without_the_package_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    told = MlflowSettings("file:///runs", None, None)
    check(told)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check(None)
    with pytest.raises(StartRefused, match=r"pip install 'proveout\[mlflow\]'"):
        check(told)


def test_where_it_is_told_to(tmp_path: Path) -> None:
    def read(text: str, **env: str) -> MlflowSettings | None:
        config = tmp_path / "proveout.yaml"
        config.write_text(f"mlflow: {text}\n")
        return settings.read({"PROVEOUT_CONFIG": str(config), **env}).mlflow

    given = read("{tracking_uri: 'https://mlflow.example/', token_env: TOKEN}", TOKEN="t")
    assert given == MlflowSettings("https://mlflow.example/", None, "t")
    assert settings.for_mlflow(given)["MLFLOW_TRACKING_TOKEN"] == "t"
    assert "MLFLOW_TRACKING_TOKEN" not in settings.for_mlflow(replace(given, token=None))
    for bad in ("{tracking_uri: 'https://user:word@mlflow.example'}", "{tracking_uri: 'sqlite:///x'}", "{}"):
        with pytest.raises(StartRefused, match="mlflow"):
            read(bad)
    with pytest.raises(StartRefused, match="TOKEN is not set"):
        read("{tracking_uri: 'https://mlflow.example', token_env: TOKEN}")
