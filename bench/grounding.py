"""What is refused, what is delivered, and whether it stands in the sources, asked of a real server.

The checker of delivered sentences is independent on purpose: it shares no code with the product's own check.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
HELPDESK = ROOT / "examples" / "helpdesk"
DEVELOPED = ("sales_email", "qmsumm")  # the domains on which the support check was developed; the others were held out
SAMPLED = 30
HR_APP = """
app: hr
purpose: Answer questions about the company's plans and rules.
owners: {accountable: hr@example.com, operator: it@example.com}
model: {use: echo}
knowledge: [{name: hr, source: knowledge/}]
"""


# -- the independent checker ----------------------------------------------------------------------

_STOP_WORDS = """
a about after all also an and any are as at be been before but by can could did do does for from had has have he her his
how i if in into is it its may more most must no not of on only or other our out over per shall she should so some such
than that the their them then there these they this those to under until up was we were what when where which who will
with would you your
"""
_STOP = frozenset(_STOP_WORDS.split())


def _tokens(text: str) -> list[str]:
    return re.findall(r"\d+(?:[.,:]\d+)*|[a-zà-ž]+", text.lower().replace("’", "'"))


def _roots(tokens: Sequence[str]) -> set[str]:
    """Content words, cut to their beginnings: a stemmer of its own."""
    return {re.sub(r"(?:ing|ed|es|s|ly)$", "", t)[:7] for t in tokens if t not in _STOP and not t[0].isdigit()}


def _plain(sentence: str) -> str:
    return re.sub(r"\[\d+\]|[*_`#|]", " ", sentence)


def _flat(passage: str) -> str:
    return " ".join(_tokens(passage))


def stands_in(sentence: str, passage: str) -> bool:
    """Each number, date and name, and at least 70 % of the content words, in this one passage."""
    sentence = _plain(sentence)
    said, held = _tokens(sentence), _tokens(passage)
    if {t for t in said if t[0].isdigit()} - {t for t in held if t[0].isdigit()}:
        return False
    names = re.findall(r"(?<=[a-z,] )[A-Z][^\W\d_]+|\b[A-Z]{2,}\b", sentence)
    if {n.lower() for n in names} - set(held):
        return False
    words = _roots(said)
    return not words or len(words & _roots(held)) >= 0.7 * len(words)


def cut(answer: str) -> list[str]:
    """Sentences and lines, each with its citation marks."""
    pieces = re.split(r"\n+|(?<=[.!?\]])\s+(?=[A-Z*-])", answer)
    return [p.strip() for p in pieces if re.search(r"[A-Za-z]{2}", p)]


# -- the server -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    url: str
    key: str

    def call(self, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data)
        request.add_header("authorization", f"Bearer {self.key}")
        request.add_header("content-type", "application/json")
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    def ask(self, app: str, question: str) -> Answer:
        began = time.perf_counter()
        said = self.call("/v1/chat/completions", {"model": app, "messages": [{"role": "user", "content": question}]})
        about = said["proveout"]
        text = said["choices"][0]["message"]["content"]
        outcome = self.call(f"/api/v1/requests/{about['request']}")["outcome"]
        return Answer(text, outcome == "refused", about["citations"], time.perf_counter() - began)


@dataclass(frozen=True)
class Answer:
    text: str
    refused: bool
    citations: list[dict[str, Any]]
    seconds: float


@contextmanager
def running(folder: Path, *apps: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "proveout", "up", *map(str, apps), "--data", str(folder / "data"), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder)
    assert process.stdout is not None
    try:
        text = ""
        for line in process.stdout:
            text += line
            if "curl" in line:
                break
        found = re.search(r"Proveout is up: (\S+)", text)
        if not found:
            raise SystemExit(f"the server did not come up:\n{text}")
        yield Server(found[1], (folder / "data" / "owner.key").read_text().strip())
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def ask_all(server: Server, app: str, questions: Sequence[str]) -> list[Answer]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda q: server.ask(app, q), questions))


# -- the tables -----------------------------------------------------------------------------------


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def share(values: Sequence[bool]) -> str:
    return f"{sum(values) / max(len(values), 1):.3f} ({sum(values)} of {len(values)})"


def has_facts(text: str, facts: Sequence[str | list[str]], words: int = 120) -> bool:
    said = " ".join(re.sub(r"[*_`]", "", text).split()[:words]).casefold()
    return all(any(f.casefold() in said for f in ([fact] if isinstance(fact, str) else fact)) for fact in facts)


def refusals(server: Server, data: Path, limit: int) -> tuple[str, list[Answer]]:
    golden = [g for g in read_lines(HELPDESK / "evals" / "golden.jsonl") if not g.get("groups")]
    golden = random.Random(1).sample(golden, min(limit, len(golden)))
    rows, delivered = [], []
    answers = ask_all(server, "helpdesk", [g["question"] for g in golden])
    known = [(g, a) for g, a in zip(golden, answers, strict=True) if not g["unanswerable"]]
    out = [a.refused for g, a in zip(golden, answers, strict=True) if g["unanswerable"]]
    rows.append(("the example", share(out), share([a.refused for _, a in known])))
    facts = share([has_facts(a.text, g["facts"]) for g, a in known])
    delivered += answers
    if (data / "enterprise_hr").is_dir():
        asked = {n: [r["question"] for r in read_lines(data / "enterprise_hr" / n)][:limit] for n in _HR}
        found = {n: ask_all(server, "hr", questions) for n, questions in asked.items()}
        shares = [share([a.refused for a in found[n]]) for n in reversed(_HR)]
        rows.append(("enterprise_hr", *shares))
        delivered += [a for answers in found.values() for a in answers]
    lines = ["| questions | without an answer, refused | with one, refused |", "|---|---|---|"]
    lines += [f"| {name} | {refused} | {wrongly} |" for name, refused, wrongly in rows]
    median = statistics.median(a.seconds for a in delivered if a.refused) * 1000
    return (
        "\n".join(lines)
        + f"\n\nRequired facts within the first 120 words, the example: {facts}."
        + f"\nA refusal takes {median:.0f} ms at the median, four at a time, its record read back included."
    ), [a for a in delivered if not a.refused]


_HR = ("qa.jsonl", "qa_dontknows.jsonl")


def support(server: Server, data: Path, limit: int) -> str:
    lines = [
        "| SummEdits | summaries | faithful ones let pass | edited ones caught | balanced accuracy |",
        "|" + "---|" * 5,
    ]
    for path in sorted((data / "groundedness").glob("summedits_*.json")):
        rows = json.loads(path.read_text())
        rows = random.Random(1).sample(rows, min(limit, len(rows)))

        def holds(row: dict[str, Any]) -> bool:
            body = {"answer": row["summary"], "passages": [row["doc"]]}
            return bool(server.call("/api/v1/guard/support", body)["score"] >= 0.5)

        with ThreadPoolExecutor(4) as pool:
            held = list(pool.map(holds, rows))
        kept = [h for h, r in zip(held, rows, strict=True) if r["label"]]
        caught = [not h for h, r in zip(held, rows, strict=True) if not r["label"]]
        both = (sum(kept) / len(kept) + sum(caught) / len(caught)) / 2
        domain = path.stem.removeprefix("summedits_")
        mark = "" if domain in DEVELOPED else " (held out)"
        lines.append(f"| {domain}{mark} | {len(rows)} | {share(kept)} | {share(caught)} | {both:.3f} |")
    return "\n".join(lines)


def delivered(server: Server, answers: Sequence[Answer]) -> str:
    """How many delivered sentences stand in no passage that their answer cites, and a sample of them all."""
    passages: dict[str, str] = {}
    checked: list[tuple[str, bool]] = []
    quoted: list[bool] = []
    for answer in answers:
        for citation in answer.citations:
            if citation["chunk"] not in passages:
                found = server.call(f"/api/v1/passages/{citation['chunk']}")
                passages[citation["chunk"]] = " ".join([found["title"], *found["headings"], found["text"]])
        sources = [passages[c["chunk"]] for c in answer.citations]
        quoted.append(
            all(any(" ".join(_tokens(_plain(s))) in p for p in map(_flat, sources)) for s in cut(answer.text))
        )
        checked += [(s, any(stands_in(s, p) for p in sources)) for s in cut(answer.text)]
    missing = [s for s, ok in checked if not ok]
    sample = random.Random(1).sample(checked, min(SAMPLED, len(checked)))
    return "\n".join(
        [
            f"Without support by the independent checker: {share([not ok for _, ok in checked])} sentences of "
            f"{len(answers)} answers.",
            f"Answers whose every sentence stands word for word in a cited passage: {share(quoted)}.",
            "",
            f"{len(sample)} of the sentences, drawn at random:",
            "",
            *(f"- {'' if ok else '**without support** '}{' '.join(s.split())}" for s, ok in sample),
            "",
            "All without support:" if missing else "",
            "",
            *(f"- {' '.join(s.split())}" for s in missing[:SAMPLED]),
        ]
    ).rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="a Markdown page")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the public data sets")
    parser.add_argument("--limit", type=int, default=10_000, help="questions, or summaries, of one set")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        apps = [HELPDESK]
        if (options.data / "enterprise_hr").is_dir():
            shutil.copytree(options.data / "enterprise_hr" / "docs", folder / "hr" / "knowledge")
            (folder / "hr" / "app.yaml").write_text(HR_APP)
            apps.append(folder / "hr")
        with running(folder, *apps) as server:
            refused, answers = refusals(server, options.data, options.limit)
            parts = [
                ("What is refused", refused),
                ("What is delivered", delivered(server, answers)),
                ("Answers made elsewhere: `POST /api/v1/guard/support`", support(server, options.data, options.limit)),
            ]
    page = "\n\n".join([f"# Grounding\n\n{_HOW}", *(f"## {title}\n\n{text}" for title, text in parts)])
    print(page)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(page + "\n")


_HOW = """Written by `python -m bench.grounding`, from a server that it starts. The example answers with its own small
model; enterprise_hr with `echo`, whose words never pass the check, so that its answers are quotes. Questions that only
a group may have answered are left out. The labels of enterprise_hr's questions without an answer are used as given:
by our reading, 11 of the 45 are answered in its documents."""


if __name__ == "__main__":
    main()
