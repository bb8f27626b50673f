"""One release: from a folder to a number and a digest that any machine gives again; mistakes are named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from conftest import HELPDESK, Server, start_server

NOTES = {
    "app.yaml": """\
app: notes
purpose: Answer questions on the notes.
owners: {accountable: someone@example.com}
model: {use: echo}
knowledge: [{name: notes, source: notes}]
evals: {golden: golden.jsonl}
""",
    "notes/rivers.md": "# Rivers\n\nThe Aire runs through Leeds and is 148 kilometres long.\n",
    "golden.jsonl": '{"id": "a", "question": "How long is the Aire?", "facts": ["148"], "documents": ["rivers.md"]}\n',
}


def test_a_release_is_created_listed_and_shown(server: Server, app_folder: Callable[..., Path]) -> None:
    folder = app_folder(NOTES)
    made = json.loads(server.cli("release", "create", str(folder), "--json").stdout)
    assert made["number"] == 1 and made["created"] and made["digest"].startswith("sha256:")
    again = json.loads(server.cli("release", "create", str(folder), "--json").stdout)
    assert (again["number"], again["digest"], again["created"]) == (1, made["digest"], False)
    (folder / "notes" / "rivers.md").write_text("# Rivers\n\nThe Aire is 148 km long.\n")
    second = json.loads(server.cli("release", "create", str(folder), "--json").stdout)
    assert second["number"] == 2 and second["digest"] != made["digest"]
    listed = json.loads(server.cli("release", "list", "notes", "--json").stdout)["releases"]
    assert [release["number"] for release in listed] == [2, 1] and listed[0]["stages"] == []
    shown = json.loads(server.cli("release", "show", "notes@1", "--json").stdout)
    assert shown["manifest"]["model"][0]["use"]["name"] == "echo" and shown["facts"]["purpose"].startswith("Answer")


def test_only_poc_is_open_without_evidence(server: Server, app_folder: Callable[..., Path]) -> None:
    server.cli("release", "create", str(app_folder(NOTES)))
    assert server.cli("release", "promote", "notes@1", "--to", "poc").returncode == 0
    refused = server.cli("release", "promote", "notes@1", "--to", "production")
    assert refused.returncode == 1 and "may not enter production yet: " in refused.stderr


def test_mistakes_are_named_with_file_line_key_and_mend(server: Server, app_folder: Callable[..., Path]) -> None:
    wrong = NOTES["app.yaml"].replace("purpose:", "porpose:").replace("model: {use: echo}", "model: {}")
    done = server.cli("release", "create", str(app_folder({**NOTES, "app.yaml": wrong})))
    assert done.returncode == 2
    assert "app.yaml:2: porpose: this key is not known; did you mean purpose?" in done.stderr
    assert "app.yaml:4: model.use: this key is required: add it" in done.stderr
    unknown = NOTES["app.yaml"].replace("use: echo", "use: local/nothing")
    done = server.cli("release", "create", str(app_folder({**NOTES, "app.yaml": unknown}, "other")))
    assert done.returncode == 2 and "There is no model 'local/nothing'; there are: " in done.stderr


def test_an_unreadable_document_is_named_and_costs_only_itself(server: Server, app_folder: Callable[..., Path]) -> None:
    folder = app_folder({**NOTES, "notes/broken.pdf": b"%PDF-1.4 not really", "notes/photo.png": b"\x89PNG"})
    made = json.loads(server.cli("release", "create", str(folder), "--json").stdout)
    problems = {p["document"]: p["message"] for p in made["problems"]}
    assert set(problems) == {"broken.pdf", "photo.png"} and "not supported" in problems["photo.png"]
    found = json.loads(server.cli("knowledge", "search", "notes", "How long is the Aire?", "--json").stdout)
    assert found["results"][0]["document"] == "rivers.md"
    checked = server.cli("check", str(folder))
    assert checked.returncode == 1 and "broken.pdf" in checked.stderr and "photo.png" in checked.stderr


def test_the_example_is_without_mistakes(server: Server) -> None:
    done = server.cli("check", str(HELPDESK))
    assert done.returncode == 0, done.stderr


def test_another_data_folder_gives_the_same_digest(server: Server, tmp_path: Path) -> None:
    """And so would another machine: the folder is copied elsewhere, the database is another one."""
    copy = tmp_path / "a copy" / "of the app"
    shutil.copytree(HELPDESK, copy)
    other = start_server(tmp_path / "data", str(copy))
    try:
        here, there = (
            json.loads(s.cli("release", "list", "helpdesk", "--json").stdout)["releases"][0] for s in (server, other)
        )
        assert there["digest"] == here["digest"]
    finally:
        assert other.stop() == 0
