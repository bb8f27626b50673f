"""What the words of an answer are held to: facts, exact text, numbers, patterns, a JSON Schema."""

from __future__ import annotations

import re

import msgspec

from proveout.engine.schema import validator
from proveout.evals.cases import Case, Fact
from proveout.evals.scorers.confined import Confined, ScorerFailed
from proveout.evals.scorers.delivered import Better, Delivered, Kind

FIRST_WORDS = 120  # of an answer must hold its facts: what comes later nobody reads
_NUMBER = re.compile(r"(?<![\w.])[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\d)")
_MARKS = re.compile(r"\[\d+\]")


def facts(case: Case, delivered: Delivered) -> float | None:
    """1 when every required fact stands in the answer's first 120 words, and no forbidden one anywhere in it."""
    if case.unanswerable or not (case.facts or case.forbidden):
        return None
    first = " ".join(delivered.text.split()[:FIRST_WORDS])
    return float(all(stands_in(fact, first) for fact in case.facts) and not says_forbidden(case, delivered))


def says_forbidden(case: Case, delivered: Delivered) -> bool:
    return any(stands_in(fact, delivered.text) for fact in case.forbidden)


def exact(case: Case, delivered: Delivered) -> float | None:
    """1 when the answer is this text; space, case, emphasis and citation marks do not count."""
    if case.exact is None:
        return None
    return float(_plain(_MARKS.sub("", delivered.text)) == _plain(case.exact))


def numeric(case: Case, delivered: Delivered) -> float | None:
    """1 when a number of the answer is as near to the expected one as the case demands."""
    if case.numeric is None:
        return None
    told = _NUMBER.findall(_MARKS.sub("", delivered.text))
    values = [float(number.replace(",", "").replace("−", "-")) for number in told]
    return float(any(abs(value - case.numeric.value) <= case.numeric.tolerance + 1e-9 for value in values))


def json_schema(case: Case, delivered: Delivered) -> float | None:
    """1 when the answer, out of its code fence if it stands in one, is JSON that conforms."""
    if case.json_schema is None:
        return None
    fenced = re.fullmatch(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", delivered.text, re.DOTALL)
    try:
        return float(validator(case.json_schema).is_valid(msgspec.json.decode(fenced[1] if fenced else delivered.text)))
    except (msgspec.DecodeError, RecursionError, ValueError):  # no JSON, or nested too deeply to be compared
        return 0.0


class Regex:
    """1 when the pattern is found in the answer. Patterns come with a bundle, and a bad one takes for ever: it is
    searched in a process of its own, and one that takes longer than a second is a mistake of the case."""

    name = "regex"
    kind: Kind = "binary"
    better: Better = "higher"
    _CODE = (
        "import re\ndef regex(case, delivered) -> bool:\n    return bool(re.search(case['regex'], delivered['text']))"
    )

    async def score(self, case: Case, delivered: Delivered) -> float | None:
        if case.regex is None:
            return None
        async with Confined(self._CODE, "regex", seconds=1) as child:
            try:
                found = await child.call("regex", {"regex": case.regex}, {"text": delivered.text})
            except ScorerFailed as error:
                raise ScorerFailed(f"{case.id}: regex: {case.regex!r}: {error.message}") from error
        return found


def stands_in(fact: Fact, text: str) -> bool:
    """Whether a fact stands in a text as whole words; of alternatives, one is enough."""
    if isinstance(fact, list):
        return any(stands_in(alternative, text) for alternative in fact)
    pattern = r"(?<!\w)" + re.escape(_plain(fact)) + r"(?!\w)"
    return re.search(pattern, _plain(text)) is not None


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[*_`]", "", text).casefold().replace("’", "'").split())
