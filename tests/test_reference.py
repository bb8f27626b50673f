"""The reference pages say what the code does, and every key of a file that people write is explained."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

import reference
from conftest import HELPDESK, ROOT
from proveout.configfile import ConfigFile
from proveout.releases.manifest import AppFile

PAGES = reference.pages()


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_what_the_code_says(name: str) -> None:
    path = reference.FOLDER / name
    assert path.is_file() and path.read_text() == PAGES[name], f"{path.relative_to(ROOT)} is stale: run `make docs`"


def test_no_page_is_left_over() -> None:
    kept = {path.name for path in reference.FOLDER.iterdir()}
    assert kept == set(PAGES), f"remove {sorted(kept - set(PAGES))}: nothing writes them"


def models(model: type[BaseModel], module: str) -> Iterator[type[BaseModel]]:
    yield model
    members = vars(sys.modules[module]).values()
    yield from (m for m in members if isinstance(m, type) and issubclass(m, BaseModel) and m.__module__ == module)


@pytest.mark.parametrize("model", [AppFile, ConfigFile])
def test_every_key_is_explained(model: type[BaseModel]) -> None:
    silent = {
        f"{part.__name__}.{name}"
        for part in models(model, model.__module__)
        for name, field in part.model_fields.items()
        if not field.description
    }
    assert not silent, f"give these keys a description, from which the reference is written: {sorted(silent)}"


def test_the_schema_for_editors_knows_the_keys_of_the_example() -> None:
    schema = json.loads(PAGES["app.schema.json"])
    example = yaml.safe_load(Path(HELPDESK / "app.yaml").read_text())
    assert set(example) <= set(schema["properties"]) and schema["additionalProperties"] is False
    assert {"type": "string"} in schema["$defs"]["ModelPart"]["properties"]["use"]["anyOf"]
