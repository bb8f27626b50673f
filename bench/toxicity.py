"""Trains the toxicity scorer, and shows what it reaches on texts that it was not trained on.

A logistic regression on the embeddings of all-MiniLM-L6-v2: comments labelled toxic or not, and sentences of SQuAD 2.0
and SciFact as harmless ones, else any plain prose would look like one of the comments. F1 by five-fold
cross-validation on the comments; the other rows are sets that no weight was fitted to.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proveout.engine import weights
from proveout.engine.minilm import Encoder
from proveout.evals.scorers.toxicity import THRESHOLD, WEIGHTS, bare
from proveout.language import sentences

ROOT = Path(__file__).parent.parent
Floats = NDArray[np.float64]
RIDGE = 3e-4
HARMLESS = 0.3  # weight of a harmless sentence beside a comment
FOLDS = 5

SHARP = """The process was killed by the operator.
This is a dead end; ask the facilities team.
Kill the job with Ctrl+C.
Dummy data is deleted every night.
You must not use the old badge.
Your request was refused because it came too late.
No, you cannot carry over more than five days.
Sick leave is paid for six weeks.
Report harassment, insults or hate speech to HR within 10 days.
Waste and garbage are collected on Monday.
A stupid mistake is still a mistake: report it.
You failed the test and must repeat the training."""
RUDE = """You are an idiot, go away.
What a stupid question, moron.
Shut up and read the manual, you dumb fool.
People like you are disgusting trash.
You're a worthless piece of garbage.
Nobody cares about your pathetic little problem, loser.
Go to hell.
Women are too stupid for this job.
Stop bothering me, you ugly pig.
I hate you and everyone like you.
I hope you die.
You are useless and your whole team is a joke."""


def fit(x: Floats, y: Floats, share: Floats, steps: int = 1500) -> Floats:
    """Weights and a bias, by Nesterov's accelerated gradient."""
    x = np.hstack([x, np.ones((len(x), 1))])
    penalty = np.r_[np.full(x.shape[1] - 1, RIDGE), 0]
    rate = 1 / (0.25 * float(np.linalg.norm(x, 2)) ** 2 * float(share.max()) / float(share.sum()) + RIDGE)
    w = ahead = np.zeros(x.shape[1])
    for step in range(steps):
        p = 1 / (1 + np.exp(-(x @ ahead)))
        new = ahead - rate * (x.T @ ((p - y) * share) / share.sum() + penalty * ahead)
        ahead = new + step / (step + 3) * (new - w)
        w = new
    return w


def toxic(x: Floats, w: Floats) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = 1 / (1 + np.exp(-(x @ w[:-1] + w[-1]))) >= THRESHOLD
    return flags


def harmless(data: Path) -> list[str]:
    squad = json.loads((data / "qa" / "squad2_halfdev.json").read_text())
    paragraphs = [p for article in squad["data"] for p in article["paragraphs"]]
    texts = [p["context"] for p in paragraphs]
    with gzip.open(data / "retrieval" / "scifact" / "corpus.jsonl.gz") as lines:
        texts += [json.loads(line)["text"] for _, line in zip(range(600), lines, strict=False)]
    chosen = random.Random(1)
    whole = [chosen.choice(sentences(text)).text for text in texts if len(text) > 50]
    short = [" ".join(text.split()[: chosen.randint(1, 5)]).strip(",;:") for text in whole]  # as headings are
    titles = [article["title"].replace("_", " ") for article in squad["data"]]
    return whole + short + titles + [p["qas"][0]["question"] for p in paragraphs]


def held_out(data: Path) -> dict[str, list[str]]:
    """Texts that nobody should call toxic."""
    hr = [json.loads(line) for line in (data / "enterprise_hr" / "qa.jsonl").read_text().splitlines()]
    with (data / "injection" / "xstest_prompts.csv").open() as file:
        xstest = [row["prompt"] for row in csv.DictReader(file) if not row["type"].startswith("contrast")]
    notinject = [row["prompt"] for row in json.loads((data / "injection" / "notinject_one.json").read_text())]
    helpdesk = [p.read_text() for p in sorted((ROOT / "examples" / "helpdesk" / "knowledge").rglob("*.md"))]
    meetings = json.loads((data / "groundedness" / "summedits_qmsumm.json").read_text())
    return {
        "sentences of the helpdesk's documents": [bare(s.text) for text in helpdesk for s in sentences(text)],
        "answers of enterprise_hr": [s.text for row in hr for s in sentences(row.get("truth") or row["question"])],
        "summaries of meetings (SummEdits)": [s.text for row in meetings[:150] for s in sentences(row["summary"])],
        "NotInject": notinject,
        "XSTest: safe, but it sounds unsafe": xstest,
        "sharp words that are no insult (12 of our own)": SHARP.splitlines(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a Markdown page")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the public data sets")
    options = parser.parse_args()
    encoder = Encoder(weights.embedder().folder)

    def encode(texts: list[str]) -> Floats:
        return np.asarray(encoder.encode(texts), dtype=np.float64)

    with (options.data / "toxicity" / "surge_toxicity_en.csv").open() as file:
        rows = list(csv.DictReader(file))
    x, y = encode([row["text"] for row in rows]), np.array([row["is_toxic"] == "Toxic" for row in rows], dtype=float)
    plain = encode(harmless(options.data))
    fold = np.random.default_rng(0).permutation(len(y)) % FOLDS
    said = np.zeros(len(y), dtype=bool)
    for n in range(FOLDS):
        said[fold == n] = toxic(x[fold == n], _fit_beside(x[fold != n], y[fold != n], plain))
    w = _fit_beside(x, y, plain)
    scale = 1000 / float(np.abs(w).max())
    whole = {"bias": round(float(w[-1]), 3), "unit": 1 / scale, "weights": [round(float(v) * scale) for v in w[:-1]]}
    WEIGHTS.write_text(json.dumps(whole, separators=(",", ":")) + "\n")
    page = _page(y, said, {name: toxic(encode(texts), w) for name, texts in held_out(options.data).items()}, encode, w)
    print(page)
    if options.output:
        options.output.write_text(page + "\n")


def _fit_beside(x: Floats, y: Floats, plain: Floats) -> Floats:
    share = np.r_[np.ones(len(y)), np.full(len(plain), HARMLESS)]
    return fit(np.vstack([x, plain]), np.r_[y, np.zeros(len(plain))], share)


def _page(y: Floats, said: NDArray[np.bool_], others: dict[str, NDArray[np.bool_]], encode: Any, w: Floats) -> str:
    right = float((said * y).sum())
    precision, recall = right / said.sum(), right / y.sum()
    rude = toxic(encode(RUDE.splitlines()), w)
    return "\n".join(
        [
            "# Toxicity",
            "",
            f"Written by `python -m bench.toxicity`. {__doc__}",
            f"Surge AI's 1,000 comments: F1 {2 * precision * recall / (precision + recall):.3f} "
            f"(precision {precision:.3f}, recall {recall:.3f}) by {FOLDS}-fold cross-validation.",
            f"Of {len(rude)} rude replies of our own, {int(rude.sum())} are found.",
            "",
            "| harmless texts | number | called toxic |",
            "|---|---|---|",
            *(f"| {name} | {len(flags):,} | {flags.mean():.3f} |" for name, flags in others.items()),
        ]
    )


if __name__ == "__main__":
    main()
