"""What changed between two releases, and facts that change without a new release."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from conftest import Server

APP = {
    "app.yaml": """\
app: tides
purpose: Answer questions on tides.
objectives: [{measure: minutes to an answer, target: 1, baseline: 60}]
owners: {accountable: someone@example.com}
model: {use: echo}
prompt: {system: system.md}
knowledge: [{name: tides, source: notes}]
""",
    "system.md": "Answer from the text.\nBe brief.\n",
    "notes/spring.md": "# Spring tides\n\nSpring tides follow the full moon.\n",
    "notes/neap.md": "# Neap tides\n\nNeap tides follow the half moon.\n",
}
CHOICE = "model: {use: [{when: {words: '>40'}, use: local/smollm2-135m-instruct}, {use: echo}], parameters: {seed: 7}}"


def test_a_diff_tells_settings_prompts_documents_and_facts(server: Server, app_folder: Callable[..., Path]) -> None:
    folder = app_folder(APP)
    assert server.cli("release", "create", str(folder)).returncode == 0
    (folder / "app.yaml").write_text(APP["app.yaml"].replace("model: {use: echo}", CHOICE).replace("60}", "90}"))
    (folder / "system.md").write_text("Answer from the text.\nBe kind.\n")
    (folder / "notes" / "neap.md").unlink()
    (folder / "notes" / "spring.md").write_text("# Spring tides\n\nThey follow the new moon too.\n")
    (folder / "notes" / "surge.md").write_text("# Surges\n\nWind makes surges.\n")
    assert server.cli("release", "create", str(folder)).returncode == 0

    found = json.loads(server.cli("release", "diff", "tides@1", "tides@2", "--json").stdout)
    changes = {change["key"]: (change["before"], change["after"]) for change in found["changes"]}
    assert changes["parameters.seed"] == (None, 7)
    assert changes["model.0.use.name"] == ("echo", "local/smollm2-135m-instruct")
    assert changes["model.0.when.words_over"] == (None, 40)
    assert "-Be brief.\n+Be kind." in found["prompts"]["system"]
    (corpus,) = found["knowledge"]
    told = (corpus["added"], corpus["removed"], corpus["changed"], corpus["unseen"])
    assert told == (["surge.md"], ["neap.md"], ["spring.md"], 0)
    assert [(c["key"], c["before"], c["after"]) for c in found["facts"]] == [("objectives.0.baseline", 60, 90)]

    people = server.cli("release", "diff", "tides@1", "tides@2").stdout
    for line in ("parameters.seed: - → 7", "+Be kind.", "  + surge.md", "  ~ spring.md", "fact objectives.0.baseline"):
        assert line in people
    assert "no difference" in server.cli("release", "diff", "tides@1", "tides@1").stdout
    assert server.cli("release", "diff", "tides@1", "tides@9").returncode == 2
    assert server.cli("release", "diff", "tides@1", "helpdesk@1").returncode == 2


def test_new_facts_are_a_new_version_of_the_same_release(server: Server, app_folder: Callable[..., Path]) -> None:
    text = APP["app.yaml"].replace("app: tides", "app: ebbs")
    folder = app_folder({**APP, "app.yaml": text}, "ebbs")
    first = json.loads(server.cli("release", "create", str(folder), "--json").stdout)
    (folder / "app.yaml").write_text(text.replace("someone@example.com", "another@example.com"))
    second = json.loads(server.cli("release", "create", str(folder), "--json").stdout)
    assert (second["number"], second["digest"], second["created"]) == (first["number"], first["digest"], False)
    shown = json.loads(server.cli("release", "show", "ebbs@1", "--json").stdout)
    assert shown["facts"]["owners"]["accountable"] == "another@example.com"
    assert shown["facts"]["objectives"] == [{"measure": "minutes to an answer", "target": 1, "baseline": 60}]
