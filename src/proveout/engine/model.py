"""What every model is to the rest of the product: one callable shape."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from proveout.domain import Event, Prompt


class Model(Protocol):
    """A language model, wherever it runs.

    `generate` yields `Text` pieces as they come and, last, exactly one `Finish`; a stream without it is not
    whole, and `generate` never ends without it: it raises. Errors: `Unavailable` (busy or away; retry or
    fall back), `UpstreamFailed` (no answer), `Truncated` (text was sent, and there is no rest),
    `InvalidInput` (the prompt cannot be taken, by no retry either). Closing the generator (`aclose()`, or
    leaving `contextlib.aclosing`) stops the generation at once, also upstream.
    """

    def generate(self, prompt: Prompt) -> AsyncGenerator[Event, None]: ...
