"""What an answer took: time in milliseconds, tokens, USD. None where it was not measured."""

from __future__ import annotations

from proveout.evals.cases import Case
from proveout.evals.scorers.delivered import Delivered


def ttft_ms(case: Case, delivered: Delivered) -> float | None:
    """Until the first token."""
    return delivered.first_token_ms


def per_token_ms(case: Case, delivered: Delivered) -> float | None:
    """From one token to the next, the mean; None for answers of fewer than two tokens."""
    more = delivered.usage.completion_tokens - 1
    if delivered.first_token_ms is None or more < 1:
        return None
    return max(delivered.total_ms - delivered.first_token_ms, 0.0) / more


def total_ms(case: Case, delivered: Delivered) -> float | None:
    """Until the end of the answer."""
    return delivered.total_ms


def tokens(case: Case, delivered: Delivered) -> float | None:
    """Of the prompt and the answer; 0 where no model was asked, None where one answered and told no usage."""
    used = delivered.usage.prompt_tokens + delivered.usage.completion_tokens
    return float(used) if used or delivered.first_token_ms is None else None


def cost(case: Case, delivered: Delivered) -> float | None:
    """USD."""
    return delivered.cost
