"""A text is embedded once, and its vector is that of the encoder, wherever it stands among the others."""

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from proveout.retrieval import remembered
from proveout.retrieval.remembered import Remembered


class Encoder:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def __call__(self, texts: list[str]) -> NDArray[np.float32]:
        self.asked.append(texts)
        return np.array([[len(t), ord(t[0])] for t in texts], np.float32).reshape(len(texts), 2)


def test_only_new_texts_are_embedded_each_once() -> None:
    encoder = Encoder()
    embed = Remembered(encoder)
    assert asyncio.run(embed(["aa", "b", "aa"])).tolist() == [[2, 97], [1, 98], [2, 97]]
    assert asyncio.run(embed(["ccc", "b"])).tolist() == [[3, 99], [1, 98]]
    assert asyncio.run(embed(["b", "aa"])).tolist() == [[1, 98], [2, 97]]
    assert asyncio.run(embed([])).shape == (0, 2)
    assert encoder.asked == [["aa", "b"], ["ccc"], []]


def test_the_least_used_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "_KEPT", 2)
    encoder = Encoder()
    embed = Remembered(encoder)
    for texts in (["a"], ["b"], ["a"], ["c"], ["a"], ["b"]):
        asyncio.run(embed(texts))
    assert encoder.asked == [["a"], ["b"], ["c"], ["b"]]
