"""How a candidate is let in: `rollout:` of app.yaml, and the plan of a release."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from proveout.domain import Release

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _as_share(value: object) -> object:
    if isinstance(value, str) and (found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", value)):
        return float(found[1]) / 100
    if isinstance(value, int) and value == 1:
        raise ValueError("1 could be 1% or 100%: write which")
    return value


def _as_seconds(value: object) -> object:
    if isinstance(value, str) and (found := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([smhd])", value)):
        return float(found[1]) * _UNITS[found[2]]
    return value


Share = Annotated[
    float, Field(gt=0, le=1), BeforeValidator(_as_share, json_schema_input_type=float | str)
]  # 0.05 or 5%
Tolerated = Annotated[float, Field(ge=0, le=1), BeforeValidator(_as_share, json_schema_input_type=float | str)]
Seconds = Annotated[
    float, Field(gt=0, le=366 * 86_400), BeforeValidator(_as_seconds, json_schema_input_type=float | str)
]


class MinimumPart(_Part):
    """What each step must have seen."""

    calls: int = Field(
        default=100,
        ge=0,
        description="Calls of the candidate in each step. Holds back steps and promotion, never a rollback.",
    )


class MarginsPart(_Part):
    """How much worse a candidate may be and still count as no worse, when it is promoted."""

    bad_events: float = Field(default=0.02, gt=0, lt=1, description="In the rate of bad events.")
    scores: float = Field(default=0.05, gt=0, lt=1, description="In scores from 0 to 1.")
    latency: float = Field(
        default=0.05, gt=0, lt=1, description="In the share of answers slower than the stable release's p95."
    )


class TolerancePart(_Part):
    """How far above the stable release's own quantiles an answer's time, length or cost may lie: 0.1 or 10%."""

    latency: Tolerated = Field(default=0.1, description="Of times.")
    tokens: Tolerated = Field(default=0.2, description="Of the answer's length in tokens.")
    cost: Tolerated = Field(default=0.2, description="Of USD.")

    def of(self, amount: str) -> float:
        """Of an amount, as readings name it: first_text, total, tokens, cost."""
        return float(getattr(self, amount, self.latency))


class GuardrailsPart(_Part):
    """How much each guardrail's evidence weighs. They sum to 1 and are fixed when a rollout starts."""

    errors: float = Field(default=0.3, ge=0, le=1, description="Failed and truncated answers.")
    unsupported: float = Field(default=0.2, ge=0, le=1, description="Answers with words that no source supports.")
    latency: float = Field(default=0.2, ge=0, le=1, description="Slow first texts and slow answers.")
    rest: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Refusals, guards, tool errors, left answers, feedback, scores, judges, tokens, cost.",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(self.errors + self.unsupported + self.latency + self.rest - 1) > 1e-9:
            raise ValueError("the weights of guardrails sum to 1: give all four")
        return self


class PilotsPart(_Part):
    """Who gets a candidate first, whatever its weight. What they see does not decide the rollout: nobody drew them."""

    users: list[str] = Field(default_factory=list, description="Users, as clients name them or as keys are called.")
    groups: list[str] = Field(default_factory=list, description="Groups of keys.")
    share: Share = Field(default=1.0, description="The share of them: 0.5 or 50%.")


def _ascending(steps: list[float]) -> list[float]:
    steps = steps[:-1] if len(steps) > 1 and steps[-1] == 1 else steps  # all of it is the promotion
    if not steps or steps[-1] >= 1 or any(a >= b for a, b in pairwise(steps)):
        raise ValueError("steps rise, from more than 0% to less than 100%; after the last the candidate is promoted")
    return steps


class Plan(_Part):
    """How a candidate becomes the stable release of a stage. Changes no answer: a fact."""

    steps: Annotated[list[Share], Field(min_length=1, max_length=20)] = Field(
        default=[0.01, 0.05, 0.25, 0.5],
        description="The candidate's share of the traffic, step by step; after the last it is promoted.",
    )
    alpha: float = Field(
        default=0.01, gt=0, le=0.2, description="The chance that a sound candidate is rolled back, at most."
    )
    minimum: MinimumPart = Field(default=MinimumPart(), description="What each step must have seen.")
    seconds_per_step: float = Field(
        default=3600, ge=0, le=30 * 86_400, description="How long each step lasts at least."
    )
    deadline: Seconds = Field(
        default=14 * 86_400.0, description="When a rollout that was not promoted is aborted: seconds, or 90m, 36h, 14d."
    )
    margins: MarginsPart = Field(default=MarginsPart(), description="How much worse still counts as no worse.")
    tolerance: TolerancePart = Field(
        default=TolerancePart(), description="How much slower, longer or dearer is no harm."
    )
    guardrails: GuardrailsPart = Field(default=GuardrailsPart(), description="How much each kind of evidence weighs.")
    pilots: PilotsPart = Field(default=PilotsPart(), description="Who gets a candidate first, whatever its weight.")
    refresh: Literal["at_once", "by_steps"] = Field(
        default="at_once",
        description="How newer documents of followed knowledge enter a stage, once they have passed their gate.",
    )

    @model_validator(mode="after")
    def _rises(self) -> Self:
        object.__setattr__(self, "steps", _ascending(self.steps))
        return self


def plan_of(release: Release) -> Plan:
    """The plan that a release came with, or the default one."""
    return Plan.model_validate(release.facts.get("rollout") or {})
