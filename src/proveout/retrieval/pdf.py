"""PDF -> blocks with their pages. Lines are joined by geometry: a line was wrapped if the next word did not fit."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from statistics import median

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from proveout.errors import InvalidInput
from proveout.retrieval.outline import Outline, squeeze

MAX_PAGES = 2_000
MAX_PAGE_CHARACTERS = 60_000
HEADING_SCALE = 1.12  # a heading's letters are this much larger than the body's


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page: points from the page's lower left corner, `size` of its first letter."""

    text: str
    left: float
    right: float
    bottom: float
    size: float
    page: int

    @property
    def letter(self) -> float:
        """The mean width of a character."""
        return (self.right - self.left) / max(len(self.text), 1)


def read_pdf(data: bytes, outline: Outline) -> Mapping[str, object]:
    """Add a file's blocks to the outline; gives back its title if it names one."""
    try:
        document = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower():
            raise InvalidInput("the PDF is encrypted; save it without a password") from None
        raise InvalidInput("the PDF is broken and cannot be opened; export it again") from None
    try:
        if len(document) > MAX_PAGES:
            raise InvalidInput(f"the PDF has more than {MAX_PAGES:,} pages; split it")
        pages = [_lines(document, number) for number in range(len(document))]
        title = squeeze(document.get_metadata_value("Title"))
    except pdfium.PdfiumError:
        raise InvalidInput("the PDF is damaged and cannot be read to its end; export it again") from None
    finally:
        document.close()
    lines = _without_running(pages)
    if lines:
        _outline(lines, outline)
    outline.title = title if _is_title(title) else ""  # a large first line is as often a logo as a title
    return {}


def _is_title(title: str) -> bool:
    """Many PDFs carry a file's name, a program's or a placeholder as their title."""
    junk = re.search(r"\.\w{2,4}$|^microsoft|untitled|anonymous|^\W*$|unspecified", title, re.IGNORECASE)
    return junk is None and 2 <= len(title.split()) <= 20


def _lines(document: pdfium.PdfDocument, number: int) -> list[Line]:
    page = document[number]
    text_page = page.get_textpage()
    try:
        count = min(text_page.count_chars(), MAX_PAGE_CHARACTERS)
        text = text_page.get_text_range(0, count) if count else ""
        found = []
        for match in re.finditer(r"[^\r\n]+", text.replace("\ufffe", "\u00ad").replace("\0", " ")):
            if stripped := match[0].strip():
                first = match.start() + match[0].index(stripped[0])
                start, end = _box(text_page, first), _box(text_page, first + len(stripped) - 1)
                size = raw.FPDFText_GetFontSize(text_page, _index(text_page, first))
                height = max(start[3] - start[1], size if 4 < size < 60 else 0)
                found.append(Line(squeeze(stripped), start[0], end[2], start[1], round(height, 1), number + 1))
        return found
    finally:
        text_page.close()
        page.close()


def _index(text_page: pdfium.PdfTextPage, at: int) -> int:
    return max(int(raw.FPDFText_GetCharIndexFromTextIndex(text_page, at)), 0)


def _box(text_page: pdfium.PdfTextPage, at: int) -> tuple[float, float, float, float]:
    """Left, bottom, right, top of a character."""
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    raw.FPDFText_GetCharBox(text_page, _index(text_page, at), left, right, bottom, top)
    return left.value, bottom.value, right.value, top.value


def _without_running(pages: list[list[Line]]) -> list[Line]:
    """Drop what most pages repeat at their top or foot, and bare page numbers there."""

    def edge(page: list[Line]) -> list[Line]:
        return [*page[:2], *page[2:][-2:]]

    def key(line: Line) -> str:
        return re.sub(r"\d+", "#", line.text)

    seen = Counter(k for page in pages for k in {key(line) for line in edge(page)})
    running = {k for k, n in seen.items() if n >= max(3, len(pages) * 0.5)}
    numbers = re.compile(r"(?:page )?#(?: (?:of|/) #)?", re.IGNORECASE)
    return [
        line
        for page in pages
        for line in page
        if not (line in edge(page) and (key(line) in running or numbers.fullmatch(key(line))))
    ]


_BULLET = re.compile(r"[-*•▪◦●○■–\uf0b7]\s*(?=\S)|\d{1,2}[.)]\s+(?=\S)")


def _outline(lines: list[Line], outline: Outline) -> None:
    body = median(line.size for line in lines for _ in range(1 + len(line.text) // 20))
    margins = {page: max(line.right for line in lines if line.page == page) for page in {li.page for li in lines}}
    larger = sorted({line.size for line in lines if _is_heading(line, body)}, reverse=True)
    held: list[Line] = []
    for line, following in zip_longest(lines, lines[1:]):
        held.append(line)
        if following is None or not _goes_on(held, following, margins[line.page], body):
            text = _join([one.text for one in held])
            if _is_heading(held[0], body) and len(text) <= 120:
                outline.heading(min(larger.index(held[0].size) + 2, 6), text, line.page)  # none is the title
            elif bullet := _BULLET.match(text):
                marker = bullet[0].strip() if bullet[0][0].isdigit() else "-"
                outline.add(f"{marker} {text[bullet.end() :]}", "item", line.page)
            else:
                outline.add(text, "paragraph", line.page)
            held = []


def _is_heading(line: Line, body: float) -> bool:
    return line.size >= body * HEADING_SCALE and len(line.text) <= 90 and line.text[-1] not in ".,;"


def _goes_on(held: list[Line], following: Line, margin: float, body: float) -> bool:
    """Whether the next line belongs to the same paragraph (or heading, or bullet)."""
    line = held[-1]
    if line.page != following.page or _BULLET.match(following.text):
        return False
    if _is_heading(line, body) or _is_heading(following, body):
        return abs(line.size - following.size) < 0.5 and _is_heading(line, body) and len(held) < 3
    drop = line.bottom - following.bottom
    if not 0 < drop < 1.9 * max(line.size, following.size):
        return False
    first_word = following.text.split(None, 1)[0]
    return line.right + line.letter * (len(first_word) + 1) > margin - line.letter * 2


def _join(texts: list[str]) -> str:
    """Lines as one text; a word cut by a hyphen at a line's end is mended."""
    joined = texts[0]
    for text in texts[1:]:
        if re.search(r"[a-z]-$", joined) and text[:1].islower():
            joined = joined[:-1] + text
        else:
            joined += " " + text
    return squeeze(joined)
