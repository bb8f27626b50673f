"""`proveout eval` where it needs no server."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from proveout.edge.cli.evaluate import app
from proveout.evals.cases import read_cases


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_a_foreign_data_set_becomes_cases_and_overwrites_none(tmp_path: Path) -> None:
    foreign, cases = tmp_path / "foreign.jsonl", tmp_path / "cases.jsonl"
    foreign.write_text(json.dumps({"input": {"question": "How long?"}, "expectedOutput": "25 days"}))
    code, said = run("import", foreign, "--from", "langfuse", "--to", cases)
    assert code == 0 and "1 cases" in said
    (case,) = read_cases(cases.read_text(), "cases")
    assert (case.question, case.reference, case.counts) == ("How long?", "25 days", False)
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
