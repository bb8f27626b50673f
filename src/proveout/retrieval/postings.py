"""The lexical index: one packed row of postings a term, and BM25 over them.

Text is sealed at rest, so a term is stored as a keyed 64-bit hash (BLAKE2b). A row is the ordinals of the texts
that hold the term (uint32, ascending) followed by their term frequencies in halves (uint16), little-endian.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from proveout.language import content_words

Row = tuple[NDArray[np.int64], NDArray[np.uint16]]
"""Where a term stands: ordinals of texts, and how many half times in each."""

K1, B = 0.9, 0.4  # the settings of Anserini's BM25 baselines
VERSION = "bm25-2"
_HALVES = 2  # frequencies are stored in halves, for a word beside a text counts half


@dataclass(frozen=True, slots=True)
class Index:
    """`rows`: term -> postings. `lengths`: content words of each text, float32 [count]."""

    rows: Mapping[int, bytes]
    lengths: NDArray[np.float32]


@lru_cache(maxsize=65536)
def _hash(word: str, key: bytes) -> int:
    return int.from_bytes(blake2b(word.encode(), key=key, digest_size=8).digest(), "big", signed=True)


def terms(text: str, key: bytes) -> Counter[int]:
    """The hashed content words of a text with their frequencies; signed, as Postgres's bigint. Key: ≤ 64 bytes."""
    return Counter(_hash(word, key) for word in content_words(text))


def build(texts: Sequence[str], key: bytes, beside: Sequence[Sequence[str]] = ()) -> Index:
    """Index texts; a text's ordinal is its place in the sequence.

    A word in what stands `beside` a text (the chunks before and after it) counts half a word in it, as a field of
    weight 0.5 in BM25F (Robertson, Zaragoza, Taylor 2004): an answer's words are often spread over a cut.
    """
    ordinals: dict[int, list[int]] = defaultdict(list)
    frequencies: dict[int, list[int]] = defaultdict(list)
    lengths = np.zeros(len(texts), np.float32)
    for ordinal, text in enumerate(texts):
        found = Counter({term: _HALVES * count for term, count in terms(text, key).items()})
        for neighbour in beside[ordinal] if beside else ():
            found.update(terms(neighbour, key))
        lengths[ordinal] = found.total() / _HALVES
        for term, frequency in found.items():
            ordinals[term].append(ordinal)
            frequencies[term].append(min(frequency, 0xFFFF))
    return Index({term: pack(ordinals[term], frequencies[term]) for term in ordinals}, lengths)


def pack(ordinals: Sequence[int] | NDArray[np.int64], frequencies: Sequence[int] | NDArray[np.uint16]) -> bytes:
    """One row of postings as bytes."""
    return np.asarray(ordinals, "<u4").tobytes() + np.asarray(frequencies, "<u2").tobytes()


def unpack(row: bytes) -> Row:
    """Ordinals and frequencies of a row."""
    count = len(row) // 6
    return np.frombuffer(row, "<u4", count).astype(np.int64), np.frombuffer(row, "<u2", count, offset=4 * count)


def score(
    query_terms: Iterable[int],
    rows: Mapping[int, Sequence[Row]],
    lengths: NDArray[np.float32],
    live: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """BM25 of every text, float32 [count], as a share in [0, 1] of what the query could reach; 0 where not `live`.

    Robertson & Zaragoza (2009) with Lucene's idf, divided by its bound Σ idf·(k1 + 1) over *all* query terms (one
    that no text holds counts as the rarest): so 0.5 means the same for every query. The order is BM25's.
    """
    scores = np.zeros(len(lengths), np.float32)
    count = int(np.count_nonzero(live))
    bound = 0.0
    norms = K1 * (1 - B + B * lengths / max(float(lengths[live].mean()) if count else 0.0, 1e-9))
    for term in set(query_terms):
        pieces = [(o[live[o]], f[live[o]]) for o, f in rows.get(term, ())]
        held = sum(len(ordinals) for ordinals, _ in pieces)
        idf = math.log(1 + (count - held + 0.5) / (held + 0.5))
        bound += idf * (K1 + 1)
        for ordinals, frequencies in pieces:
            counts = frequencies / _HALVES
            scores[ordinals] += idf * (K1 + 1) * counts / (counts + norms[ordinals])
    return scores / bound if bound else scores
