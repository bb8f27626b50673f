"""Pages under docs/measured: each soak writes what it measured, the last time it ran."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "measured"


class Page:
    """A page of `docs/measured`: a title, and a part for each test of a module."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._parts: list[str] = []

    def add(self, part: str) -> None:
        """A part in Markdown, which is printed too."""
        print(f"\n{part}")
        self._parts.append(part.strip())

    def __str__(self) -> str:
        made = f"Written by `make soak`, on {os.cpu_count()} cores."
        return "\n\n".join([f"# {self._title}", made, *self._parts]) + "\n"

    def write(self, name: str) -> None:
        (FOLDER / name).write_text(str(self), encoding="utf-8")
