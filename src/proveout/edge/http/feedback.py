"""The control plane's feedback: what people, or systems downstream, made of an answer."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from proveout.access import keys
from proveout.domain import Principal, Right
from proveout.edge.http.requests import gateway, principal
from proveout.evals import feedback

router = APIRouter(prefix="/api/v1")
Caller = Annotated[Principal, Depends(principal)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]


class Feedback(BaseModel):
    """On one request: a score, a thumb, words, or what came of it (`solved`, `minutes`, `escalated`, an own KPI)."""

    model_config = ConfigDict(extra="forbid")

    request: str = Field(min_length=1, max_length=100)
    score: float | None = Field(default=None, ge=0, le=1)
    thumb: Literal["up", "down"] | None = None
    comment: str | None = Field(default=None, max_length=10_000)
    correction: str | None = Field(default=None, max_length=100_000)
    outcome: Name | dict[Name, Number] = Field(default_factory=dict, max_length=50)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.outcome and all(x is None for x in (self.score, self.thumb, self.comment, self.correction)):
            raise ValueError("say something: a score, a thumb, a comment, a correction or an outcome")
        if self.score is not None and self.thumb is not None:
            raise ValueError("give a score or a thumb, not both")
        return self


@router.post("/feedback", status_code=201)
async def give_feedback(request: Request, caller: Caller, body: Feedback) -> dict[str, str]:
    """Says what an answer was worth, `score` from 0 to 1 or `thumb`. What is left out stays as it was said before.

    Comment and correction are sealed under the key of whoever asked. `outcome` is a name (`solved`) or numbers by name.
    """
    here = gateway(request)
    outcome = {body.outcome: 1.0} if isinstance(body.outcome, str) else body.outcome
    thumb = None if body.thumb is None else body.thumb == "up"
    given = feedback.Feedback(body.request, body.score, thumb, body.comment, body.correction, outcome)
    await feedback.give(here.store, here.keyring, caller, given)
    return {"request": body.request}


@router.get("/feedback/{number}")
async def show_feedback(request: Request, caller: Caller, number: str) -> dict[str, Any]:
    """What was said of a request; comment and correction for holders of `requests:replay`, on record as opened."""
    keys.require(caller, Right.REQUESTS_READ)
    here = gateway(request)
    return await feedback.show(here.store, here.keyring, caller, number)
