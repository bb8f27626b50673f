"""Trains what decides whether passages answer a question, and shows what it reaches on sources it was not trained on.

Four sources, questions with an answer and without: SQuAD 2.0 (its own unanswerable ones, and answerable ones whose
paragraph, or whose whole article, is taken out of the corpus), enterprise_hr (its out-of-scope ones, and those whose
document is taken out), SciFact (claims, with and without the abstracts that speak of them) and the example (its golden
questions, and those whose documents are taken out). The constants go into `guard/answerable.py`,
and those of the choice of quotes, fitted on SQuAD, into `retrieval/cite.py`, by hand.
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

from proveout.domain import Excerpts, Passage
from proveout.engine import minilm, weights
from proveout.engine.minilm import Encoder
from proveout.guard.answerable import FEATURES, features
from proveout.retrieval import postings
from proveout.retrieval.chunk import chunks, index_text
from proveout.retrieval.cite import FEATURES as UNIT_FEATURES
from proveout.retrieval.cite import features as unit_features
from proveout.retrieval.cite import quotes, weigh
from proveout.retrieval.fusion import DENSE
from proveout.retrieval.outline import Parsed
from proveout.retrieval.parse import parse, verbatim

ROOT = Path(__file__).parent.parent
RESTRICTED = ("finance-team", "people-team")  # folders of the example that not everyone may read
TOP = 6
KEY = b"bench"
ROOMS = (120, 90, 60)  # words of quotes
RIDGE = 300.0  # as much as one source weighs: 1 fits three sources better, and the fourth worse
Floats = NDArray[np.float64]
Fact = str | list[str]


@dataclass(frozen=True)
class Row:
    """One question: its source, what kind of question of it, whether it has an answer, and the features."""

    source: str
    kind: str
    answerable: bool
    features: Floats
    units: Floats | None = None  # [sentences of its passages, features of each], of a question whose facts are known
    holding: NDArray[np.bool_] | None = None  # [sentences]: whether one holds a fact
    said: tuple[bool, ...] = ()  # whether quotes of so many words say all facts, one for each of ROOMS


@dataclass(frozen=True)
class Asked:
    kind: str
    question: str
    without: frozenset[str] = frozenset()  # documents that are taken out; with any, it has no answer
    answerable: bool = True
    facts: tuple[Fact, ...] = ()


class Corpus:
    """Hybrid search in memory, scored as `retrieval` scores."""

    def __init__(self, encoder: Encoder, passages: Sequence[Passage]) -> None:
        self._encoder = encoder
        self._passages = passages
        texts = [index_text(p.title, p.headings, p.text) for p in passages]
        self._vectors = encoder.encode(texts)
        self._documents = np.array([p.document for p in passages])
        beside = [
            [texts[j] for j in (i - 1, i + 1) if 0 <= j < len(texts) and passages[j].document == p.document]
            for i, p in enumerate(passages)
        ]
        index = postings.build(texts, KEY, beside)
        self._lengths = index.lengths
        self._rows = {term: [postings.unpack(row)] for term, row in index.rows.items()}

    def row(self, source: str, asked: Asked) -> Row:
        passages = self._search(asked)
        weighed = asyncio.run(weigh(asked.question, passages, self._match))
        read = weighed.units[int(weighed.chances.argmax())].passage
        found = features(asked.question, passages, read, weighed.matches, weighed.chances)
        row = Row(source, asked.kind, asked.answerable and not asked.without, found)
        if not asked.facts:
            return row
        said = ["\n".join(q.text for q in quotes(weighed, passages, words)) for words in ROOMS]
        return replace(
            row,
            units=unit_features(asked.question, passages, weighed.units, weighed.matches),
            holding=np.array([any(stands_in(f, u.text) for f in asked.facts) for u in weighed.units]),
            said=tuple(all(stands_in(f, text) for f in asked.facts) for text in said),
        )

    def _search(self, asked: Asked) -> list[Passage]:
        live = ~np.isin(self._documents, list(asked.without))
        cosines = self._vectors @ self._encoder.encode([asked.question])[0]
        lexical = postings.score(list(postings.terms(asked.question, KEY)), self._rows, self._lengths, live)
        scores = np.where(live, DENSE * np.maximum(cosines, 0) + (1 - DENSE) * lexical, -1)
        best = np.argsort(-scores, kind="stable")[:TOP]
        return [replace(self._passages[i], score=float(scores[i]), cosine=float(cosines[i])) for i in best]

    async def _match(self, question: str, texts: list[Excerpts]) -> NDArray[np.float32]:
        return self._encoder.matches(question, texts)


def stands_in(fact: Fact, text: str) -> bool:
    """Whether a text says a fact, or one of a list of them, in these words."""
    if isinstance(fact, list):
        return any(stands_in(one, text) for one in fact)
    return re.search(rf"(?<!\w){re.escape(_plain(fact))}(?!\w)", _plain(text)) is not None


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[*_`]", "", text).casefold().replace("’", "'").split())


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
    known: list[tuple[str, str, str, list[str]]] = []
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
                    known.append((question, document, f"{number}-", [a["text"] for a in qa["answers"]]))
    documents = {p.document for p in passages}
    picked = [known[i] for i in draw.permutation(len(known))[:1200]]
    asked = [Asked("answerable", q, facts=(said,)) for q, _, _, said in picked[:700]]
    asked += [Asked("paragraph gone", q, frozenset({d})) for q, d, _, _ in picked[700:]]
    asked += [
        Asked("article gone", q, frozenset(d for d in documents if d.startswith(a))) for q, _, a, _ in picked[700:850]
    ]
    asked += [Asked("SQuAD's unanswerable", unknown[i], answerable=False) for i in draw.permutation(len(unknown))[:300]]
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
    kept = [row for row in rows if row["_id"] in needed] + [others[i] for i in draw.permutation(len(others))[:1000]]
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
            asked.append(Asked("answerable", row["question"], facts=tuple(row["facts"])))
            asked.append(Asked("documents gone", row["question"], named))
    return passages, asked


SOURCES = {f.__name__: f for f in (squad, enterprise_hr, scifact, example)}


# -- fitting --------------------------------------------------------------------------------------


def fit(rows: Sequence[Row]) -> tuple[Floats, float]:
    """Logistic regression by Newton's method, ridge RIDGE on standardised features; each source weighs alike, half
    of it the answerable questions, the other half its kinds of unanswerable ones."""
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
    ridge = np.diag([RIDGE] * len(FEATURES) + [0.0])
    b = np.zeros(len(FEATURES) + 1)
    for _ in range(30):
        p = 1 / (1 + np.exp(-z @ b))
        hessian = (z * (weight * p * (1 - p))[:, None]).T @ z + ridge
        b -= np.linalg.solve(hessian, z.T @ (weight * (p - y)) + ridge @ b)
    found: Floats = b[:-1] / spread
    return found, float(b[-1] - found @ mean)


def fit_units(rows: Sequence[Row]) -> Floats:
    """Listwise softmax regression, Newton's method, ridge 1 on standardised features: the logarithm of the chance that
    the sentences which hold the answer have together among all sentences of its passages."""
    lists = [(r.units, r.holding) for r in rows if r.units is not None and r.holding is not None and r.holding.any()]
    every = np.concatenate([x for x, _ in lists])
    mean, spread = every.mean(axis=0), every.std(axis=0) + 1e-9
    b = np.zeros(every.shape[1])
    for _ in range(40):
        slope, curve = b.copy(), np.eye(len(b))
        for x, holding in lists:
            z = (x - mean) / spread
            odds = np.exp(z @ b - (z @ b).max())
            chance, true = odds / odds.sum(), np.where(holding, odds, 0) / odds[holding].sum()
            slope += z.T @ (chance - true)
            around = z - chance @ z
            curve += (around * chance[:, None]).T @ around
        b -= 0.7 * np.linalg.solve(curve, slope)
    found: Floats = b / spread
    return found


def quoted(rows: Sequence[Row]) -> str:
    lines = ["| source | " + " | ".join(f"{words} words" for words in ROOMS) + " | passages |"]
    lines.append("|" + "---|" * (len(ROOMS) + 2))
    for source in SOURCES:
        mine = [r for r in rows if r.source == source and r.said]
        if mine:
            said = " | ".join(f"{v:.3f}" for v in np.mean([r.said for r in mine], axis=0))
            most = np.mean([r.holding is not None and r.holding.any() for r in mine])
            lines.append(f"| {source} ({len(mine)}) | {said} | {most:.3f} |")
    return "\n".join(lines)


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
    for threshold in (0.25, 0.3, 0.35, 0.4, 0.45, 0.5):
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


def written(rows: Sequence[Row]) -> str:
    """The page."""
    found, bias = fit(rows)
    units = fit_units([r for r in rows if r.source == "squad"])
    chosen = ", ".join(f"{n} {w:.2f}" for n, w in zip(UNIT_FEATURES, units, strict=True))
    constants = ", ".join(f"{n} {w:.2f}" for n, w in zip(FEATURES, found, strict=True))
    return f"""# Whether passages answer a question

