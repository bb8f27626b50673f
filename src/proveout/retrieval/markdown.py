"""Markdown -> blocks: headings, paragraphs, list items, table rows with their labels, front matter."""

from __future__ import annotations

import re
from collections.abc import Mapping

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from proveout.errors import InvalidInput
from proveout.retrieval.html import read_fragment
from proveout.retrieval.outline import Outline, decode, squeeze

_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_MARKDOWN = MarkdownIt("commonmark", {"maxNesting": 50}).enable("table")


def read_markdown(data: bytes, outline: Outline) -> Mapping[str, object]:
    """Add a document's blocks to the outline; gives back its front matter."""
    text = decode(data)
    metadata: Mapping[str, object] = {}
    if front := _FRONT_MATTER.match(text):
        try:
            loaded = yaml.safe_load(front[1] or "")
        except yaml.YAMLError as error:
            raise InvalidInput(f"the front matter is not valid YAML ({squeeze(str(error))})") from None
        if isinstance(loaded, dict):
            metadata = {str(key): value for key, value in loaded.items()}
            text = text[front.end() :]
    _walk(_MARKDOWN.parse(text), outline)
    return metadata


def _walk(tokens: list[Token], outline: Outline) -> None:
    labels: list[str] = []
    cells: list[str] = []
    lists: list[list[int]] = []  # [next number or 0, paragraphs of the open item]
    for before, token in zip([None, *tokens], tokens, strict=False):
        opener = before.type if before else ""
        match token.type:
            case "bullet_list_open":
                lists.append([0, 0])
            case "ordered_list_open":
                lists.append([int(token.attrs.get("start", 1)), 0])
            case "bullet_list_close" | "ordered_list_close":
                lists.pop()
            case "list_item_open":
                lists[-1][1] = 0
            case "inline" if before and opener == "heading_open":
                outline.heading(int(before.tag[1]), _inline(token))
            case "inline" if opener in ("th_open", "td_open"):
                cells.append(_inline(token))
            case "inline" if lists:
                _item(_inline(token), lists, outline)
            case "inline":
                outline.add(_inline(token))
            case "tr_close" if not labels and cells:
                labels, cells = cells, []
            case "tr_close":
                outline.row(labels, cells)
                cells = []
            case "table_close":
                labels, cells = [], []
            case "fence" | "code_block":
                outline.add(token.content.strip("\n"), "code")
            case "html_block":
                read_fragment(token.content, outline)


def _item(text: str, lists: list[list[int]], outline: Outline) -> None:
    number, paragraphs = lists[-1]
    lists[-1][1] += 1
    if paragraphs:
        outline.add(text, "item")
        return
    lists[-1][0] += 1 if number else 0
    outline.add(f"{number}. {text}" if number else f"- {text}", "item")


def _inline(token: Token) -> str:
    parts = []
    for child in token.children or []:
        if child.type in ("text", "code_inline"):
            parts.append(child.content)
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif child.type == "image":
            parts.append(child.content)
    return squeeze("".join(parts))
