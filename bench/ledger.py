"""A log of a million entries: appending, receipts, and the whole of it verified again, as an auditor would.

python -m bench.ledger [--entries 1000000] [--folder DIR]
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from proveout.ledger import leaf, verify
from proveout.ledger.note import SigningKey, add_cosignatures, sign_checkpoint, text_of
from proveout.ledger.receipt import encode_receipt
from proveout.ledger.tree import Tree, consistency_spans, hashes, inclusion_spans

_BATCH = 1000
_START = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the log goes (default: a temporary folder)")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="ledger-"))
    log, witness = SigningKey.generate("bench.example/log"), SigningKey.generate("w.example", verify.COSIGNATURE)
    try:
        policy = verify.Policy(log.verifier, (witness.verifier,), 1)
        _append(folder, args.entries, log, witness)
        _prove(folder, args.entries, policy)
        _verify(folder, args.entries, policy)
    finally:
        if not args.folder:
            shutil.rmtree(folder)


def _append(folder: Path, count: int, log: SigningKey, witness: SigningKey) -> None:
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
    print(f"entries made          {count / records:12,.0f} /s   (canonical JSON)")
    print(f"entries appended      {count / spent:12,.0f} /s   (tiles and root for every {_BATCH})")


def _prove(folder: Path, count: int, policy: verify.Policy) -> None:
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
    print(f"receipt made          {_times(made)}, at most {max(sizes)} bytes")
    print(f"receipt verified      {_times(checked)}")
    print(f"consistency proof     {_times(consistent)}")


def _verify(folder: Path, count: int, policy: verify.Policy) -> None:
    command = [sys.executable, "-I", verify.__file__]
    keys = ["--key", str(policy.log), "--witness", str(policy.witnesses[0])]
    memory = Path(tempfile.mkdtemp(prefix="memory-"))
    try:
        for name, arguments in (
            ("whole log verified", ["log", str(folder)]),
            ("followed from nothing", ["follow", str(folder), "--memory", str(memory)]),
            ("followed, no news", ["follow", str(folder), "--memory", str(memory)]),
            ("verified with memory", ["log", str(folder), "--memory", str(memory)]),
        ):
            before = time.perf_counter()
            subprocess.run([*command, *arguments, *keys], check=True, stdout=subprocess.DEVNULL)
            print(f"{name:<21} {time.perf_counter() - before:12.2f} s    ({count:,} entries, as a process)")
    finally:
        shutil.rmtree(memory)


def _times(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99)]
    return f"p50 {statistics.median(ordered) * 1e3:5.2f} ms, p99 {p99 * 1e3:5.2f} ms"


if __name__ == "__main__":
    main()
