"""`proveout init`: a small app to begin with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from proveout.edge.cli import output
from proveout.errors import InvalidInput

_FILES = {
    "app.yaml": """\
# Every key: docs/reference/manifest.md. Editors read the schema of a running server at /assets/app.schema.json.
app: {name}
purpose: Answer questions from our documents.
owners: {{accountable: someone@example.com, operator: someone@example.com}}
model:
  use: local/smollm2-135m-instruct        # or PROVIDER/MODEL, with PROVIDER from the server's proveout.yaml
  parameters: {{temperature: 0, max_tokens: 64}}
prompt: {{system: prompts/system.md, answer: prompts/answer.md}}
knowledge:
  - {{name: {name}-documents, source: knowledge/}}
evals: {{golden: evals/golden.jsonl}}
grounding: {{otherwise: quote}}             # what the sources do not support is replaced by a quote
""",
    "prompts/system.md": "You answer from the text that you are given, in one or two sentences.\n",
    "prompts/answer.md": """\
Text:
{{% for quote in quotes[:2] %}}{{{{ quote.text }}}}

{{% endfor %}}Question: {{{{ question }}}}
Answer the question from the text. Quote the exact words.
""",
    "knowledge/parking.md": """\
# Parking

Employees park in the yard behind the workshop. A permit costs 12 euros a month and is valid from the first of the
month. Visitors use the four places beside the gate, for at most three hours.
""",
    "evals/golden.jsonl": """\
{{"id": "permit", "question": "What does a parking permit cost?", "facts": ["12 euros"], "documents": ["parking.md"]}}
{{"id": "boat", "question": "Where can I moor my boat?", "facts": [], "documents": [], "unanswerable": true}}
""",
}


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder; its name becomes the app's.")],
    json: output.AsJson = False,
) -> None:
    """Make a small app to begin with: a manifest, prompts, a document and golden questions. Needs no server."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    if not name or not name[0].isalpha():
        raise InvalidInput(f"{folder.name!r} gives no name for an app: begin it with a letter.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} is there already: choose a new folder.")
    for path, text in _FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text.format(name=name), encoding="utf-8")
    if json:
        output.document({"app": name, "folder": str(folder), "files": list(_FILES)})
    else:
        output.say(f"{folder}: the app {name}. Next: proveout check {folder}, then proveout up {folder}")
