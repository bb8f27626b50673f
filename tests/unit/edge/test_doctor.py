"""`proveout doctor`: needs no server, names what is wrong with the mend, and ends with 1 when something fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from proveout.edge.cli import doctor
from proveout.edge.cli.main import app
from proveout.engine import weights


def look(*arguments: str) -> tuple[Result, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(app, ["doctor", "--json", *arguments])
    return done, {check["name"]: check for check in json.loads(done.stdout)["checks"]}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_machine_that_runs_these_tests_is_healthy(tmp_path: Path) -> None:
    done, checks = look("--data", str(tmp_path / "not" / "yet"))
    assert done.exit_code == 0 and json.loads(done.stdout)["healthy"], checks
    assert checks["weights of the generator"]["found"] == "smollm2-135m-instruct, as published"
    assert "PostgreSQL" in checks["embedded postgres"]["found"]
    assert not (tmp_path / "not").exists(), "it changes nothing"


def test_people_get_a_line_for_each_and_the_mend_below(tmp_path: Path) -> None:
    (tmp_path / "owner.key").touch(mode=0o644)
    done = CliRunner().invoke(app, ["doctor", "--data", str(tmp_path)])
    assert done.exit_code == 1
    assert f"fail  owner.key: can be read by others\n      → Run: chmod 600 '{tmp_path}/owner.key'" in done.stdout


def test_a_data_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done, checks = look("--data", str(tmp_path / "file" / "data"))
    assert done.exit_code == 1 and checks["data folder"]["found"] == f"{tmp_path}/file is a file"


def test_a_data_folder_that_others_can_look_into(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    _, checks = look("--data", str(tmp_path))
    assert checks["data folder"]["state"] == "warn" and "chmod 700" in checks["data folder"]["mend"]


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "proveout.yaml").write_text("provider: {}")
    done, checks = look("--data", str(tmp_path / "data"))
    assert done.exit_code == 1 and "provider" in checks["config"]["found"]


def test_a_database_that_does_not_answer(tmp_path: Path) -> None:
    done, checks = look("--data", str(tmp_path), "--database", "postgresql://nobody@127.0.0.1:1/none")
    assert done.exit_code == 1 and checks["database"]["state"] == "fail" and "embedded postgres" not in checks


def test_weights_that_were_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = dict.fromkeys(weights.embedder().files, "another digest")
    monkeypatch.setattr(doctor, "_published", lambda found: published)
    done, checks = look("--data", str(tmp_path))
    assert done.exit_code == 1 and "model.safetensors" in checks["weights of the embedder"]["found"]


def test_weights_of_unknown_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"numbers")

    def embedder() -> weights.Weights:
        return weights.Weights("mine", (tmp_path / "model.safetensors",))

    monkeypatch.setattr(weights, "embedder", embedder)
    _, checks = look("--data", str(tmp_path))
    assert checks["weights of the embedder"]["state"] == "warn"
