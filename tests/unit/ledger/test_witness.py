"""The witness: it signs nothing that does not continue what it signed, whoever asks, however often, at once."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from proveout.ledger.note import SigningKey, add_cosignatures, sign_checkpoint
from proveout.ledger.receipt import encode_request
from proveout.ledger.tree import consistency_spans, hashes
from proveout.ledger.verify import Checkpoint, split_note
from proveout.ledger.witness import (
    BadProof,
    Conflicting,
    MalformedRequest,
    NotSigned,
    Refused,
    UnknownLog,
    Witness,
)
from tlog import LOG, POLICY, WITNESS, Log, entries


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(WITNESS, {LOG.verifier.name: LOG.verifier}, tmp_path, lambda: 1234.5)


def grown(*steps: int) -> Log:
    log = Log()
    for step in steps:
        log.append(entries(step, len(log.entries)), seen=False)
    return log


def size_of(note: bytes) -> int:
    return Checkpoint.parse(split_note(note)[0]).size


def root_of(note: bytes) -> bytes:
    return Checkpoint.parse(split_note(note)[0]).root


def request(log: Log, old: int, note: bytes | None = None) -> bytes:
    note = note or log.past[-1]
    size = size_of(note)
    proof = hashes(log.read, consistency_spans(old, size), size) if 0 < old <= size else []
    return encode_request(old, proof, note)


def test_it_cosigns_what_continues(witness: Witness) -> None:
    log, last = grown(3, 0, 300, 700), 0
    for note in log.past:
        answer = witness.add_checkpoint(request(log, last, note))
        assert POLICY.open(add_cosignatures(note, answer, WITNESS.verifier))[1] == {WITNESS.verifier.name: 1234}
        last = size_of(note)
    assert last == 1003


def test_refusals_in_the_order_of_the_specification(witness: Witness) -> None:
    log = grown(300, 700)
    first, second = log.past
    witness.add_checkpoint(request(log, 0, first))
    with pytest.raises(UnknownLog):
        witness.add_checkpoint(request(log, 0, sign_checkpoint(SigningKey.generate("who.example"), 5, bytes(32))))
    with pytest.raises(NotSigned):
        witness.add_checkpoint(encode_request(300, [], second.replace(b"\n1000\n", b"\n1001\n")))
    with pytest.raises(NotSigned):
        witness.add_checkpoint(
            encode_request(300, [], sign_checkpoint(SigningKey.generate(LOG.verifier.name), 5, bytes(32)))
        )
    with pytest.raises(MalformedRequest, match="larger"):
        witness.add_checkpoint(encode_request(1001, [], second))
    for old in (0, 1, 299, 301, 1000):
        with pytest.raises(Conflicting) as error:
            witness.add_checkpoint(request(log, old, second))
        assert error.value.size == 300
    with pytest.raises(BadProof):
        witness.add_checkpoint(encode_request(300, [], second))
    with pytest.raises(BadProof):
        witness.add_checkpoint(encode_request(300, [bytes(32)] * 5, second))
    with pytest.raises(BadProof):
        witness.add_checkpoint(encode_request(300, [bytes(32)], first))
    witness.add_checkpoint(request(log, 300, second))
    with pytest.raises(Conflicting) as error:
        witness.add_checkpoint(request(log, 300, second))
    assert error.value.size == 1000


def test_a_first_checkpoint_takes_no_proof(witness: Witness) -> None:
    log = grown(300)
    with pytest.raises(BadProof):
        witness.add_checkpoint(encode_request(0, [bytes(32)], log.past[0]))
    witness.add_checkpoint(encode_request(0, [], log.past[0]))


def test_a_fork_gets_nothing(witness: Witness) -> None:
    log, fork = grown(300, 700), Log()
    witness.add_checkpoint(request(log, 0, log.past[0]))
    fork.append([*entries(299), b"another"], seen=False)
    fork.append(entries(700, 300), seen=False)
    with pytest.raises(Conflicting):
        witness.add_checkpoint(request(fork, 300, fork.past[0]))
    with pytest.raises(BadProof):
        witness.add_checkpoint(request(fork, 300, fork.past[1]))
    witness.add_checkpoint(request(log, 300))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"old 0\n",
        b"old 0\n\n",
        b"new 0\n\nNOTE",
        b"old 00\n\nNOTE",
        b"old -1\n\nNOTE",
        b"old 9223372036854775808\n\nNOTE",
        b"old 0\nnot base64\n\nNOTE",
        b"old 0\nAAAA\n\nNOTE",
        b"old \xff\n\nNOTE",
        b"old 0\r\n\r\nNOTE",
        b"old 0\n" + b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" * 64 + b"\nNOTE",
        b"old 0\n\n" + b"x" * 70_000,
    ],
)
def test_malformed_requests(witness: Witness, body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        witness.add_checkpoint(body.replace(b"NOTE", grown(2).past[0]))


def test_it_remembers_after_a_restart_and_knows_damage(witness: Witness, tmp_path: Path) -> None:
    log = grown(300, 700)
    witness.add_checkpoint(request(log, 0, log.past[0]))
    again = Witness(WITNESS, {LOG.verifier.name: LOG.verifier}, tmp_path)
    with pytest.raises(Conflicting):
        again.add_checkpoint(request(log, 0))
    state = next(path for path in tmp_path.iterdir() if not path.suffix)
    kept = state.read_bytes()
    for damage in (b"", kept[:40], kept.replace(b"\n300\n", b"\n0\n")):
        state.write_bytes(damage)
        with pytest.raises(OSError, match="damaged"):  # it must not begin anew, nor sign
            again.add_checkpoint(request(log, 0))
    state.write_bytes(kept)
    again.add_checkpoint(request(log, 300))


def test_it_answers_only_what_is_durable(witness: Witness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = grown(300, 700)
    order: list[str] = []
    sync, rename = os.fsync, Path.replace

    def noted_sync(fd: int) -> None:
        order.append("fsync")
        sync(fd)

    def noted_rename(new: Path, old: Path) -> Path:
        order.append("rename")
        return rename(new, old)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_rename)
    witness.add_checkpoint(request(log, 0, log.past[0]))
    assert order == ["fsync", "rename", "fsync"]

    def broken(fd: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        witness.add_checkpoint(request(log, 300))
    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(Conflicting) as error:
        witness.add_checkpoint(request(log, 0))
    assert error.value.size == 300


def test_many_at_once_never_roll_back(tmp_path: Path) -> None:
    """Two witnesses on one folder, eight askers with forks of one log: the cosigned sizes form one chain."""
    trunk = grown(*[40] * 12)
    forks = []
    for n in range(4):
        fork = grown(*[40] * (n + 3))
        fork.append([b"fork %d" % n] * 40, seen=False)
        fork.append(entries(200, 1000), seen=False)
        forks.append(fork)
    signed: list[tuple[int, bytes]] = []
    barrier = threading.Barrier(8)

    def ask(log: Log) -> None:
        mine = Witness(WITNESS, {LOG.verifier.name: LOG.verifier}, tmp_path)
        barrier.wait()
        for note in log.past * 2:
            old = 0
            for _ in range(20):
                try:
                    mine.add_checkpoint(request(log, old, note))
                    signed.append((size_of(note), root_of(note)))
                    break
                except Conflicting as error:
                    old = error.size
                    if old >= size_of(note):
                        break
                except Refused:
                    break

    threads = [threading.Thread(target=ask, args=(log,)) for log in (*forks, trunk, trunk, trunk, trunk)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    roots = dict(signed)
    assert len(signed) >= 3 and all(roots[size] == root for size, root in signed), "two roots of one size"
    last = roots[max(roots)]
    winner = next(log for log in (trunk, *forks) if any(root_of(note) == last for note in log.past))
    chain = {size_of(note): root_of(note) for note in winner.past}
    assert roots.items() <= chain.items(), "a cosigned checkpoint is not in the past of the last one"
