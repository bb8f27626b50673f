"""HTML -> blocks, without the page's furniture: navigation, banners, footers, scripts, forms."""

from __future__ import annotations

import re
from collections.abc import Mapping

from selectolax.lexbor import LexborHTMLParser, LexborNode

from proveout.errors import InvalidInput
from proveout.retrieval.outline import Outline, decode, squeeze

MAX_NODES = 1_000_000

_NOISE = (
    "script, style, noscript, template, svg, nav, aside, form, button, iframe, dialog, [hidden],"
    "[aria-hidden=true], [role=navigation], [role=banner], [role=contentinfo], [role=search],"
    "[role=complementary]"
)
_NOISY_NAME = re.compile(
    r"(?:^|[\s_-])(?:nav|navbar|navigation|menu|breadcrumbs?|cookies?|sidebar|footer|skip|share|toc)(?:$|[\s_-])",
    re.IGNORECASE,
)
_BREAKING_TAGS = """
address article blockquote dd details div dl dt fieldset figcaption figure footer h1 h2 h3 h4 h5 h6 header hr html
body li main ol p pre section summary table tbody tfoot thead tr ul caption
"""
_BREAKING = frozenset(_BREAKING_TAGS.split())


def read_html(data: bytes, outline: Outline) -> Mapping[str, object]:
    """Add a page's blocks to the outline; there is no metadata."""
    tree = LexborHTMLParser(decode(data))
    title = tree.css_first("title")
    for node in tree.css(_NOISE):
        node.decompose()
    for node in tree.css("[class], [id]"):
        marks = f"{node.attributes.get('class') or ''} {node.attributes.get('id') or ''}"
        if node.tag in ("div", "ul", "section", "p", "a", "ol") and _NOISY_NAME.search(marks):
            node.decompose()
    main = tree.css_first("main, [role=main]")
    articles = tree.css("article")
    if main is None and len(articles) == 1:
        main = articles[0]
    if main is None:
        for node in tree.css("body > header, body > footer, body > div > header, body > div > footer"):
            node.decompose()
    root = main or tree.body
    if root is not None:
        _Walk(outline).run(root)
    if not outline.title and title:
        outline.title = squeeze(re.split(r"\s[|–—·]\s", title.text())[0])
    return {}


class _Walk:
    """Depth first with a stack of our own: nesting may be hostile."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.line: list[str] = []
        self.counters: list[int] = []  # per open list: the next number, 0 in an unordered one
        self.marker = ""  # of an item whose text has not come yet
        self.inside_items = 0

    def run(self, root: LexborNode) -> None:
        todo: list[tuple[LexborNode, bool]] = [(root, False)]
        for _ in range(MAX_NODES):
            if not todo:
                self.flush()
                return
            node, leaving = todo.pop()
            if leaving:
                self.leave(node.tag or "")
            elif self.enter(node):
                todo.append((node, True))
                todo.extend((child, False) for child in reversed(list(node.iter(include_text=True))))
        raise InvalidInput(f"the page has more than {MAX_NODES:,} elements; split it")

    def enter(self, node: LexborNode) -> bool:
        """Whether the children are still to be read."""
        tag = node.tag or ""
        if tag == "-text":
            self.line.append(node.text_content or "")
        elif tag == "br":
            self.line.append(" ")
        elif tag == "table" and node.css_first("table table") is None:
            self.flush()
            _table(node, self.outline)
        elif re.fullmatch("h[1-6]", tag):
            self.flush()
            self.outline.heading(int(tag[1]), node.text())
        elif tag == "pre":
            self.flush()
            self.outline.add(node.text().strip("\n"), "code")
        elif tag and tag[0] not in "-_!":
            self.open(node, tag)
            return True
        return False

    def open(self, node: LexborNode, tag: str) -> None:
        if tag in _BREAKING:
            self.flush()
        if tag in ("ol", "ul"):
            start = (node.attributes.get("start") or "1")[:6]
            self.counters.append((int(start) if start.isdigit() else 1) if tag == "ol" else 0)
        elif tag == "li":
            number = self.counters[-1] if self.counters else 0
            self.marker = f"{number}. " if number else "- "
            self.inside_items += 1
            if number:
                self.counters[-1] += 1

    def leave(self, tag: str) -> None:
        if tag in _BREAKING:
            self.flush()
        if tag in ("ol", "ul"):
            self.counters.pop()
        elif tag == "li":
            self.inside_items -= 1

    def flush(self) -> None:
        if text := squeeze("".join(self.line)):
            self.outline.add(self.marker + text, "item" if self.inside_items else "paragraph")
            self.marker = ""
        self.line.clear()


def _table(table: LexborNode, outline: Outline) -> None:
    labels: list[str] = []
    for caption in table.css("caption"):
        outline.add(squeeze(caption.text()))
    for number, row in enumerate(table.css("tr")):
        cells = [squeeze(cell.text(separator=" ")) for cell in row.css("th, td")]
        if number == 0 and (row.css_first("td") is None or table.css_first("th") is None):
            labels = cells
        else:
            outline.row(labels, cells)


def read_fragment(html: str, outline: Outline) -> None:
    """Add the blocks of a piece of HTML, as it stands in Markdown."""
    body = LexborHTMLParser(html).body
    if body is not None:
        for node in body.css(_NOISE):
            node.decompose()
        _Walk(outline).run(body)
