"""Bytes of a document -> its text in blocks, each with the headings it stands under.

Pure: takes bytes, reads nothing else. Files may be hostile: sizes, pages and nesting are bounded here, time and
memory by the process that calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise, zip_longest
from pathlib import PurePosixPath

from proveout.errors import InvalidInput
from proveout.retrieval.docx import read_docx
from proveout.retrieval.html import read_html
from proveout.retrieval.markdown import read_markdown
from proveout.retrieval.outline import Block, Outline, Parsed, decode, squeeze
from proveout.retrieval.pdf import read_pdf

__all__ = ["SUFFIXES", "Block", "Parsed", "parse", "verbatim"]

MAX_BYTES = 32 << 20


def parse(name: str, data: bytes) -> Parsed:
    """Read one document; `name` is its path, whose suffix decides the format.

    Raises InvalidInput with one sentence: what is wrong with which file and how to mend it.
    """
    path = PurePosixPath(name)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(f"{name}: the format is not supported; use one of {', '.join(SUFFIXES)}")
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"{name}: the file has more than {MAX_BYTES >> 20} MiB; split it")
    outline = Outline()
    try:
        metadata = reader(data, outline)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}") from None
    if not any(block.kind != "heading" for block in outline.blocks):
        raise InvalidInput(f"{name}: no text was found; if it is a scan, run OCR over it, else remove the file")
    stem = squeeze(re.sub(r"[-_]+", " ", path.stem))
    title = squeeze(str(metadata.get("title") or "")) or outline.title or stem[:1].upper() + stem[1:]
    return outline.parsed(title, metadata)


def verbatim(title: str, text: str) -> Parsed:
    """A text that is taken word for word: its paragraphs are its blocks, and none is a heading."""
    gaps = [(0, 0), *(m.span() for m in re.finditer(r"\n[ \t\r]*\n\s*", text)), (len(text), len(text))]
    spans = [(start, end) for (_, start), (end, _) in pairwise(gaps) if text[start:end].strip()]
    return Parsed(title, text, tuple(Block(text[a:b]) for a, b in spans), tuple(spans))


_BULLET = re.compile(r"\s*(?:[-*+•▪–]|(\d{1,3})[.)])\s+(?=\S)")
_UNDERLINE = re.compile(r"\s*(?:={3,}|-{3,}|~{3,}|\*{3,})\s*")


def _text(data: bytes, outline: Outline) -> Mapping[str, object]:
    """Plain text: paragraphs between blank lines, bullets, and headings that stand alone on their line."""
    for paragraph in re.split(r"\n\s*\n", decode(data)):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        if lines and _UNDERLINE.fullmatch(lines[0]):
            del lines[0]
        if len(lines) > 1 and _UNDERLINE.fullmatch(lines[1]):
            outline.heading(1 if "=" in lines[1] and not outline.title else 2, lines[0])
            lines = lines[2:]
        elif len(lines) == 1 and _is_heading(lines[0].strip()):
            outline.heading(1 if not outline.blocks else 2, lines[0])
            continue
        _paragraph([line for line in lines if not _UNDERLINE.fullmatch(line)], outline)
    if len(outline.blocks) == 1 and outline.blocks[0].kind == "heading":  # a note of one line
        outline.add(outline.blocks.pop().text)
    return {}


def _is_heading(line: str) -> bool:
    return (
        len(line) <= 70 and line[-1] not in ".!?;:,|" and line[0].isupper() and not re.search(r"\t| {3}|: ", line)
    ) or bool(re.fullmatch(r"\d+(?:\.\d+)*\.?\s+[A-Z][^.!?]{1,60}", line))


def _paragraph(lines: list[str], outline: Outline) -> None:
    """Wrapped lines become one; a bullet, or a line much shorter than its paragraph's widest, ends one."""
    if not lines:
        return
    widest = max(map(len, lines))
    held: list[str] = []
    for line, following in zip_longest(lines, lines[1:], fillvalue=""):
        held.append(line)
        room = widest - len(line.rstrip()) - 1
        if not following or _BULLET.match(following) or room >= len(following.split(None, 1)[0]) + 4:
            text = squeeze(" ".join(held))
            outline.add(re.sub(r"^[*+•▪–] ", "- ", text), "item" if _BULLET.match(text) else "paragraph")
            held = []


_READERS: Mapping[str, Callable[[bytes, Outline], Mapping[str, object]]] = {
    ".md": read_markdown,
    ".markdown": read_markdown,
    ".html": read_html,
    ".htm": read_html,
    ".txt": _text,
    ".pdf": read_pdf,
    ".docx": read_docx,
}
SUFFIXES = tuple(_READERS)
