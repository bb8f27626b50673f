"""The guards on their own, `/api/v1/guard`: for answers that were made elsewhere."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from proveout.domain import Passage, Principal
from proveout.edge.http.requests import gateway, principal
from proveout.errors import InvalidInput
from proveout.guard.support import SupportCheck

MAX_ANSWER = 10_000  # characters
MAX_PASSAGES = 100
MAX_TEXT = 100_000  # characters of all passages together

router = APIRouter(prefix="/api/v1/guard")


class Source(BaseModel):
    """A passage as the search gives it; what else it has is ignored."""

    text: str
    title: str = ""


class Claimed(BaseModel):
    """An answer, and the passages that it should rest on: texts, or objects with a `text`."""

    model_config = ConfigDict(extra="forbid")

    answer: str = Field(min_length=1, max_length=MAX_ANSWER)
    passages: list[str | Source] = Field(max_length=MAX_PASSAGES)


@router.post("/support")
async def support(request: Request, caller: Annotated[Principal, Depends(principal)], body: Claimed) -> dict[str, Any]:
    """Whether each sentence of an answer is supported by one of the passages, which may say it in other words.

    Of each sentence: `score` in [0, 1], at least 0.5 where it is supported, and `passage`, the place in `passages`
    (from 0) of the one that comes nearest, or null. The answer's `score` is that of its weakest sentence. Any key may
    ask.
    """
    sources = [Source(text=p) if isinstance(p, str) else p for p in body.passages]
    if sum(len(source.text) for source in sources) > MAX_TEXT:
        raise InvalidInput(f"passages: at most {MAX_TEXT} characters in all are checked at a time.")
    passages = [Passage("", "", source.title, (), source.text, 0, len(source.text)) for source in sources]
    found = await SupportCheck(gateway(request).rooms.embed).weigh(body.answer, passages)
    if not found:
        raise InvalidInput("answer: it says nothing that could be checked.")
    return {
        "score": min(s.score for s in found),
        "sentences": [
            {"text": s.text, "supported": s.supported, "score": s.score, "passage": s.passage} for s in found
        ],
    }
