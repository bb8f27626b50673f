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
targets: {{correct: ">= 0.6"}}              # what an evaluation must show before a release may enter `beta`
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

## Permits
Employees park in the yard behind the workshop. A permit costs 12 euros a month and is valid from the first of the
month. Permits are given out at the front desk between 8:00 and 10:00. A lost permit is replaced for 5 euros.

## Visitors
Visitors use the four places beside the gate, for at most three hours. Their number plate is noted at the front desk.

## Bicycles
Bicycles stand in the shed beside the canteen. The shed is locked at 20:00. Batteries may be charged in the shed only.

## Electric cars
The yard has six charging points. A kilowatt hour costs 30 cents, which the payroll takes off at the end of the month. A
car that is full must leave its charging point within one hour.
""",
    "evals/golden.jsonl": """\
{{"id": "permit", "question": "What does a parking permit cost?", "facts": ["12 euros"], "documents": ["parking.md"]}}
{{"id": "where", "question": "Where do employees park?", "facts": ["behind the workshop"], "documents": ["parking.md"]}}
{{"id": "lost", "question": "What does a lost permit cost?", "facts": ["5 euros"], "documents": ["parking.md"]}}
{{"id": "desk", "question": "When are permits given out?", "facts": ["8:00"], "documents": ["parking.md"]}}
{{"id": "visitors", "question": "How long may visitors park?", "facts": ["three hours"], "documents": ["parking.md"]}}
{{"id": "places", "question": "How many places do visitors have?", "facts": ["four"], "documents": ["parking.md"]}}
{{"id": "bicycle", "question": "Where can I leave my bicycle?", "facts": ["shed"], "documents": ["parking.md"]}}
{{"id": "locked", "question": "When is the bicycle shed locked?", "facts": ["20:00"], "documents": ["parking.md"]}}
{{"id": "points", "question": "How many charging points are there?", "facts": ["six"], "documents": ["parking.md"]}}
{{"id": "price", "question": "What does a kilowatt hour cost?", "facts": ["30 cents"], "documents": ["parking.md"]}}
{{"id": "full", "question": "When must a full car leave?", "facts": ["one hour"], "documents": ["parking.md"]}}
{{"id": "boat", "question": "Where can I moor my boat?", "unanswerable": true}}
{{"id": "lunch", "question": "What is for lunch on Friday?", "unanswerable": true}}
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
