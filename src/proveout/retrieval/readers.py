"""Who may read a document: marks, the path rules of a folder, and what a document's front matter says.

A mark is `everyone` (of the workspace), `group:NAME` or `user:NAME`; no marks at all: nobody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from proveout.domain import EVERYONE
from proveout.errors import InvalidInput

_MARK = re.compile(r"(?:user|group):\S(?:.{0,198}\S)?")
_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|.", re.DOTALL)
_GLOBS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_MAX_MARKS = 1_000

Rules = Mapping[str, Sequence[str]]
"""Patterns of paths -> the marks of who may read what they match. `*` stays in a folder, `**` crosses folders."""


def check_readers(given: object) -> tuple[str, ...]:
    """The marks in order, each once; one mark may come alone. Raises InvalidInput."""
    marks = [given] if isinstance(given, str) else given
    if not isinstance(marks, list | tuple) or len(marks) > _MAX_MARKS:
        raise InvalidInput(f"readers: a list of at most {_MAX_MARKS} marks is needed, such as [group:hr]")
    for mark in marks:
        if not isinstance(mark, str) or (mark != EVERYONE and not _MARK.fullmatch(mark)):
            raise InvalidInput(f"readers: {mark!r} is not {EVERYONE}, group:NAME or user:NAME")
    return tuple(sorted(set(marks)))


def matches(pattern: str, path: str) -> bool:
    """Whether a rule's pattern is for the document at `path`, relative to the folder."""
    return _regex(pattern).fullmatch(path) is not None


def by_rules(rules: Rules, path: str) -> tuple[str, ...]:
    """Who may read the document at `path`: the longest pattern that matches decides, else everyone."""
    found = [pattern for pattern in rules if matches(pattern, path)]
    return check_readers(rules[max(found, key=lambda p: (len(p), p))]) if found else (EVERYONE,)


def front_matter(name: str, metadata: Mapping[str, object], otherwise: tuple[str, ...]) -> tuple[str, ...]:
    """Who may read a document as its front matter says, else `otherwise`. Raises InvalidInput."""
    if "readers" not in metadata:
        return otherwise
    try:
        return check_readers(metadata["readers"] or ())
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}") from None


@lru_cache(maxsize=1024)
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(_GLOBS.get(t) or re.escape(t) for t in _TOKENS.findall(pattern)), re.DOTALL)
