"""Data sets: JSON lines, each a question or a conversation with what a correct answer must say and where it stands."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Annotated, Any, Literal

import msgspec

from proveout.domain import Message
from proveout.engine.schema import validator
from proveout.errors import InvalidInput

Fact = str | list[str]
"""A string that must stand in the answer, or a list of strings of which one must."""

Origin = Literal["hand", "traffic", "feedback", "documents", "import"]


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, msgspec.Meta(min_length=1)]


class Numeric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number that the answer must hold, at most `tolerance` away."""

    value: float
    tolerance: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One question, asked by somebody in `groups`, or a conversation that ends with one.

    `documents` of an unanswerable question hold its answer, but the asker may not read them. A case that a person did
    not write counts only once somebody has `reviewed` it; until then it may lack what a correct answer says.
    """

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    question: str = ""
    facts: list[Fact] = []
    documents: list[str] = []
    tags: list[str] = []
    groups: list[str] = []
    unanswerable: bool = False
    conversation: list[Turn] = []
    forbidden: list[Fact] = []
    reference: str = ""
    exact: str | None = None
    numeric: Numeric | None = None
    regex: str | None = None
    json_schema: dict[str, Any] | None = None
    split: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_-]{0,62}$")] = "test"
    paraphrase_of: str | None = None
    origin: Origin = "hand"
    reviewed: str | None = None

    @property
    def asked(self) -> str:
        """The question that the answer is to."""
        return self.question or self.conversation[-1].content

    @property
    def messages(self) -> tuple[Message, ...]:
        """What is sent."""
        return tuple(Message(t.role, t.content) for t in self.conversation) or (Message("user", self.question),)

    @property
    def counts(self) -> bool:
        """Whether it may decide anything: a person stands behind it, and nothing was tuned or trained on it."""
        return self.split == "test" and (self.origin == "hand" or bool(self.reviewed))

    @property
    def demands(self) -> bool:
        """Whether it says what a correct answer holds."""
        given = (self.exact, self.numeric, self.regex, self.json_schema)
        return bool(self.facts or self.reference) or any(e is not None for e in given)


def read_cases(text: str, file: str) -> list[Case]:
    """The cases of a data set. Raises InvalidInput with the file and line of every mistake."""
    cases: list[Case] = []
    problems: list[str] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            case = msgspec.json.decode(line, type=Case)
        except msgspec.DecodeError as error:
            problems += [f"{file}:{number}: {mistake}" for mistake in _mistakes(line, error)]
            continue
        if case.id in lines:
            problems.append(f"{file}:{number}: the id {case.id!r} stands twice: ids are unique")
        lines[case.id] = number
        problems += [f"{file}:{number}: {mistake}" for mistake in _contradictions(case)]
        cases.append(case)
    for case in cases:
        if case.paraphrase_of is not None and (case.paraphrase_of not in lines or case.paraphrase_of == case.id):
            number = lines[case.id]
            problems.append(f"{file}:{number}: paraphrase_of: {case.paraphrase_of!r} is no other case of this data set")
    if problems:
        raise InvalidInput("\n".join(problems))
    return cases


def distinct(cases: Sequence[Case]) -> list[Case]:
    """The cases without those that ask what one before them asks, in the same groups: a copy shows nothing more."""
    first: dict[object, Case] = {}
    for case in cases:
        first.setdefault((case.messages, frozenset(case.groups)), case)
    return [*first.values()]


def write_cases(cases: Sequence[Case]) -> str:
    """The cases as `read_cases` reads them."""
    return "".join(msgspec.json.encode(case).decode() + "\n" for case in cases)


def digest(cases: Sequence[Case]) -> str:
    """The content address of a data set: neither the order of its cases nor that of their lists of names matters."""
    lines = []
    for case in cases:
        plain = msgspec.to_builtins(case)
        for names in ("documents", "tags", "groups"):
            if names in plain:
                plain[names] = sorted(plain[names])
        lines.append(json.dumps(plain, ensure_ascii=False, sort_keys=True, separators=(",", ":")))
    return "sha256:" + hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def deal(cases: Sequence[Case], shares: Mapping[str, float]) -> list[Case]:
    """The cases dealt to splits in these shares (they sum to 1), by a hash of their ids: a case that is added moves no
    other, and a paraphrase goes where its original is."""
    originals = {case.id: case.paraphrase_of for case in cases if case.paraphrase_of}
    dealt = []
    for case in cases:
        name, seen = case.id, set[str]()
        while name in originals and name not in seen:
            seen.add(name)
            name = originals[name]
        at = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) / 2**64
        ends = zip(shares, accumulate(shares.values()), strict=True)
        split = next((split for split, end in ends if at < end), [*shares][-1])
        dealt.append(msgspec.structs.replace(case, split=split))
    return dealt


# -- mistakes -------------------------------------------------------------------------------------


def _mistakes(line: str, error: msgspec.DecodeError) -> Iterator[str]:
    """All that is wrong in a line; msgspec itself stops at the first."""
    try:
        raw = msgspec.json.decode(line)
    except msgspec.DecodeError:
        raw = None
    if not isinstance(raw, dict):
        yield str(error)
        return
    fields = {field.name: field for field in msgspec.structs.fields(Case)}
    for key in raw.keys() - fields.keys():
        near = difflib.get_close_matches(key, fields, 1)
        yield f"unknown field `{key}`" + (f": did you mean `{near[0]}`?" if near else "")
    for name, field in fields.items():
        if name in raw:
            try:
                msgspec.convert(raw[name], field.type)
            except msgspec.ValidationError as wrong:
                yield f"{name}: {wrong}"
        elif field.required:
            yield f"`{name}` is missing"


def _contradictions(case: Case) -> Iterator[str]:
    for name, text in (("id", case.id), *(("tags", tag) for tag in case.tags)):
        if not text.isprintable():
            yield f"{name}: {text!r} holds a character that cannot be printed"
    if bool(case.question.strip()) == bool(case.conversation):
        yield "give `question`, or a `conversation`, not both and not neither"
    if case.conversation and case.conversation[-1].role != "user":
        yield "conversation: its last turn is the user's question"
    if case.unanswerable == case.demands and (case.counts or case.unanswerable):
        yield (
            "give `facts` (or a `reference`, `exact`, `numeric`, `regex` or `json_schema`), or `unanswerable: true`, "
            "not both and not neither"
        )
    for name, facts in (("facts", case.facts), ("forbidden", case.forbidden)):
        if any(not fact or (isinstance(fact, list) and not all(fact)) for fact in facts):
            yield f"{name}: an empty text stands in every answer"
    if case.regex is not None:
        try:
            re.compile(case.regex)
        except re.error as error:
            yield f"regex: {error}"
    if case.json_schema is not None:
        try:
            validator(case.json_schema)
        except InvalidInput as error:
            yield error.message
