"""`proveout eval` where it needs no server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from proveout.edge.cli.evaluate import app
from proveout.errors import InvalidInput
from proveout.evals.cases import read_cases


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_a_foreign_data_set_becomes_cases_and_overwrites_none(tmp_path: Path) -> None:
    foreign, cases = tmp_path / "foreign.jsonl", tmp_path / "cases.jsonl"
    foreign.write_text(json.dumps({"input": {"question": "How long?"}, "expectedOutput": "25 days"}))
    code, said = run("import", foreign, "--from", "langfuse", "--to", cases, "--json")
    assert code == 0 and json.loads(said) == {"to": str(cases), "cases": 1, "reviewed": None, "archived": 0}
    (case,) = read_cases(cases.read_text(), "cases")
    assert (case.question, case.facts, case.counts) == ("How long?", ["25 days"], False)
    assert run("import", foreign, "--from", "langfuse", "--to", cases)[0] != 0
    assert run("import", foreign, "--from", "langfuse", "--to", tmp_path / "b", "--reviewed", "Ann")[0] == 0
    assert read_cases((tmp_path / "b").read_text(), "b")[0].counts


def test_a_leak_is_named_with_its_line(tmp_path: Path) -> None:
    cases, training = tmp_path / "cases.jsonl", tmp_path / "training.jsonl"
    lines = [
        {"id": "a", "question": "How many days of leave do clerks get?", "facts": ["25"]},
        {"id": "b", "question": "Who pays for the taxi home at night?", "facts": ["we"]},
        {"id": "c", "question": "Who pays for the taxi home at night, then?", "facts": ["we"], "split": "train"},
    ]
    cases.write_text("\n".join(map(json.dumps, lines[:2])))
    said = {"messages": [{"content": "how many days\nof leave\ndo clerks get"}]}
    training.write_text("Something else.\n" + json.dumps(said))
    code, out = run("leaks", cases, "--against", training, "--json")
    found = json.loads(out)
    assert code == 1 and found["cases"] == 2
    assert [(leak["case"], leak["where"]) for leak in found["leaks"]] == [("a", f"{training}:2")]
    training.write_text("Something else.")
    assert run("leaks", cases, "--against", training)[0] == 0
    cases.write_text("\n".join(map(json.dumps, lines)))
    code, out = run("leaks", cases, "--json")  # between its own splits
    assert code == 1 and [leak["where"] for leak in json.loads(out)["leaks"]] == ["c"]


def command(*arguments: object, url: str = "http://127.0.0.1:9") -> subprocess.CompletedProcess[str]:
    """`proveout`, as a shell runs it, with a server that is not there."""
    told = {**os.environ, "PROVEOUT_URL": url, "PROVEOUT_KEY": "pk_nothing"}
    line = [sys.executable, "-m", "proveout", *map(str, arguments)]
    return subprocess.run(line, env=told, capture_output=True, text=True, timeout=60, check=False)


def test_where_nothing_can_be_written_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (
        ("run", "a@1", "--report", tmp_path / "file"),
        ("run", "a@1", "--report", tmp_path / "file" / "below"),
        ("report", "evaluation_1", "--to", tmp_path / "file"),
        ("draft", "a@1", "--from", "documents", "--to", tmp_path / "nodir" / "x.jsonl"),
        ("draft", "a@1", "--from", "documents", "--to", tmp_path / "file"),
    ):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert isinstance(result.exception, InvalidInput), (arguments, result.exception)
        assert str(arguments[-1]) in result.exception.message


def test_an_error_is_one_document_too(tmp_path: Path) -> None:
    done = command("eval", "report", "evaluation_1", "--to", tmp_path, "--json")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "is it up?" in done.stderr
    assert json.loads(done.stdout)["error"] == {"message": done.stderr.strip(), "code": "unavailable"}
    plain = command("eval", "report", "evaluation_1", "--to", tmp_path)
    assert (plain.returncode, plain.stdout, plain.stderr) == (2, "", done.stderr)


@pytest.mark.parametrize("arguments", [("run", "a@1", "--dataset"), ("datasets", "a", "--put"), ("leaks",)])
def test_a_mistake_is_in_the_file_that_was_given(arguments: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    for text, said in (
        ('{"id": "a", "question": "a?", "facts": ["a"]}\n{"id": "b"}\n', f"{file}:2: "),
        ('\ufeff{"id": "b"}\n', f"{file}:1: give `question`"),
        ("\ufeff\n\n", f"{file}: there is no case in it."),
        ("", f"{file}: there is no case in it."),
    ):
        file.write_text(text)
        result = CliRunner().invoke(app, [*arguments, str(file)])
        assert isinstance(result.exception, InvalidInput) and result.exception.message.startswith(said)
