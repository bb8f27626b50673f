"""Retrieval through the server's own API: two public collections pushed, indexed and searched.

`python -m bench.retrieval --data FOLDER` prints a Markdown table; FOLDER holds `retrieval/scifact` (BEIR) and
`enterprise_hr` (PDFs with questions that name the pages of their answers). A server of its own is started.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODES = ("lexical", "dense", "hybrid")
DEPTH = 100  # passages a query


@dataclass(frozen=True)
class Server:
    url: str
    key: str

    def call(self, method: str, path: str, body: bytes | None, kind: str = "application/json") -> Any:
        headers = {"authorization": f"Bearer {self.key}", "content-type": kind}
        request = urllib.request.Request(f"{self.url}/api/v1/knowledge/{path}", body, headers, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@contextmanager
def up() -> Iterator[Server]:
    """`proveout up` in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        command = [sys.executable, "-m", "proveout", "up", "--data", str(data), "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
        try:
            assert process.stdout is not None
            url = next(found[1] for line in process.stdout if (found := re.search(r"is up: (\S+)", line)))
            yield Server(url, (data / "owner.key").read_text().strip())
        finally:
            process.terminate()
            process.wait(60)


@dataclass(frozen=True)
class Searched:
    """What the searches of one mode gave: the ranking of each query, and how long each took in ms."""

    rankings: Mapping[str, Sequence[str]]
    milliseconds: Sequence[float]


def search(server: Server, base: str, queries: Mapping[str, str], mode: str, unit: str) -> Searched:
    """Rankings of documents, or of pages (`unit`): each stands where its best passage does."""
    rankings, times = {}, []
    for query, text in queries.items():
        body = json.dumps({"query": text, "k": DEPTH, "mode": mode}).encode()
        began = time.perf_counter()
        results = server.call("POST", f"{base}/search", body)["results"]
        times.append((time.perf_counter() - began) * 1000)
        names = [r["document"] if unit == "document" else f"{r['document']}#page={r['page']}" for r in results]
        rankings[query] = list(dict.fromkeys(names))
    return Searched(rankings, times)


def ndcg(rankings: Mapping[str, Sequence[str]], relevant: Mapping[str, Mapping[str, int]]) -> float:
    """Mean nDCG@10 with linear gains, as trec_eval's ndcg_cut.10 (Järvelin & Kekäläinen 2002)."""
    scores = []
    for query, gains in relevant.items():
        found = sum(gains.get(name, 0) / math.log2(at + 2) for at, name in enumerate(rankings[query][:10]))
        best = sum(gain / math.log2(at + 2) for at, gain in enumerate(sorted(gains.values(), reverse=True)[:10]))
        scores.append(found / best)
    return statistics.mean(scores)


def hit(rankings: Mapping[str, Sequence[str]], relevant: Mapping[str, Mapping[str, int]], at: int = 5) -> float:
    """The share of queries with a relevant name among the first."""
    return statistics.mean(any(name in gains for name in rankings[q][:at]) for q, gains in relevant.items())


def scifact(server: Server, folder: Path) -> list[str]:
    """Pushes the corpus as JSON lines in one request, and asks the 300 test claims."""
    with gzip.open(folder / "corpus.jsonl.gz", "rt", encoding="utf-8") as lines:
        corpus = [json.loads(line) for line in lines]
    body = "\n".join(
        json.dumps({"id": d["_id"], "title": d["title"], "text": d["text"], "readers": ["everyone"]}) for d in corpus
    ).encode()
    began = time.perf_counter()
    made = server.call("POST", "scifact/documents", body, "application/x-ndjson")
    seconds = time.perf_counter() - began
    relevant: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (folder / "qrels" / "test.tsv").read_text().splitlines()[1:]:
        query, document, gain = line.split("\t")
        relevant[query][document] = int(gain)
    with (folder / "queries.jsonl").open(encoding="utf-8") as lines:
        texts = {q["_id"]: q["text"] for q in map(json.loads, lines)}
    found = {mode: search(server, "scifact", {q: texts[q] for q in relevant}, mode, "document") for mode in MODES}
    count = made["documents"]
    rows = [f"| SciFact: {count:,} documents pushed and searchable | {count / seconds:.0f} documents/s |"]
    rows += [f"| SciFact, {mode}: nDCG@10 | {ndcg(s.rankings, relevant):.3f} |" for mode, s in found.items()]
    return rows + [times(f"SciFact, {mode}", s) for mode, s in found.items()]


def enterprise_hr(server: Server, folder: Path) -> list[str]:
    """Puts each PDF, and asks the questions whose answers name a page."""
    began = time.perf_counter()
    for path in sorted((folder / "docs").rglob("*.pdf")):
        name = urllib.parse.quote(path.name, safe="")
        server.call("PUT", f"hr/documents/{name}?readers=everyone", path.read_bytes(), "application/pdf")
    seconds = time.perf_counter() - began
    queries, relevant = {}, {}
    for number, line in enumerate((folder / "qa.jsonl").read_text(encoding="utf-8").splitlines()):
        asked = json.loads(line)
        if places := re.findall(r"\[([^\]#]+\.pdf#page=\d+)\]", asked["truth"]):
            queries[str(number)], relevant[str(number)] = asked["question"], dict.fromkeys(places, 1)
    found = {mode: search(server, "hr", queries, mode, "page") for mode in MODES}
    rows = [f"| enterprise_hr: six PDFs put and searchable | {seconds:.0f} s |"]
    for mode, s in found.items():
        rows.append(f"| enterprise_hr, {mode}: right page in the top 5 | {hit(s.rankings, relevant):.3f} |")
        rows.append(f"| enterprise_hr, {mode}: nDCG@10 over pages | {ndcg(s.rankings, relevant):.3f} |")
    return rows


def times(name: str, searched: Searched) -> str:
    cut = statistics.quantiles(searched.milliseconds, n=20)
    return f"| {name}: search p50 / p95 | {cut[9]:.0f} / {cut[18]:.0f} ms |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("PROVEOUT_BENCH_DATA"), help="the collections")
    parser.add_argument("--output", type=Path, help="also write the table here")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data: where the collections are")
    with up() as server:
        rows = scifact(server, options.data / "retrieval" / "scifact")
        rows += enterprise_hr(server, options.data / "enterprise_hr")
    text = "\n".join(
        [
            "# Retrieval, measured",
            "",
            "Through the HTTP API of a fresh server with its own models, one client, `python -m bench.retrieval`. A",
            "document, or page, stands where its best passage stands among 100.",
            "",
            "| what | |",
            "|---|---|",
            *rows,
            "",
        ]
    )
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
