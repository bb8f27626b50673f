"""The named queries: reviewed SQL text, one file per room, loaded once.

A query starts with `-- name: NAME (scoped)` or `(unscoped)` and one sentence. A scoped query reads or
writes content and runs only inside `Store.within(scope)`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

_HEADER = re.compile(r"^-- name: (?P<name>[a-z_.]+) \((?P<scope>scoped|unscoped)\)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """One named statement with `%(name)s` parameters."""

    name: str
    scoped: bool
    sql: str


def load() -> dict[str, Query]:
    """All queries by name. Raises ValueError when a name stands twice."""
    queries: dict[str, Query] = {}
    for file in sorted(files(__package__).iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".sql"):
            continue
        text = file.read_text(encoding="utf-8")
        headers = list(_HEADER.finditer(text))
        for header, following in zip(headers, [*headers[1:], None], strict=True):
            sql = text[header.end() : following.start() if following else len(text)].strip()
            name = header["name"]
            if name in queries:
                raise ValueError(f"{file.name}: the query {name} is defined twice")
            queries[name] = Query(name, header["scope"] == "scoped", sql)
    return queries
