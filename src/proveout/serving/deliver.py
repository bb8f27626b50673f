"""Stage: what reaches the caller. A sentence leaves only after its check; unsupported ones stay.

`quote`: the best quotes follow, as far as the supported sentences do not say it already; `refuse`: the refusal stands
in when no sentence was supported; `flag`: everything leaves at once, and the answer says what has no support.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from proveout.domain import Citation, Finish, Outcome, Passage, Support, Text, Usage, Verdict
from proveout.guard.support import SupportCheck, adds, covered
from proveout.language import SentenceStream, sentences
from proveout.retrieval.cite import MAX_WORDS
from proveout.serving.call import Answer, Call, Piece, Rooms
from proveout.serving.generate import generate
from proveout.serving.retrieve import ANSWER_WORDS

REFUSAL = "I could not find an answer to this in the sources that I may use."
NO_SUPPORT = "no source supports this sentence"
_NOTHING = Finish("stop", Usage())
_ENDED = re.compile(r"[.!?:][\"'”’)\]]*\s*$")


class Citations:
    """The sources of one answer, numbered from 1 in the order of their first use."""

    def __init__(self, passages: tuple[Passage, ...]) -> None:
        self._passages = passages
        self._found: dict[int, Citation] = {}

    def cite(self, index: int, quote: str) -> Citation:
        """The citation of passage `index`; its quote, words of that passage, is that of its first use."""
        if index not in self._found:
            passage = self._passages[index]
            self._found[index] = Citation(
                number=len(self._found) + 1,
                document=passage.document,
                title=passage.title,
                place=passage.place,
                quote=" ".join(quote.split(" ")[:MAX_WORDS]),
                chunk=passage.chunk,
            )
        return self._found[index]

    @property
    def all(self) -> tuple[Citation, ...]:
        return tuple(self._found.values())


async def deliver(call: Call, rooms: Rooms) -> AsyncGenerator[Piece, None]:
    """Pieces of at most one sentence, then the Answer."""
    if call.asked.embed:
        way = _vectors(call, rooms)
    elif not call.has_knowledge:
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
            if isinstance(event, Finish):
                outcome = Outcome.REFUSED if event.reason == "content_filter" else Outcome.ANSWERED
                yield Answer(event.reason, event.usage, outcome, served_by=event.served_by)
            else:
                yield event


async def _vectors(call: Call, rooms: Rooms) -> AsyncGenerator[Piece, None]:
    """No words: the vectors of the messages come with the end."""
    model, name = rooms.catalogue.embedder(call.models[0].name)
    rows, finish = await model.vectors([m.content for m in call.asked.messages], name, call.asked.options)
    yield Answer(finish.reason, finish.usage, served_by=finish.served_by, vectors=rows)


async def _refuse(call: Call, finish: Finish) -> AsyncGenerator[Piece, None]:
    yield Text(REFUSAL)
    yield Answer(finish.reason, finish.usage, Outcome.REFUSED, passages=call.passages, served_by=finish.served_by)


async def _grounded(call: Call, rooms: Rooms) -> AsyncGenerator[Piece, None]:
    assert call.release is not None
    otherwise = call.release.manifest.otherwise
    check, citations = SupportCheck(rooms.embed), Citations(call.passages)
    verdicts: list[Verdict] = []
    released = ""
    finish = _NOTHING
    async with aclosing(_sentences(call, rooms)) as sentences:
        async for sentence in sentences:
            if isinstance(sentence, Finish):
                finish = sentence
                continue
            support = await check.check(sentence, call.passages)
            if otherwise != "flag" and not (support.supported and _is_news(sentence, released, call)):
                call.progress.withheld += [] if support.supported else [_withheld(support)]
                continue
            piece = _cited(sentence, support, citations)
            released += piece
            verdicts += [] if support.supported else [_flagged(support, len(released))]
            yield Text(piece)
    said = released
    if otherwise == "quote":
        for piece in _quotes(call, said, citations):
            released += piece
            yield Text(piece)
    if not released:
        async for end in _refuse(call, finish):
            yield end
        return
    yield Answer(
        finish.reason if released == said else "stop",  # quotes make an answer whole that the model left open
        finish.usage,
        citations=citations.all,
        grounded=not verdicts,
        quoted=not said,
        passages=call.passages,
        verdicts=tuple(verdicts),
        served_by=finish.served_by,
    )


def _is_news(sentence: str, released: str, call: Call) -> bool:
    """Weak models repeat the question, and themselves."""
    return sentence.strip() not in released and adds(sentence, call.asked.question)


def _quotes(call: Call, released: str, citations: Citations) -> Iterator[str]:
    """What the best quotes say that the answer does not yet say, sentence by sentence, while there is room."""
    for quote in call.quotes:
        news = _news(quote.text, released)
        if not news or len(f"{released} {news}".split()) >= ANSWER_WORDS:
            continue
        citation = citations.cite(quote.passage, news)
        text = f"{news} [{citation.number}]"
        if released:
            text = ("" if released[-1].isspace() else "\n\n") + text
        released += text
        stream = SentenceStream()
        yield from (*stream.feed(text), *stream.close())


def _news(quote: str, released: str) -> str:
    """The stretch of a quote from the first sentence to the last that the answer does not say yet, as it stands."""
    if covered(quote, released):
        return ""
    new = [sentence for sentence in sentences(quote) if not covered(sentence.text, released)]
    return quote[new[0].start : new[-1].end] if new else ""


async def _sentences(call: Call, rooms: Rooms) -> AsyncGenerator[str | Finish, None]:
    """The model's words in sentences, each with the space after it, then the end."""
    stream = SentenceStream()
    async with aclosing(generate(call, rooms)) as events:
        async for event in events:
            if isinstance(event, Text):
                for sentence in stream.feed(event.text):
                    yield sentence
            elif isinstance(event, Finish):
                rest = stream.close()
                if event.reason in ("length", "content_filter") and rest and not _ENDED.search(rest[-1]):
                    rest.pop()  # the model was cut off in the middle of it
                for sentence in rest:
                    yield sentence
                yield event


def _cited(sentence: str, support: Support, citations: Citations) -> str:
    """The sentence with its source's number, before the space that follows it."""
    if not support.supported or support.passage is None:
        return sentence
    text = sentence.rstrip()
    number = citations.cite(support.passage, support.source).number
    return f"{text} [{number}]{sentence[len(text) :]}"


def _withheld(support: Support) -> Verdict:
    return Verdict("groundedness", "block", NO_SUPPORT, support.score)


def _flagged(support: Support, end: int) -> Verdict:
    span = (end - len(support.text), end)
    return Verdict("groundedness", "flag", NO_SUPPORT, support.score, (span,))
