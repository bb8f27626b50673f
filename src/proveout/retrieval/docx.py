"""DOCX -> blocks: headings by their style, lists with their numbers, table rows with their labels.

A file is a zip of XML parts (ECMA-376). Only four parts are read, each to a bound; a part with a document type, which
could declare entities, is refused; macros, links to outside, comments, deleted and hidden text are not read.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from proveout.errors import InvalidInput
from proveout.retrieval.outline import Outline, squeeze

MAX_PART_BYTES = 48 << 20
MAX_ENTRIES = 10_000
MAX_DEPTH = 200  # of elements: the walk below recurses

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_TITLE = "{http://purl.org/dc/elements/1.1/}title"
_SKIPPED = {f"{_W}{name}" for name in ("del", "moveFrom", "instrText", "delText", "pPr", "rPr", "sectPr")} | {_FALLBACK}
_OFF = ("0", "false", "off", "none")


@dataclass(frozen=True, slots=True)
class _Style:
    """A paragraph's outline level (0 is the highest), and its list, as the style says."""

    level: int | None = None
    is_title: bool = False
    numbering: tuple[str, int] | None = None


@dataclass(slots=True)
class _Document:
    """What decides how paragraphs are read: styles by id, and which list levels are numbered from which start."""

    styles: Mapping[str, _Style]
    starts: Mapping[tuple[str, int], int]  # list id and level -> first number; absent: bullets
    counters: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))


