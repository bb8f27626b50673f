"""Vectors of texts that were embedded before: the sentences of a passage are looked at again with every question."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from proveout.retrieval.cite import Embed

_KEPT = 8_192  # vectors: 13 MB of 384 dimensions


class Remembered:
    """An `Embed` that asks another one only for what it has not seen lately. Keeps hashes and vectors, never text."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._vectors: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()

    async def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit vectors [n, d] in the order of `texts`. Raises as the other one does."""
        keys = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
        found = {key: self._vectors[key] for key in keys if key in self._vectors}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            rows = await self._embed(list(missing.values()))
            found.update({key: row.copy() for key, row in zip(missing, rows, strict=True)})
        for key, vector in found.items():
            self._vectors[key] = vector
            self._vectors.move_to_end(key)
        while len(self._vectors) > _KEPT:
            self._vectors.popitem(last=False)
        return np.stack([found[key] for key in keys]) if keys else await self._embed([])
