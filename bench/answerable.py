"""Trains what decides whether passages answer a question, and shows what it reaches on sources it was not trained on.

Four sources, questions with an answer and without: SQuAD 2.0 (its own unanswerable ones, and answerable ones whose
paragraph, or whose whole article, is taken out of the corpus), enterprise_hr (its out-of-scope ones, and those whose
document is taken out), SciFact (claims, with and without the abstracts that speak of them) and the example (its golden
questions, and those whose documents are taken out). The constants go into `guard/answerable.py` by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proveout.domain import Passage
from proveout.engine import weights
from proveout.engine.minilm import Encoder
from proveout.guard.answerable import FEATURES, features, headed
from proveout.language import content_words
from proveout.retrieval.chunk import chunks, index_text
from proveout.retrieval.cite import quotes
from proveout.retrieval.outline import Parsed
from proveout.retrieval.parse import parse, verbatim

ROOT = Path(__file__).parent.parent
RESTRICTED = ("finance-team", "people-team")  # folders of the example that not everyone may read
TOP = 6
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One question: its source, what kind of question of it, whether it has an answer, and the features."""

    source: str
    kind: str
    answerable: bool
    features: Floats


@dataclass(frozen=True)
class Asked:
    kind: str
    question: str
    without: frozenset[str] = frozenset()  # documents that are taken out; with any, it has no answer
    answerable: bool = True


class Corpus:
    """Hybrid search in memory, scored as `retrieval` scores: half cosine, half share of BM25's bound."""

    def __init__(self, encoder: Encoder, passages: Sequence[Passage]) -> None:
        self._encoder = encoder
        self._passages = passages
        texts = [index_text(p.title, p.headings, p.text) for p in passages]
        self._vectors = encoder.encode(texts)
        self._documents = np.array([p.document for p in passages])
        held = [content_words(t) for t in texts]
        self._lengths = np.array([len(h) for h in held], np.float64)
        self._postings: dict[str, dict[int, int]] = {}
        for number, stems in enumerate(held):
            for stem in stems:
                row = self._postings.setdefault(stem, {})
                row[number] = row.get(number, 0) + 1
        self._known: dict[str, NDArray[np.float32]] = {}

    def row(self, source: str, asked: Asked) -> Row:
        passages = self._search(asked)
        found = asyncio.run(quotes(asked.question, passages, self._embed))
        matches = self._encoder.matches(asked.question, [headed(passages[q.passage], q.text) for q in found])
        has_answer = asked.answerable and not asked.without
        return Row(source, asked.kind, has_answer, features(asked.question, passages, found, matches))

    def _search(self, asked: Asked) -> list[Passage]:
        count = len(self._passages)
        cosines = self._vectors @ self._encoder.encode([asked.question])[0]
        lexical, bound = np.zeros(count), 0.0
        norms = 0.9 * (0.6 + 0.4 * self._lengths / self._lengths.mean())
        for stem in set(content_words(asked.question)):
            row = self._postings.get(stem, {})
            idf = np.log(1 + (count - len(row) + 0.5) / (len(row) + 0.5))
            bound += 1.9 * idf
            for number, frequency in row.items():
                lexical[number] += 1.9 * idf * frequency / (frequency + norms[number])
        scores = 0.5 * np.maximum(cosines, 0) + 0.5 * lexical / (bound or 1.0)
        scores[np.isin(self._documents, list(asked.without))] = -1
        best = np.argsort(-scores, kind="stable")[:TOP]
        return [replace(self._passages[i], score=float(scores[i]), cosine=float(cosines[i])) for i in best]

    async def _embed(self, texts: list[str]) -> NDArray[np.float32]:
        new = [t for t in dict.fromkeys(texts) if t not in self._known]
        self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[t] for t in texts])


# -- the sources ----------------------------------------------------------------------------------


def _passages(document: str, parsed: Parsed) -> Iterator[Passage]:
    for c in chunks(parsed):
        yield Passage(f"{document}-{c.ordinal}", document, parsed.title, c.headings, c.text, c.start, c.end, c.page)


