"""How far judges agree with people on which of two answers of a RAG system is better.

RAGChecker's 560 pairs, each with the preference of people (overall; -2 to 2, of which the sign is taken). One judge is
scripted: it prefers the answer that shares more words with the reference by F1, a tie within 0.02. The other is the
embedded model, from a server that this starts. Each pair is shown in both orders.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.grounding import Server, running
from proveout.evals.judge import Agreement, Judge, Preference, Rating, Side, agreement, preference, rating
from proveout.evals.statistics import Interval
from proveout.language import content_words

ROOT = Path(__file__).parent.parent
MODEL = "local/smollm2-135m-instruct"
CONCURRENT = 4
JUDGE = Judge(MODEL, repeats=4)
Ask = Callable[[str], Awaitable[str]]


def read(data: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((data / "judge" / "ragchecker_human_pairs.json").read_text())
    random.Random(1).shuffle(rows)
    return rows


def label(row: dict[str, Any]) -> Side:
    """What people preferred; the set's labels are above 0 where the second answer is better."""
    return "tie" if row["overall_label"] == 0 else "second" if row["overall_label"] > 0 else "first"


async def scripted(prompt: str) -> str:
    """A judge by rule: the F1 of shared content words."""

    def part(name: str) -> Counter[str]:
        found = re.search(rf"<{name}>(.*)</{name}>", prompt, re.DOTALL)
        return Counter(content_words(found[1])) if found else Counter()

    reference = part("reference_answer")

    def f1(answer: Counter[str]) -> float:
        return 2 * (answer & reference).total() / max(answer.total() + reference.total(), 1)

    a, b = (f1(part(f"answer_{name}")) for name in "AB")
    return f"Better: {'tie' if abs(a - b) < 0.02 else 'A' if a > b else 'B'}"


def embedded(server: Server, temperature: float, seed: int = 0) -> Any:
    async def ask(prompt: str) -> str:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": temperature,
            "max_tokens": 40,
            "seed": seed,
        }
        said = await asyncio.to_thread(server.call, "/v1/chat/completions", body)
        return str(said["choices"][0]["message"]["content"])

    return ask


async def compare(ask: Ask, rows: list[dict[str, Any]]) -> list[Preference]:
    turns = asyncio.Semaphore(CONCURRENT)

    async def one(row: dict[str, Any]) -> Preference:
        async with turns:
            answers = row["model1"]["response"], row["model2"]["response"]
            shown, swapped = JUDGE.prompts(row["query"], row["gt_answer"], *answers)
            return preference(await ask(shown), await ask(swapped))

    return await asyncio.gather(*(one(row) for row in rows))


async def rate(ask: Ask, rows: list[dict[str, Any]]) -> list[Rating]:
    turns = asyncio.Semaphore(CONCURRENT)

    async def one(row: dict[str, Any]) -> Rating:
        async with turns:
            prompt = JUDGE.prompt(row["query"], row["gt_answer"], row["model1"]["response"])
            return rating([await ask(prompt) for _ in range(JUDGE.repeats)])

    return await asyncio.gather(*(one(row) for row in rows))


def line(name: str, found: Agreement) -> str:
    def told(interval: Interval) -> str:
        return f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f})"

    return (
        f"| {name} | {found.kappa.n} | {told(found.accuracy)} | {told(found.kappa)} | {found.earlier:.2f} / "
        f"{found.later:.2f} | {found.unread:.2f} | {'decide' if found.may_decide else 'advise'} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a Markdown page")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the public data sets")
    parser.add_argument("--limit", type=int, default=100, help="pairs for the embedded model")
    options = parser.parse_args()
    rows = read(options.data)
    lines = [
        "| judge | pairs | agrees | Cohen's κ | decided by place: earlier / later | not read | may |",
        "|---|---|---|---|---|---|---|",
        line("scripted", agreement(asyncio.run(compare(scripted, rows)), [label(r) for r in rows])),
    ]
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as server:
        some = rows[: options.limit]
        began = time.perf_counter()
        said = asyncio.run(compare(embedded(server, 0), some))
        seconds = (time.perf_counter() - began) / (2 * len(some))
        lines.append(line(MODEL, agreement(said, [label(r) for r in some])))
        ratings = asyncio.run(rate(embedded(server, 0.8), some[:8]))
    read_ones = [r for r in ratings if len(r.scores) > 1]
    unread = f"{sum(r.unread for r in ratings)} of {4 * len(ratings)} could not be read"
    variance = f"the variance of one rating is {sum(r.variance for r in read_ones) / max(len(read_ones), 1):.3f} of 1"
    if len(read_ones) < 5:
        variance = "too few were read twice to tell the variance of one"
    page = "\n".join(
        [
            f"# Judges\n\nWritten by `python -m bench.judge`. {__doc__}",
            *lines,
            "",
            f"{MODEL} takes {seconds:.1f} s a comparison, {CONCURRENT} at a time. Rating {len(ratings)} single answers "
            f"4 times each at temperature 0.8: {variance} ({unread}).",
        ]
    )
    print(page)
    if options.output:
        options.output.write_text(page + "\n")


if __name__ == "__main__":
    main()
