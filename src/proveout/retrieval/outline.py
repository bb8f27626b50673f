"""What parsing makes: blocks of text under headings, and the document's text with offsets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from proveout.errors import InvalidInput

MAX_CHARACTERS = 8_000_000

Kind = Literal["heading", "paragraph", "item", "row", "code"]


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, paragraph, list item (`- …`), table row (`Label: cell; Label: cell`) or code block."""

    text: str
    headings: tuple[str, ...] = ()
    page: int | None = None
    kind: Kind = "paragraph"


@dataclass(frozen=True, slots=True)
class Parsed:
    """A document: its text, the one that every offset is an offset of, and each block's start and end in it."""

    title: str
    text: str
    blocks: tuple[Block, ...]
    spans: tuple[tuple[int, int], ...]
    metadata: Mapping[str, object] = field(default_factory=dict)


class Outline:
    """Collects blocks under the headings open at the time."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.title = ""
        self._open: list[tuple[int, str]] = []
        self._characters = 0

    def heading(self, level: int, text: str, page: int | None = None) -> None:
        """Open a heading. The first one of level 1 is the title and no heading of what follows."""
        text = squeeze(text)
        if not text:
            return
        self._open = [(lv, t) for lv, t in self._open if lv < level]
        self.add(text, "heading", page)
        if level == 1 and not self.title:
            self.title = text
        else:
            self._open.append((level, text))

    def add(self, text: str, kind: Kind = "paragraph", page: int | None = None) -> None:
        """Add a block; blank ones are dropped."""
        if text.strip():
            self._characters += len(text)
            if self._characters > MAX_CHARACTERS:
                raise InvalidInput(f"it holds more than {MAX_CHARACTERS:,} characters; split it")
            self.blocks.append(Block(text, tuple(t for _, t in self._open), page, kind))

    def row(self, labels: list[str], cells: list[str], page: int | None = None) -> None:
        """Add a table row so that it can be read alone: each cell with its column's label."""
        pairs = zip(labels + [""] * len(cells), cells, strict=False)
        self.add("; ".join(f"{a}: {c}" if a and a != c else c for a, c in pairs if c), "row", page)

    def parsed(self, title: str, metadata: Mapping[str, object]) -> Parsed:
        """The document whole. Items and rows that follow each other are one line apart, other blocks two."""
        parts: list[str] = []
        spans = []
        at = 0
        for before, block in zip((None, *self.blocks), self.blocks, strict=False):
            if before is not None:
                parts.append("\n" if block.kind in ("item", "row") and before.kind == block.kind else "\n\n")
                at += len(parts[-1])
            parts.append(block.text)
            spans.append((at, at + len(block.text)))
            at += len(block.text)
        return Parsed(title, "".join(parts), tuple(self.blocks), tuple(spans), metadata)


def squeeze(text: str) -> str:
    """One space for any run of white space; soft hyphens and zero-width characters go."""
    return " ".join(re.sub("[\u00ad\u200b-\u200d\u2060\ufeff\0]", "", text).split())


def decode(data: bytes) -> str:
    """UTF-8 (or UTF-16 with its mark); else Windows-1252 if it then reads as text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", errors="replace")
    odd = sum(1 for c in text if c == "\ufffd" or (c < " " and c not in "\n\r\t\f"))
    if odd > len(text) // 1000:
        raise InvalidInput("it is not text in UTF-8 or Windows-1252; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n\n")