def _lines(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def squad(data: Path, draw: np.random.Generator) -> tuple[list[Passage], list[Asked]]:
    passages: list[Passage] = []
    known: list[tuple[str, str, str]] = []
    unknown: list[str] = []
    for number, article in enumerate(json.loads((data / "qa" / "squad2_halfdev.json").read_text())["data"]):
        title = article["title"].replace("_", " ")
        for place, paragraph in enumerate(article["paragraphs"]):
            document = f"{number}-{place}"
            passages += _passages(document, verbatim(title, paragraph["context"]))
            for qa in paragraph["qas"]:
                question = qa["question"].strip()
                if qa["is_impossible"]:
                    unknown.append(question)
                else:
                    known.append((question, document, f"{number}-"))
    documents = {p.document for p in passages}
    picked = [known[i] for i in draw.permutation(len(known))[:1600]]
    asked = [Asked("answerable", q) for q, *_ in picked[:900]]
    asked += [Asked("paragraph gone", q, frozenset({d})) for q, d, _ in picked[900:]]
    asked += [
        Asked("article gone", q, frozenset(d for d in documents if d.startswith(a))) for q, _, a in picked[900:1075]
    ]
    asked += [Asked("SQuAD's unanswerable", unknown[i], answerable=False) for i in draw.permutation(len(unknown))[:400]]
    return passages, asked


def enterprise_hr(data: Path, draw: np.random.Generator) -> tuple[list[Passage], list[Asked]]:
    files = sorted((data / "enterprise_hr" / "docs").glob("*.pdf"))
    passages = [p for f in files for p in _passages(f.name, parse(f.name, f.read_bytes()))]
    plans = frozenset(f.name for f in files if re.search("orthwind|enefit", f.name))  # they say much the same
    asked = []
    for row in _lines(data / "enterprise_hr" / "qa.jsonl"):
        named = frozenset(re.findall(r"\[([^\]#]+\.pdf)#page=", row["truth"]))
        asked.append(Asked("answerable", row["question"]))
        if named:
            asked.append(Asked("document gone", row["question"], named | plans if named & plans else named))
    for row in _lines(data / "enterprise_hr" / "qa_dontknows.jsonl"):
        asked.append(Asked("out of scope, as labelled", row["question"], answerable=False))
    return passages, asked


def scifact(data: Path, draw: np.random.Generator) -> tuple[list[Passage], list[Asked]]:
    folder = data / "retrieval" / "scifact"
    claims = {row["_id"]: row["text"] for row in _lines(folder / "queries.jsonl")}
    relevant: dict[str, set[str]] = {}
    for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, document, _ = line.split()
        relevant.setdefault(query, set()).add(document)
    needed = set().union(*relevant.values())
    rows = _lines(folder / "corpus.jsonl.gz")
    others = [row for row in rows if row["_id"] not in needed]
    kept = [row for row in rows if row["_id"] in needed] + [others[i] for i in draw.permutation(len(others))[:2200]]
    passages = [p for row in kept for p in _passages(row["_id"], verbatim(row["title"], row["text"]))]
    asked = [Asked("answerable", claims[q]) for q in relevant]
    return passages, asked + [Asked("abstract gone", claims[q], frozenset(found)) for q, found in relevant.items()]


def example(data: Path, draw: np.random.Generator) -> tuple[list[Passage], list[Asked]]:
    folder = ROOT / "examples" / "helpdesk"
    passages: list[Passage] = []
    for file in sorted((folder / "knowledge").rglob("*")):
        name = str(file.relative_to(folder / "knowledge"))
        if file.is_file() and not name.startswith(RESTRICTED):
            passages += _passages(name, parse(name, file.read_bytes()))
    asked = []
    for row in _lines(folder / "evals" / "golden.jsonl"):
        named = frozenset(row["documents"])
        if row.get("unanswerable"):
            asked.append(Asked("unanswerable", row["question"], answerable=False))
        elif not any(d.startswith(RESTRICTED) for d in named):
            asked.append(Asked("answerable", row["question"]))
            asked.append(Asked("documents gone", row["question"], named))
    return passages, asked


SOURCES = {f.__name__: f for f in (squad, enterprise_hr, scifact, example)}


# -- fitting --------------------------------------------------------------------------------------


def fit(rows: Sequence[Row]) -> tuple[Floats, float]:
    """Logistic regression by Newton's method, ridge 1 on standardised features; each source weighs alike, half of it
    the answerable questions, the other half its kinds of unanswerable ones."""
    x = np.array([r.features for r in rows])
    y = np.array([r.answerable for r in rows], np.float64)
    groups = [(r.source, r.kind) for r in rows]
    kinds = {s: len({k for g, k in groups if g == s}) - 1 for s, _ in groups}
    sizes = {g: groups.count(g) for g in set(groups)}
    weight = np.array(
        [300 / sizes[g] / (1 if r.answerable else kinds[g[0]]) for g, r in zip(groups, rows, strict=True)]
    )
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    z = np.c_[(x - mean) / spread, np.ones(len(x))]
    ridge = np.diag([1.0] * len(FEATURES) + [0.0])
    b = np.zeros(len(FEATURES) + 1)
    for _ in range(30):
        p = 1 / (1 + np.exp(-z @ b))
        hessian = (z * (weight * p * (1 - p))[:, None]).T @ z + ridge
        b -= np.linalg.solve(hessian, z.T @ (weight * (p - y)) + ridge @ b)
    found: Floats = b[:-1] / spread
    return found, float(b[-1] - found @ mean)


def auc(high: Floats, low: Floats) -> float:
    return float((high[:, None] > low).mean() + (high[:, None] == low).mean() / 2)


def table(rows: Sequence[Row]) -> str:
    """Each source scored by a model that was trained on the other three."""
    lines = ["| questions without an answer | AUC | refused at 5 % | at 8 % wrongly refused |", "|---|---|---|---|"]
    for source in SOURCES:
        found, bias = fit([r for r in rows if r.source != source])
        mine = [r for r in rows if r.source == source]
        scores = {k: np.array([r.features @ found + bias for r in mine if r.kind == k]) for k in {r.kind for r in mine}}
        good = scores.pop("answerable")
        for kind, bad in sorted(scores.items()):
            at = [f"{(bad < np.quantile(good, share)).mean():.2f}" for share in (0.05, 0.08)]
            lines.append(
                f"| {source}: {kind} ({len(bad)}; {len(good)} answerable) | {auc(good, bad):.3f} | {at[0]} | {at[1]} |"
            )
    return "\n".join(lines)


def thresholds(rows: Sequence[Row], found: Floats, bias: float) -> str:
    lines = ["| threshold | " + " | ".join(SOURCES) + " |", "|" + "---|" * (len(SOURCES) + 1)]
    for threshold in (0.25, 0.3, 0.35, 0.4):
        cells = []
        for source in SOURCES:
            chance = {
                good: 1
                / (
                    1
                    + np.exp(
                        -np.array(
                            [r.features @ found + bias for r in rows if r.source == source and r.answerable is good]
                        )
                    )
                )
                for good in (True, False)
            }
            cells.append(f"{(chance[True] < threshold).mean():.3f} / {(chance[False] < threshold).mean():.3f}")
        lines.append(f"| {threshold} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a Markdown page")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the public data sets")
    parser.add_argument("--limit", type=int, default=10_000, help="questions of one source")
    options = parser.parse_args()
    encoder = Encoder(weights.embedder().folder)
    rows: list[Row] = []
    for name, read in SOURCES.items():
        began, draw = time.monotonic(), np.random.default_rng(0)
        passages, asked = read(options.data, draw)
        corpus = Corpus(encoder, passages)
        asked = [asked[i] for i in draw.permutation(len(asked))[: options.limit]]
        rows += [corpus.row(name, a) for a in asked]
        print(f"{name}: {len(passages)} passages, {len(asked)} questions, {time.monotonic() - began:.0f} s", flush=True)
    found, bias = fit(rows)
    constants = ", ".join(f"{n} {w:.2f}" for n, w in zip(FEATURES, found, strict=True))
    page = f"""# Whether passages answer a question

Written by `python -m bench.answerable`. {(__doc__ or "").split(maxsplit=0)[0]}
## Leave one source out

{table(rows)}

## Trained on all: {constants}, bias {bias:.2f}

Answerable ones refused / others refused:

{thresholds(rows, found, bias)}
"""
    print(page)
    if options.output:
        options.output.write_text(page)


if __name__ == "__main__":
    main()
