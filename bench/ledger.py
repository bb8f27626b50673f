"""What the record costs a request, and a log of a million entries: appended, proven, verified again as auditors do.

python -m bench.ledger [--entries 1000000] [--requests 20000] [--folder DIR] [--output docs/measured/ledger.md]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from psycopg import AsyncConnection

from proveout.domain import Outcome, Parameters, Scope
from proveout.ledger import leaf, verify
from proveout.ledger.decision import Check, Decision, Retrieval
from proveout.ledger.integrate import Integrator, LogKeys
from proveout.ledger.journal import Completion, Intent, Journal, now
from proveout.ledger.log import Log
from proveout.ledger.note import SigningKey, add_cosignatures, sign_checkpoint, text_of
from proveout.ledger.receipt import encode_receipt
from proveout.ledger.tree import Tree, consistency_spans, hashes, inclusion_spans
from proveout.store.pool import Store
from proveout.store.postgres import EmbeddedPostgres
from proveout.store.schema import migrate
from proveout.store.sealing import Keyring

Figure = tuple[str, str]
"""What was measured, and how much it is."""

_ALONE = 1_000  # requests of one writer
_WRITERS = 512
_PLAIN = "insert into plain values (%s, %s, %s)"
_BATCH = 1000
_START = datetime(2026, 1, 1, tzinfo=UTC)
_PAGE = """\
# The record, and its log

Written by `python -m bench.ledger --output docs/measured/ledger.md`, on {cores} cores that were shared.

## What the record costs

Into a Postgres of its own with its shipped settings (every commit is flushed), {requests:,} requests of two records
each, as an app with knowledge leaves them. The plain row is the completion's JSON and its sealed payload, in a table
of their own, by a prepared statement.

{recorded}

## A log of {entries:,} entries, in files

{kept}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=20_000, help="written to a database, of two records each")
    parser.add_argument("--folder", type=Path, help="where the log goes (default: a temporary folder)")
    parser.add_argument("--output", type=Path, help="the page to write")
    args = parser.parse_args()
    recorded = asyncio.run(_record(args.requests))
    folder = args.folder or Path(tempfile.mkdtemp(prefix="ledger-"))
    log, witness = SigningKey.generate("bench.example/log"), SigningKey.generate("w.example", verify.COSIGNATURE)
    try:
        policy = verify.Policy(log.verifier, (witness.verifier,), 1)
        kept = [
            *_append(folder, args.entries, log, witness),
            *_prove(folder, args.entries, policy),
            *_verify(folder, args.entries, policy),
        ]
    finally:
        if not args.folder:
            shutil.rmtree(folder)
    page = _PAGE.format(
        cores=os.cpu_count(),
        requests=args.requests,
        entries=args.entries,
        recorded=_table(recorded),
        kept=_table(kept),
    )
    print(page)
    if args.output:
        args.output.write_text(page, encoding="utf-8")


