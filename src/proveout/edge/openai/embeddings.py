"""`POST /v1/embeddings`."""

from __future__ import annotations

import base64
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from proveout.domain import Message
from proveout.edge.openai.endpoint import serve_whole
from proveout.edge.openai.wire import Said
from proveout.errors import InvalidInput
from proveout.serving.call import Answer, Asked

MAX_TEXTS = 2_048  # as in OpenAI's protocol


class EmbeddingRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body. Without a model the embedded encoder is meant."""

    input: str | list[Any]
    model: str = "local/all-minilm-l6-v2"
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: Any = None

    def asked(self) -> Asked:
        """Raises InvalidInput naming the field that cannot be served."""
        texts = [self.input] if isinstance(self.input, str) else self.input
        if not 1 <= len(texts) <= MAX_TEXTS:
            raise InvalidInput(f"input: between 1 and {MAX_TEXTS} texts are served at a time.")
        if not all(isinstance(text, str) for text in texts):
            raise InvalidInput("input: send texts, not tokens, which mean something else to every model.")
        options = {} if self.dimensions is None else {"dimensions": self.dimensions}
        return Asked(self.model, tuple(Message("user", text) for text in texts), options=options, embed=True)

    def answered(self, said: Said, answer: Answer) -> dict[str, Any]:
        """The list of vectors, in the order of the texts."""
        assert answer.vectors is not None  # the end of every call that asked for them has them
        rows = answer.vectors.astype("<f4")
        vectors: list[Any] = (
            [base64.b64encode(row.tobytes()).decode() for row in rows]
            if self.encoding_format == "base64"
            else rows.tolist()
        )
        tokens = answer.usage.prompt_tokens
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": n, "embedding": v} for n, v in enumerate(vectors)],
            "model": self.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


async def embeddings(request: Request) -> Response:
    """`POST /v1/embeddings`: the vectors of texts."""
    return await serve_whole(request, EmbeddingRequest, EmbeddingRequest.asked, EmbeddingRequest.answered)
