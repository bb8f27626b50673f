"""Writes docs/reference from the code: `make docs`. `tests/test_reference.py` fails when a page is stale."""

from __future__ import annotations

import ast
import inspect
import json
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from proveout import configfile, errors, settings
from proveout.domain import Right
from proveout.edge.cli import main as cli
from proveout.edge.http import problems
from proveout.edge.http.routes import application
from proveout.releases.manifest import AppFile, schema

FOLDER = Path(__file__).parent.parent / "docs" / "reference"
Json = Mapping[str, Any]


def pages() -> dict[str, str]:
    """Every page by its file name."""
    written = {
        "settings.md": _settings(),
        "config.md": _config(),
        "manifest.md": _manifest(),
        "routes.md": _routes(),
        "errors.md": _errors(),
        "cli.md": _cli(),
    }
    note = "<!-- Written by `make docs` from the code: change it there. -->\n"
    return {name: note + text for name, text in written.items()} | {
        "app.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    }


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


# -- the environment, the config file, the manifest ----------------------------------------------------------------


def _settings() -> str:
    rows = [(f"`{v.name}`", v.meaning, _code(v.default)) for v in settings.VARIABLES]
    return _page(
        "The environment",
        "Read once, when a process starts. `proveout up` sets what the processes that it starts need.",
        _table(("variable", "meaning", "default"), rows),
    )


def _config() -> str:
    return _page(
        "The server's config: `proveout.yaml`",
        "Read from `--config`, else `./proveout.yaml`, else `DATA/proveout.yaml`. Everything has a default; "
        "unknown keys are errors. NAME stands for a name of your choice.",
        _keys(configfile.ConfigFile.model_json_schema()),
    )


def _manifest() -> str:
    return _page(
        "The app: `app.yaml`",
        "What a folder declares; `proveout check` names every mistake. Facts are recorded with each release, and "
        "versioned, but stay outside its digest. For editors: [app.schema.json](app.schema.json), which a server "
        "gives as `/assets/app.schema.json`.",
        _keys(AppFile.model_json_schema()),
    )


def _keys(root: Json) -> str:
    return _table(("key", "type", "default", "meaning"), _rows(root, root, ""))


def _rows(node: Json, root: Json, path: str) -> Iterator[tuple[str, ...]]:
    """A row for each key below `node`, in their order."""
    for name, given in node.get("properties", {}).items():
        field, key = _resolved(given, root), f"{path}{name}"
        below = list(_below(field, root, key))
        default = "required" if name in node.get("required", ()) else "" if below else _value(given.get("default"))
        yield f"`{key}`", _type(field, root), default, given.get("description") or field.get("description", "")
        for child, prefix in below:
            yield from _rows(child, root, prefix)


def _below(field: Json, root: Json, key: str) -> Iterator[tuple[Json, str]]:
    """The nodes with keys of their own below a field, and the path of each."""
    for variant in field.get("anyOf", [field]):
        node = _resolved(variant, root)
        if "properties" in node:
            yield node, f"{key}."
        elif isinstance(node.get("items"), dict):
            yield from _below(_resolved(node["items"], root), root, f"{key}[]")
        named = [*node.get("patternProperties", {}).values(), node.get("additionalProperties")]
        for value in named:
            if isinstance(value, dict):
                yield from _below(_resolved(value, root), root, f"{key}.NAME")


def _resolved(node: Json, root: Json) -> Json:
    if "$ref" not in node:
        return node
    found: Any = root
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _type(node: Json, root: Json) -> str:
    """A JSON Schema's type in words."""
    if "anyOf" in node:
        variants = [_type(_resolved(v, root), root) for v in node["anyOf"] if v.get("type") != "null"]
        return " or ".join(dict.fromkeys(variants))
    if "enum" in node or "const" in node:
        return ", ".join(_value(value) for value in node.get("enum", [node.get("const")]))
    kind = str(node.get("type", "anything"))
    if kind == "array":
        return f"list of {_type(_resolved(node.get('items', {}), root), root)}"
    if kind == "object":
        return "mapping"
    bounds = {sign: node[key] for sign, key in _BOUNDS.items() if key in node}
    if bounds:
        kind += " " + ", ".join(f"{sign} {value:g}" for sign, value in bounds.items())
    return kind


_BOUNDS = {"≥": "minimum", ">": "exclusiveMinimum", "≤": "maximum", "<": "exclusiveMaximum"}


# -- routes --------------------------------------------------------------------------------------------------------


def _routes() -> str:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "proveout.yaml"  # whatever config lies about here must not change the pages
        config.touch()
        app = application(settings.read({settings.CONFIG.name: str(config), settings.DATA.name: folder}))
    control = next(r.app for r in app.routes if isinstance(r, Mount) and isinstance(r.app, FastAPI))
    assert isinstance(control, FastAPI)
    ways = [(_methods(r), f"`{r.path}`", _first_line(r.endpoint)) for r in app.routes if isinstance(r, Route)]
    ways += [("GET", f"`{r.path}/…`", "Files.") for r in app.routes if isinstance(r, Mount) and r.path]
    text = _table(("method", "path", "what"), ways) + "\n## The control plane, `/api/v1`\n"
    for route in _flat(control.routes):
        text += _api_route(route, control.openapi())
    return _page(
        "Routes",
        "Errors have OpenAI's shape everywhere ([errors](errors.md)). The control plane is described by "
        "`/openapi.json` too; its right is what the caller's role must hold.",
        text,
    )


def _flat(routes: Iterable[BaseRoute]) -> list[APIRoute]:
    """The control plane's routes; FastAPI keeps those of an included router one level down."""
    found: list[APIRoute] = []
    for route in routes:
        if isinstance(route, APIRoute):
            found.append(route)
        else:
            below = getattr(route, "original_router", route)
            found += _flat(getattr(below, "routes", ()))
    return found


def _api_route(route: APIRoute, document: Json) -> str:
    told = document["paths"][route.path_format][_methods(route).lower()]
    text = f"\n### {_methods(route)} {route.path}\n{_docstring(route.endpoint)}\n"
    if rights := _rights(route.endpoint):
        text += "\nRight: " + ", ".join(f"`{right}`" for right in rights) + "\n"
    rows: list[tuple[str, ...]] = [
        (f"`{p['name']}`", _type(p["schema"], document), _value(p["schema"].get("default")), f"in the {p['in']}")
        for p in told.get("parameters", ())
        if p["in"] != "path"
    ]
    body = told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    rows += _rows(_resolved(body, document), document, "")
    return text + ("\n" + _table(("parameter", "type", "default", "meaning"), rows) if rows else "")


def _rights(endpoint: Callable[..., Any]) -> list[str]:
    """The rights that a handler asks for, read from its source: `require(caller, Right.X)`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(endpoint)))
    names = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Right"
    ]
    return [Right[name].value for name in dict.fromkeys(names)]


def _methods(route: Route | APIRoute) -> str:
    return ", ".join(sorted((route.methods or set()) - {"HEAD"}))


# -- errors and commands -------------------------------------------------------------------------------------------


def _errors() -> str:
    tree = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.ProveoutError)]
    rows = []
    for error in tree:
        status, kind = next((s, k) for cls, s, k in problems.STATUSES if issubclass(error, cls))
        by_http = (str(status), f"`{kind}`") if error is not errors.StartRefused else ("", "")
        rows.append((f"`{error.code}`", *by_http, _docstring(error)))
    text = _table(("code", "status", "type", "what to do"), rows)
    return _page(
        "Errors",
        '`{"error": {"message", "type", "param", "code"}}`; `code` is stable. A 503 and a 429 carry `retry-after`. '
        "The message says more than this page, where more is known.",
        f"{text}\n## Exit codes of the command line\n{_docstring(cli.main)}\n",
    )


def _cli() -> str:
    root = typer.main.get_command(cli.app)
    return _page(
        "The command line",
        "Every command knows `--help`; `--json` prints one JSON document.",
        "".join(_help(root, "proveout", None)),
    )


def _help(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name, parent=parent, terminal_width=100, color=False)
    text = inspect.cleandoc(command.get_help(context)).replace("\b", "")
    yield f"\n## {context.command_path}\n```\n{text.strip()}\n```\n"
    for below, child in getattr(command, "commands", {}).items():
        yield from _help(child, below, context)


# -- Markdown ------------------------------------------------------------------------------------------------------


def _page(title: str, about: str, text: str) -> str:
    return f"# {title}\n{about}\n\n{text.lstrip()}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = list(head)
    lines = [
        titles,
        ["---"] * len(titles),
        *([cell.replace("|", "\\|").replace("\n", " ") for cell in r] for r in rows),
    ]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _value(value: object) -> str:
    return (
        "" if value is None or value in ([], {}, "") else _code(value if isinstance(value, str) else json.dumps(value))
    )


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _docstring(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def _first_line(thing: object) -> str:
    """Without the method and path that data-plane handlers begin with."""
    return re.sub(r"^`[A-Z]+ [^`]+`:? ?", "", _docstring(thing).split("\n", 1)[0])


if __name__ == "__main__":
    main()