Written by `python -m bench.answerable`. {(__doc__ or "").split(maxsplit=0)[0]}
## Leave one source out

{table(rows)}

## Trained on all: {constants}, bias {bias:.2f}

Answerable ones refused / others refused:

{thresholds(rows, found, bias)}

## What quotes say

Share of the answerable questions whose answer, or all whose facts, stand in the quotes, at most so many words of them;
and in a sentence of the passages at all. The choice was fitted on these questions of SQuAD alone: {chosen}.

{quoted(rows)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a Markdown page")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the public data sets")
    parser.add_argument("--limit", type=int, default=10_000, help="questions of one source")
    options = parser.parse_args()
    minilm.READ = 4_096  # passages are asked about again, much later
    encoder = Encoder(weights.embedder().folder)
    rows: list[Row] = []
    for name, read in SOURCES.items():
        began, draw = time.monotonic(), np.random.default_rng(0)
        passages, asked = read(options.data, draw)
        corpus = Corpus(encoder, passages)
        asked = [asked[i] for i in draw.permutation(len(asked))[: options.limit]]
        rows += [corpus.row(name, a) for a in asked]
        print(f"{name}: {len(passages)} passages, {len(asked)} questions, {time.monotonic() - began:.0f} s", flush=True)
    page = written(rows)
    print(page)
    if options.output:
        options.output.write_text(page)


if __name__ == "__main__":
    main()
