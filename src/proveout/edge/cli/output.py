"""How commands speak: one JSON document with `--json`, tables and a progress bar for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from proveout.edge.cli import client

JSON = typer.Option("--json", help="Print one JSON document.")
AsJson = Annotated[bool, JSON]

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False)


def document(value: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """A line for a person, on standard output."""
    _out.print(text, markup=False)


def warn(text: str) -> None:
    """A line for a person, on standard error."""
    _err.print(text, markup=False, soft_wrap=True)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows under headings; lists are joined, nothing is a dash."""
    shown = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        shown.add_row(*(_cell(row.get(column)) for column in columns))
    _out.print(shown)


def _cell(value: object) -> str:
    if value is None or value == [] or value == "":
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@contextmanager
def progress_bar() -> Iterator[client.Progress]:
    """A progress bar on a terminal; silent elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as bar:
        task = bar.add_task("waiting", total=None)

        def report(done: int, total: int, what: str) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report