def _table(figures: Sequence[Figure]) -> str:
    return "\n".join(["| what | |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in figures)])


async def _record(count: int) -> list[Figure]:
    """What the journal costs over a plain durable row, and what it carries; in a Postgres of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        with EmbeddedPostgres(place / "postgres", place).serving() as dsn:
            await migrate(dsn)
            store = Store(dsn, size=4)
            await store.open()
            async with store.unscoped() as session:
                await session.run("workspaces.ensure", name="default", secret=bytes(32))
            journal = Journal(store)
            writing = asyncio.create_task(journal.run())
            try:
                return [*await _alone(dsn, journal), *await _together(store, journal, count)]
            finally:
                writing.cancel()
                await store.close()


async def _alone(dsn: str, journal: Journal) -> list[Figure]:
    """One writer: an intent and a completion as the journal keeps them, and the same content as a row of its own."""
    times: dict[str, list[float]] = {"plain": [], "intent": [], "completion": []}
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("create table plain (request text primary key, about jsonb, payload bytea)")
        for number in range(_ALONE):
            intent, completion = _request(number)
            about = msgspec.json.encode(replace(completion, payload=None)).decode()
            for name, work in (
                ("plain", connection.execute(_PLAIN, (intent.request, about, completion.payload), prepare=True)),
                ("intent", journal.write(intent)),
                ("completion", journal.write(completion)),
            ):
                before = time.perf_counter()
                await work
                times[name].append(time.perf_counter() - before)
    added = statistics.median(times["completion"]) - statistics.median(times["plain"])
    return [
        ("a plain durable row, one writer", _times(times["plain"])),
        ("an intent, one writer", _times(times["intent"])),
        ("a completion with its decision and payload, one writer", _times(times["completion"])),
        ("added by a completion over the plain row, p50", f"{added * 1e3:.2f} ms"),
    ]


async def _together(store: Store, journal: Journal, count: int) -> list[Figure]:
    """Many writers: durable records a second; then the integrator, and receipts from the database."""
    requests = [_request(_ALONE + number) for number in range(count)]
    waiting = iter(requests)

    async def write() -> None:
        for intent, completion in waiting:
            await journal.write(intent)
            await journal.write(completion)

    before = time.perf_counter()
    async with asyncio.TaskGroup() as writers:
        for _ in range(_WRITERS):
            writers.create_task(write())
    written = time.perf_counter() - before
    keys = LogKeys(Keyring(bytes(32)), "bench.example")
    integrator, system, taken = Integrator(store, keys), Scope.system("default", "bench"), 0
    before = time.perf_counter()
    while some := await integrator.integrate(system):
        taken += some
    integrated = time.perf_counter() - before
    log, made = Log(store, keys), []
    for intent, _ in random.Random(1).sample(requests, 300):
        before = time.perf_counter()
        await log.proof(Scope("default", "auditor"), intent.request)
        made.append(time.perf_counter() - before)
    return [
        (f"durable records, {_WRITERS} writers", f"{2 * count / written:,.0f} /s"),
        ("events taken into the log", f"{taken / integrated:,.0f} /s"),
        (f"a receipt from a database of {taken:,} entries", _times(made)),
    ]


def _request(number: int) -> tuple[Intent, Completion]:
    """A request as an app with knowledge leaves it."""
    request = f"req_{number:032x}"
    found = Retrieval({"handbook": f"sha256:{0:064x}"}, [(str(n), 0.5) for n in range(6)], 7, "r" * 44, 0.9, 12.5)
    verdicts = (Check("groundedness", "block", "no source supports this sentence", 0.1),)
    decision = Decision("i" * 44, "o" * 44, captured=True, retrieval=found, verdicts=verdicts)
    intent = Intent(
        request, "default", "key_1", "request", "local/model", Parameters(), streamed=True, begun=now(), app="desk"
    )
    completion = Completion(
        request, "default", Outcome.ANSWERED, "", 140, 64, 812.5, now(), grounded=True, first_token_ms=90.5,
        first_sentence_ms=240.25, cost_usd=0.0, model="local/model", served_by="model", runtime="bench",
        documents=("hr/annual-leave.md",), subject=f"{number % 100:032x}", payload=bytes(1_500), decision=decision,
    )  # fmt: skip
    return intent, completion


def _append(folder: Path, count: int, log: SigningKey, witness: SigningKey) -> list[Figure]:
    commitment = leaf.commit({"request": "req_1"}, leaf.new_salt())
    tree, spent, records = Tree(), 0.0, 0.0
    for start in range(0, count, _BATCH):
        before = time.perf_counter()
        entries = [
            leaf.entry("request:chat:completed", "acme", _START + timedelta(seconds=n), commitment)
            for n in range(start, min(start + _BATCH, count))
        ]
        records += time.perf_counter() - before
        before = time.perf_counter()
        tiles = tree.append(entries)
        root = tree.root
        spent += time.perf_counter() - before
        for tile, content in tiles.items():
            if tile.width == verify.WIDTH or start + _BATCH >= count:
                file = folder / tile.path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
    note = sign_checkpoint(log, count, root)
    note = add_cosignatures(note, witness.cosign(text_of(note), int(time.time())), witness.verifier)
    (folder / "checkpoint").write_bytes(note)
    return [
        ("entries made, as canonical JSON", f"{count / records:,.0f} /s"),
        (f"entries appended, with tiles and root for every {_BATCH:,}", f"{count / spent:,.0f} /s"),
    ]


def _prove(folder: Path, count: int, policy: verify.Policy) -> list[Figure]:
    read, some, note = verify.tile_reader(verify.fetch_from(str(folder))), random.Random(1), b""
    made, checked, sizes, consistent = [], [], [], []
    for _ in range(300):
        index = some.randrange(count)
        before = time.perf_counter()
        note = (folder / "checkpoint").read_bytes()
        bundle = verify.tile_of(verify.ENTRIES, index // verify.WIDTH, count)
        entry = verify.split_bundle(read(bundle), bundle)[0][index % verify.WIDTH]
        proof = tuple(hashes(read, inclusion_spans(index, count), count))
        receipt = encode_receipt(verify.Receipt(index, proof, note, entry))
        made.append(time.perf_counter() - before)
        sizes.append(len(receipt))
        before = time.perf_counter()
        verify.Receipt.parse(receipt).check(policy)
        checked.append(time.perf_counter() - before)
        old = some.randrange(1, count)
        before = time.perf_counter()
        hashes(read, consistency_spans(old, count), count)
        consistent.append(time.perf_counter() - before)
    return [
        ("a receipt made", _times(made)),
        ("its size, at most", f"{max(sizes):,} bytes"),
        ("a receipt verified", _times(checked)),
        ("a consistency proof made", _times(consistent)),
    ]


def _verify(folder: Path, count: int, policy: verify.Policy) -> list[Figure]:
    command = [sys.executable, "-I", verify.__file__]
    keys = ["--key", str(policy.log), "--witness", str(policy.witnesses[0])]
    memory, figures = Path(tempfile.mkdtemp(prefix="memory-")), []
    try:
        for name, arguments in (
            ("whole log verified", ["log", str(folder)]),
            ("followed from nothing", ["follow", str(folder), "--memory", str(memory)]),
            ("followed, no news", ["follow", str(folder), "--memory", str(memory)]),
            ("verified with memory", ["log", str(folder), "--memory", str(memory)]),
        ):
            before = time.perf_counter()
            subprocess.run([*command, *arguments, *keys], check=True, stdout=subprocess.DEVNULL)
            figures.append((f"{name}, as a process", f"{time.perf_counter() - before:.1f} s"))
    finally:
        shutil.rmtree(memory)
    return figures


def _times(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99)]
    return f"p50 {statistics.median(ordered) * 1e3:5.2f} ms, p99 {p99 * 1e3:5.2f} ms"


if __name__ == "__main__":
    main()