def read_docx(data: bytes, outline: Outline) -> Mapping[str, object]:
    """Add a file's blocks to the outline; there is no metadata."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if len(archive.infolist()) > MAX_ENTRIES:
                raise InvalidInput(f"the DOCX has more than {MAX_ENTRIES:,} parts; save it anew")
            body = _part(archive, "word/document.xml")
            styles = _styles(_part(archive, "word/styles.xml"))
            starts = _starts(_part(archive, "word/numbering.xml"))
            core = _part(archive, "docProps/core.xml")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError) as error:
        raise InvalidInput(f"the DOCX is broken ({error}); save it anew") from None
    if body is None or (root := body.find(f"{_W}body")) is None:
        raise InvalidInput("it is not a DOCX document; save it as .docx")
    title = squeeze((core.findtext(_TITLE) if core is not None else None) or "")
    titled = any(styles.get(_value(p, "pPr", "pStyle"), _Style()).is_title for p in root.iter(f"{_W}p"))
    if not titled and len(title.split()) > 1:
        outline.title = title  # else the first heading would be it
    _blocks(root, _Document(styles, starts), outline)
    return {}


# -- the parts ------------------------------------------------------------------------------------


class _Builder(TreeBuilder):
    """Builds a tree of bounded depth; refuses document types, and with them every entity."""

    depth = 0

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise InvalidInput("the DOCX declares a document type, which may hide entities; save it anew")

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise InvalidInput(f"the DOCX nests deeper than {MAX_DEPTH} elements; save it anew")
        return super().start(tag.replace(_STRICT, _W), {k.replace(_STRICT, _W): v for k, v in attrs.items()})

    def end(self, tag: str, /) -> Element:
        self.depth -= 1
        return super().end(tag.replace(_STRICT, _W))


def _part(archive: zipfile.ZipFile, name: str) -> Element | None:
    try:
        entry = archive.getinfo(name)
    except KeyError:
        return None
    if entry.flag_bits & 1:
        raise InvalidInput("the DOCX is encrypted; save it without a password")
    with archive.open(entry) as part:
        content = part.read(MAX_PART_BYTES + 1)
    if len(content) > MAX_PART_BYTES:
        raise InvalidInput(f"the DOCX unpacks to more than {MAX_PART_BYTES >> 20} MiB; split it")
    parser = XMLParser(target=_Builder())  # noqa: S314 (the builder refuses document types)
    try:
        parser.feed(content)
        return parser.close()
    except ParseError as error:
        raise InvalidInput(f"the DOCX is broken ({name}: {error}); save it anew") from None


def _styles(root: Element | None) -> dict[str, _Style]:
    """Every paragraph style with what it inherits."""
    found = {_get(s, "styleId"): s for s in root.iter(f"{_W}style")} if root is not None else {}
    resolved: dict[str, _Style] = {}
    for name in found:
        level, numbering = None, None
        seen: set[str] = set()
        current = name
        while current in found and current not in seen:  # a circle of styles ends too
            seen.add(current)
            style = found[current]
            heading = re.fullmatch(r"heading ([1-9])|(title)", _value(style, "name").lower())
            outline = _value(style, "pPr", "outlineLvl")
            if level is None and (heading or outline.isdigit()):
                level = int(outline) if outline.isdigit() else int(heading[1] or 1) - 1 if heading else None
            numbering = numbering or _numbering(style)
            current = _value(style, "basedOn")
        resolved[name] = _Style(level, _value(found[name], "name").lower() == "title", numbering)
    return resolved


def _starts(root: Element | None) -> dict[tuple[str, int], int]:
    """The first number of every list level that is numbered."""
    if root is None:
        return {}
    levels: dict[str, dict[int, int]] = defaultdict(dict)
    for abstract in root.iter(f"{_W}abstractNum"):
        for level in abstract.iter(f"{_W}lvl"):
            if _value(level, "numFmt") not in ("bullet", "none", "") and _get(level, "ilvl").isdigit():
                start = _value(level, "start")
                levels[_get(abstract, "abstractNumId")][int(_get(level, "ilvl"))] = int(start) if start.isdigit() else 1
    return {
        (_get(number, "numId"), level): start
        for number in root.iter(f"{_W}num")
        for level, start in levels[_value(number, "abstractNumId")].items()
    }


def _get(element: Element, name: str) -> str:
    return element.get(f"{_W}{name}", "")


def _value(element: Element, *path: str) -> str:
    """`w:val` of the element at `path`; empty when there is none."""
    found = element.find("/".join(f"{_W}{name}" for name in path))
    return "" if found is None else _get(found, "val")


def _numbering(element: Element) -> tuple[str, int] | None:
    number, level = _value(element, "pPr", "numPr", "numId"), _value(element, "pPr", "numPr", "ilvl")
    return (number, int(level) if level.isdigit() else 0) if number else None


# -- the text -------------------------------------------------------------------------------------


def _blocks(parent: Element, document: _Document, outline: Outline) -> None:
    for element in parent:
        if element.tag == f"{_W}p":
            _paragraph(element, document, outline)
        elif element.tag == f"{_W}tbl":
            _table(element, outline)
        elif element.tag not in _SKIPPED:
            _blocks(element, document, outline)  # content controls and other wrappers


def _paragraph(element: Element, document: _Document, outline: Outline) -> None:
    text = squeeze("".join(_texts(element)))
    style = document.styles.get(_value(element, "pPr", "pStyle"), _Style())
    own = _value(element, "pPr", "outlineLvl")
    level = int(own) if own.isdigit() else style.level
    if not text:
        return
    if level is not None and level < 9:  # 9 is body text
        outline.heading(level + 1, text)
        return
    numbering = _numbering(element) or style.numbering
    if numbering is None or numbering[0] == "0":  # list 0: none, against the style's
        outline.add(text)
        return
    outline.add(f"{_marker(numbering, document)} {text}", "item")


def _marker(numbering: tuple[str, int], document: _Document) -> str:
    name, level = numbering
    counters = document.counters[name]
    for deeper in [at for at in counters if at > level]:
        del counters[deeper]
    if numbering not in document.starts:
        return "-"
    counters[level] = counters.get(level, document.starts[numbering] - 1) + 1
    return f"{counters[level]}."


def _texts(element: Element) -> Iterator[str]:
    """The pieces of visible text below an element; paragraphs within (cells, text boxes) are a space apart."""
    for child in element:
        if child.tag in _SKIPPED or (child.tag == f"{_W}r" and _is_hidden(child)):
            continue
        if child.tag == f"{_W}t":
            yield child.text or ""
        elif child.tag in (f"{_W}tab", f"{_W}br", f"{_W}cr"):
            yield " "
        elif child.tag == f"{_W}noBreakHyphen":
            yield "-"
        else:
            yield from _texts(child)
            if child.tag == f"{_W}p":
                yield " "


def _is_hidden(run: Element) -> bool:
    found = run.find(f"{_W}rPr/{_W}vanish")
    return found is not None and _get(found, "val") not in _OFF


def _table(table: Element, outline: Outline) -> None:
    """The first row gives the labels unless the table says that it has no header row."""
    labels: list[str] = []
    above: list[str] = []
    rows = list(_within(table, f"{_W}tr"))
    for number, row in enumerate(rows):
        above = _cells(row, above)
        if number == 0 and len(rows) > 1 and len(above) > 1 and _has_labels(table, row):
            labels = above
        else:
            outline.row(labels, above)


def _within(parent: Element, tag: str) -> Iterator[Element]:
    """The elements of a table or row by their tag, through wrappers but not into cells."""
    for child in parent:
        if child.tag == tag:
            yield child
        elif child.tag not in (f"{_W}tc", f"{_W}tbl", *_SKIPPED):
            yield from _within(child, tag)


def _cells(row: Element, above: list[str]) -> list[str]:
    """A text for every column: a cell that goes on from above repeats it, one over two columns is followed by ''."""
    cells: list[str] = []
    for cell in _within(row, f"{_W}tc"):
        merged = cell.find(f"{_W}tcPr/{_W}vMerge")
        goes_on = merged is not None and _get(merged, "val") in ("", "continue")
        at = len(cells)
        cells.append(above[at] if goes_on and at < len(above) else squeeze("".join(_texts(cell))))
        span = _value(cell, "tcPr", "gridSpan")
        cells += [""] * (min(int(span), 63) - 1 if span.isdigit() else 0)
    return cells


def _has_labels(table: Element, first: Element) -> bool:
    marked = first.find(f"{_W}trPr/{_W}tblHeader")
    if marked is not None:
        return _get(marked, "val") not in _OFF
    look = table.find(f"{_W}tblPr/{_W}tblLook")
    if look is None:
        return True
    bits = _get(look, "val")
    old = bool(int(bits, 16) & 0x20) if re.fullmatch(r"[0-9A-Fa-f]{4}", bits) else True
    return _get(look, "firstRow") not in _OFF if _get(look, "firstRow") else old
