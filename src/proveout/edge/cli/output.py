"""How commands speak: one JSON document with `--json`, tables and a progress bar for people."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from proveout.edge.cli import client

JSON = typer.Option("--json", help="Print one JSON document.")
AsJson = Annotated[bool, JSON]

_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)")
_FIGURES = re.compile(r"^\d+ |,.*$")  # of what is done: they change while the phase is the same
_EVERY = 30.0  # seconds between two lines of one phase
_WIDE = 1000  # columns, where no terminal says how many: lines are for other programs, and are not folded

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


def scores(found: Mapping[str, Any]) -> None:
    """The scores of an evaluation, by name, with their intervals."""
    rows = [
        {"score": name, "mean": f"{s['mean']:.3f}", "95 %": interval(s["low"], s["high"]), "cases": s["cases"]}
        for name, s in sorted(found.items())
    ]
    table(rows, ("score", "mean", "95 %", "cases"))


def interval(low: float | None, high: float | None) -> str:
    """`0.412 … 0.530`; a dash where a bound is missing."""
    return "-" if low is None or high is None else f"{low:.3f} … {high:.3f}"


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Rows under headings; lists are joined, nothing is a dash."""
    if not _out.is_terminal:
        _out.width = _WIDE
    _out.print(grid(rows, columns))


def grid(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """The same, to be printed."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")  # an id that was cut off is of no use
    for row in rows:
        shown.add_row(*(Text(_cell(row.get(column))) for column in columns))
    return shown


def page(parts: Sequence[str | Table]) -> Group:
    """Lines and tables, one below the other."""
    return Group(*(Text(part) if isinstance(part, str) else part for part in parts))


def pages() -> Live:
    """A page that is printed anew in its place, on a terminal alone."""
    return Live(console=_out, auto_refresh=False)


def put(shown: Group) -> None:
    """A page for a person, on standard output."""
    _out.print(shown)


def is_watched() -> bool:
    """Whether standard output is a terminal."""
    return _out.is_terminal


def _cell(value: object) -> str:
    if value is None or value == [] or value == "":
        return "-"
    if isinstance(value, str) and (moment := _MOMENT.fullmatch(value)):
        return f"{moment[1]} {moment[2]}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@contextmanager
def progress_bar() -> Iterator[client.Progress]:
    """A progress bar on a terminal; elsewhere a line at the start of each phase, and every 30 s, on standard error."""
    if not _err.is_terminal:
        yield _lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_err, transient=True) as bar:
        task = bar.add_task("waiting", total=None)

        def report(done: int, total: int, what: str) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report


def _lines() -> client.Progress:
    phase, said = "", 0.0

    def report(done: int, total: int, what: str) -> None:
        nonlocal phase, said
        now, before = time.monotonic(), phase
        phase = _FIGURES.sub("", what)
        if phase != before or now - said >= _EVERY:
            said = now
            warn(f"{what}: {done} of {total}")

    return report
