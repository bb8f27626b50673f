"""A release compared with itself: how often a comparison of answers of one and the same release ends as `fail`.

Each question is asked 20 times by `proveout eval run`; each of 200 comparisons then draws other answers of these for
either side, as a candidate and its baseline would have got them. One release is the embedded model at temperature 0.8
over passages of the example, its words let through; the other says chance's choice of three replies to each question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import numpy as np

from bench.engine import proveout
from bench.evaluations import evaluated
from proveout.evals.compare import compare
from proveout.releases.measure import UNCOMPARED, metrics_of

POOL, RUNS = 20, 200
REPEATS = (1, 3, 5)
EXAMPLE = Path(__file__).parent.parent / "examples/helpdesk"
ECHO = {"replies": ["It is five, please.", "It is five.", "It is six."]}
SAYS = """
app: says
purpose: Say one of three things.
owners: {accountable: bench@example.com}
model: {use: echo/noisy}
"""


def warm(folder: Path) -> list[dict[str, Any]]:
    """An app folder: the example's documents and questions, the model's own words at temperature 0.8; its questions."""
    shutil.copytree(EXAMPLE / "knowledge", folder / "knowledge")
    (folder / "app.yaml").write_text(
        "app: warm\npurpose: Answer from the example.\nowners: {accountable: bench@example.com}\n"
        "model: {use: local/smollm2-135m-instruct, parameters: {temperature: 0.8, max_tokens: 32}}\n"
        "knowledge: [{name: warm, source: knowledge/, top_k: 3}]\ngrounding: {otherwise: flag}\n"
    )
    golden = map(json.loads, (EXAMPLE / "evals/golden.jsonl").read_text().splitlines())
    asked = [case for case in golden if not case.get("unanswerable") and not case.get("groups")][:60]
    return [{**case, "documents": []} for case in asked]


def noisy(folder: Path) -> list[dict[str, Any]]:
    """An app folder whose answers are chance's, and its questions."""
    (folder / "app.yaml").write_text(SAYS)
    return [
        {"id": str(n), "question": f"How many are {n}?", "facts": ["five"], "tags": [f"t{n % 4}"]} for n in range(120)
    ]


async def pool(url: str, headers: Mapping[str, str], app: str, folder: Path, cases: list[dict[str, Any]]) -> Any:
    """The evaluation of every question, 20 times each."""
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=1800)) as session:
        async with session.post(f"{url}/api/v1/apps/{app}/releases", json={"path": str(folder)}) as response:
            assert response.status == 201, await response.text()
        body = {"dataset": "\n".join(map(json.dumps, cases)), "repeats": POOL}
        return (await evaluated(session, url, app, body))[0]


def compared(found: Any, repeats: int, seed: int = 11) -> Counter[str]:
    """The verdicts of comparisons of the release with itself, other answers drawn for both sides each time."""
    chance = np.random.default_rng(seed)
    about = {
        name: SimpleNamespace(**told) for name, told in found["summary"]["scores"].items() if name not in UNCOMPARED
    }
    metrics = metrics_of(about, about, {"correct"})
    tags = {case["case"]: frozenset(case["tags"]) for case in found["cases"]}
    verdicts: Counter[str] = Counter()
    for _ in range(RUNS):
        sides: tuple[dict[str, Any], dict[str, Any]] = ({n: {} for n in about}, {n: {} for n in about})
        for case in found["cases"]:
            drawn = chance.permutation(POOL)[: 2 * repeats].reshape(2, repeats)
            for side, places in zip(sides, drawn, strict=True):
                for name, values in case["every_score"].items():
                    if name in about and len(values) == POOL:
                        side[name][case["case"]] = [values[place] for place in places]
        verdicts[compare(*sides, tags, metrics).verdict] += 1
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="the Markdown page to write")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name, proveout(Path(name), {"noisy": ECHO}) as (url, headers):
        for app, made in (("says", noisy), ("warm", warm)):
            folder = Path(name) / app
            folder.mkdir()
            cases = made(folder)
            found = asyncio.run(pool(url, headers, app, folder, cases))
            correct = found["summary"]["scores"]["correct"]["mean"]
            for repeats in REPEATS:
                told = compared(found, repeats)
                verdicts = " | ".join(str(told[verdict]) for verdict in ("pass", "inconclusive", "fail"))
                rows.append(f"| {app} | {len(cases)} × {repeats} | {correct:.2f} | {verdicts} |")
                print(rows[-1], flush=True)
    page = "\n".join(
        [
            "# A release against itself\n",
            " ".join((__doc__ or "").split()) + "\n",
            "| release | questions × repeats | correct | pass | inconclusive | fail |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )
    print(page)
    if options.output:
        options.output.write_text(page + "\n")


if __name__ == "__main__":
    main()
