"""Golden questions: JSON lines, each with what a correct answer must say and where it stands."""

from __future__ import annotations

from typing import Annotated

import msgspec

from proveout.errors import InvalidInput

Fact = str | list[str]
"""A string that must stand in the answer, or a list of strings of which one must."""


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One golden question, asked by somebody in `groups`.

    `documents` of an unanswerable question hold its answer, but the asker may not read them.
    """

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    question: Annotated[str, msgspec.Meta(min_length=1)]
    facts: list[Fact] = []
    documents: list[str] = []
    tags: list[str] = []
    groups: list[str] = []
    unanswerable: bool = False


def read_golden(text: str, file: str) -> list[Case]:
    """The cases of a data set. Raises InvalidInput with the file and line of every mistake."""
    cases: list[Case] = []
    problems: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            case = msgspec.json.decode(line, type=Case)
        except msgspec.DecodeError as error:
            problems.append(f"{file}:{number}: {error}")
            continue
        if case.id in seen:
            problems.append(f"{file}:{number}: the id {case.id!r} stands twice: ids are unique")
        if case.unanswerable == bool(case.facts):
            problems.append(f"{file}:{number}: give `facts`, or `unanswerable: true`, not both and not neither")
        seen.add(case.id)
        cases.append(case)
    if problems:
        raise InvalidInput("\n".join(problems))
    return cases
