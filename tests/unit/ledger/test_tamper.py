"""Whatever an insider does to the past, an outsider finds it, and where it is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from proveout.ledger.tree import Tree
from proveout.ledger.verify import Checkpoint, Rejected, check_consistency, follow, split_note
from tampering import Past, audited, remembered, tamper
from tlog import LOG, POLICY, WITNESS, Log, entries


@pytest.fixture
def past(tmp_path: Path) -> Past:
    return remembered(tmp_path)


@pytest.mark.parametrize("block", range(10))
def test_every_tampering_is_found_where_it_is(past: Past, block: int) -> None:
    for seed in range(block * 50, block * 50 + 50):
        tamper(past, seed)


def test_a_true_log_is_not_accused(past: Past) -> None:
    assert audited(past.log, past, memory=True) == audited(past.log, past, memory=False) == []
    past.log.append(entries(700, past.size))
    assert audited(past.log, past, memory=True) == []
    assert follow(past.log.fetch, POLICY, past.memory)[2] == []
    # Partial tiles may go once the full ones are there.
    past.log.files = {path: content for path, content in past.log.files.items() if ".p/" not in path} | {
        tile.path: past.log.read(tile) for tile in Tree.load(past.log.read, len(past.log.entries))._frontier.partial()
    }
    last = f"tile/entries/006.p/{len(past.log.entries) % 256}"
    past.log.files[last] = b"".join(len(e).to_bytes(2, "big") + e for e in past.log.entries[6 * 256 :])
    assert audited(past.log, past, memory=True) == []


def test_a_change_in_any_file_is_found_in_that_file(past: Past) -> None:
    """One byte of one file, its length, or the file: what is served does not fit together any more."""
    some = random.Random(7)
    size = past.size
    served = {
        p for p in past.log.files if p.endswith((f".p/{size % 256}", ".p/3", "000", "001", "002")) and "tile" in p
    }
    for path in sorted(served):
        true = past.log.files[path]
        place = some.randrange(len(true))
        for false in (true[:place] + bytes([true[place] ^ 4]) + true[place + 1 :], true[:place], true + b"!", None):
            if false is None:
                del past.log.files[path]
            else:
                past.log.files[path] = false
            findings = audited(past.log, past, memory=True)
            assert any(finding.path == path for finding in findings), (path, place, findings)
            past.log.files[path] = true
    assert audited(past.log, past, memory=True) == []


def test_a_split_view_is_seen_by_whoever_compares(past: Past) -> None:
    """Two logs of one size, both signed by the log: one of them the witness did not sign, and both roots differ."""
    other = Log()
    other.append([*entries(past.size - 1), b"for your eyes only"], seen=False)
    with pytest.raises(Rejected, match="seen by 0 witnesses"):
        POLICY.open(other.files["checkpoint"])
    seen, shown = past.checkpoints[-1], Checkpoint.parse(split_note(other.files["checkpoint"])[0])
    with pytest.raises(Rejected, match="forked"):
        check_consistency(seen.size, seen.root, shown.size, shown.root, [])


def test_a_claim_of_a_vast_size_ends(past: Past) -> None:
    text = Checkpoint(LOG.verifier.name, 2**62, bytes(32)).text
    note = text + b"\n" + LOG.sign(text)
    past.log.files["checkpoint"] = note + WITNESS.cosign(text, 1)
    assert len(audited(past.log, past, memory=True)) > 1000
    assert len(follow(past.log.fetch, POLICY, past.memory)[2]) > 1000


def test_a_monitor_without_news_looks_at_the_last_entries_again(past: Past) -> None:
    path = f"tile/entries/003.p/{past.size % 256}"
    past.log.files[path] = past.log.files[path].replace(b'"n":956', b'"n":000')
    assert [(f.path, f.index) for f in follow(past.log.fetch, POLICY, past.memory)[2]] == [(path, 956)]


def test_a_monitor_knows_when_its_own_memory_is_damaged(past: Past, tmp_path: Path) -> None:
    past.log.append(entries(10, past.size))
    file = tmp_path / "tile/0/003"
    file.write_bytes(bytes(32) + file.read_bytes()[32:])
    with pytest.raises(OSError, match="memory is damaged"):
        follow(past.log.fetch, POLICY, past.memory)
