"""Stage: what reaches the caller. A sentence leaves only after its check; unsupported ones stay.

`quote`: the best quote stands in when no sentence of the model's was supported; `refuse`: the refusal does;
`flag`: everything leaves at once, and the answer says which sentences have no support.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from proveout.domain import Citation, Finish, Outcome, Passage, Support, Text, Usage, Verdict
from proveout.guard.support import SupportCheck
from proveout.language import SentenceStream
from proveout.retrieval.cite import MAX_WORDS
from proveout.serving.call import Answer, Call, Piece, Rooms
from proveout.serving.generate import generate

REFUSAL = "I could not find an answer to this in the sources that I may use."
_NOTHING = Finish("stop", Usage())


class Citations:
    """The sources of one answer, numbered from 1 in the order of their first use."""

    def __init__(self, passages: tuple[Passage, ...]) -> None:
        self._passages = passages
        self._found: dict[int, Citation] = {}

    def cite(self, index: int, quote: str) -> Citation:
        """The citation of passage `index`; its quote is that of its first use."""
        if index not in self._found:
            passage = self._passages[index]
            words = quote.split(" ")
            self._found[index] = Citation(
                number=len(self._found) + 1,
                document=passage.document,
                title=passage.title,
                place=passage.place,
                quote=quote if len(words) <= MAX_WORDS else " ".join(words[:MAX_WORDS]),
                chunk=passage.chunk,
            )
        return self._found[index]

    @property
    def all(self) -> tuple[Citation, ...]:
        return tuple(self._found.values())


async def deliver(call: Call, rooms: Rooms) -> AsyncGenerator[Piece, None]:
    """Pieces of at most one sentence, then the Answer."""
    if not call.has_knowledge:
        way = _plain(call, rooms)
    elif not call.answerable:
        way = _refuse(call, _NOTHING)
    else:
        way = _grounded(call, rooms)
    async with aclosing(way) as pieces:
        async for piece in pieces:
            yield piece


async def _plain(call: Call, rooms: Rooms) -> AsyncGenerator[Piece, None]:
    """An app without knowledge, or a direct model: as the model says it."""
    async with aclosing(generate(call, rooms)) as events:
        async for event in events:
            if isinstance(event, Text):
                yield event
            else:
                yield Answer(event.reason, event.usage)


async def _refuse(call: Call, finish: Finish) -> AsyncGenerator[Piece, None]:
    yield Text(REFUSAL)
    yield Answer(finish.reason, finish.usage, Outcome.REFUSED, passages=call.passages)


async def _grounded(call: Call, rooms: Rooms) -> AsyncGenerator[Piece, None]:
    assert call.release is not None
    otherwise = call.release.manifest.otherwise
    check, citations = SupportCheck(rooms.embed), Citations(call.passages)
    verdicts: list[Verdict] = []
    released = 0
    finish = _NOTHING
    async with aclosing(_sentences(call, rooms)) as sentences:
        async for sentence in sentences:
            if isinstance(sentence, Finish):
                finish = sentence
                continue
            support = await check.check(sentence, call.passages)
            if support.supported or otherwise == "flag":
                yield Text(_cited(sentence, support, citations))
                released += len(sentence)
                verdicts += [] if support.supported else [_flagged(support, released)]
    if released:
        yield Answer(
            finish.reason,
            finish.usage,
            citations=citations.all,
            grounded=not verdicts,
            passages=call.passages,
            verdicts=tuple(verdicts),
        )
    else:
        async with aclosing(_instead(call, citations, finish)) as pieces:
            async for piece in pieces:
                yield piece


async def _instead(call: Call, citations: Citations, finish: Finish) -> AsyncGenerator[Piece, None]:
    """No sentence of the model's was supported: the best quote, or the refusal."""
    assert call.release is not None
    best = call.quote
    if call.release.manifest.otherwise == "refuse" or best is None:
        async for piece in _refuse(call, finish):
            yield piece
        return
    citation = citations.cite(best.passage, best.text)
    stream = SentenceStream()
    for sentence in [*stream.feed(best.text + f" [{citation.number}]"), *stream.close()]:
        yield Text(sentence)
    yield Answer("stop", finish.usage, citations=citations.all, grounded=True, quoted=True, passages=call.passages)


async def _sentences(call: Call, rooms: Rooms) -> AsyncGenerator[str | Finish, None]:
    """The model's words in sentences, each with the space after it, then the end."""
    stream = SentenceStream()
    async with aclosing(generate(call, rooms)) as events:
        async for event in events:
            if isinstance(event, Text):
                for sentence in stream.feed(event.text):
                    yield sentence
            else:
                for sentence in stream.close():
                    yield sentence
                yield event


def _cited(sentence: str, support: Support, citations: Citations) -> str:
    """The sentence with its source's number, before the space that follows it."""
    if not support.supported or support.passage is None:
        return sentence
    text = sentence.rstrip()
    number = citations.cite(support.passage, text).number
    return f"{text} [{number}]{sentence[len(text) :]}"


def _flagged(support: Support, end: int) -> Verdict:
    span = (end - len(support.text), end)
    return Verdict("groundedness", "flag", "no source supports this sentence", support.score, (span,))
