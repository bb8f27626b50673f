"""The verifier as an auditor has it: one file, copied elsewhere, with nothing of the project beside it."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proveout.ledger import leaf, verify
from proveout.ledger.receipt import encode_receipt, proof_lines
from proveout.ledger.tree import consistency_spans, hashes
from tlog import LOG, POLICY, WITNESS, Log, entries

KEYS = ("--key", str(LOG.verifier), "--witness", str(WITNESS.verifier))
RECORD, SALT = {"request": "req_1", "subject": "s-7"}, bytes(32)


class Auditor:
    """A folder with a copy of the verifier, a log, and what was remembered of it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, Log()
        shutil.copy(verify.__file__, folder / "verify.py")
        self.grow(300)

    def grow(self, count: int) -> None:
        self.log.append(entries(count, len(self.log.entries)))
        self.publish()

    def publish(self) -> None:
        for path, content in self.log.files.items():
            self.write(f"log/{path}", content)

    def write(self, path: str, content: bytes) -> str:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)
        return path

    def run(self, *arguments: str, keys: tuple[str, ...] = KEYS) -> tuple[int, str]:
        command = [sys.executable, "-I", "verify.py", *arguments, *keys]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def auditor(tmp_path: Path) -> Auditor:
    return Auditor(tmp_path)


def test_a_log_in_a_folder(auditor: Auditor) -> None:
    assert auditor.run("log", "log") == (
        0,
        "verified: log.example/acme, 300 entries, {'witness.example/w1': 1700000000}\n",
    )
    auditor.log.files["tile/entries/001.p/44"] = auditor.log.files["tile/entries/001.p/44"].replace(
        b'"n":260', b'"n":999'
    )
    auditor.publish()
    code, said = auditor.run("log", "log", "--json")
    assert code == 1
    report = json.loads(said)
    offset = sum(len(entry) + 2 for entry in auditor.log.entries[256:260])
    assert report["verified"] is False and report["size"] == 300
    assert report["findings"] == [
        {
            "problem": "the entry is not the one that tile/0/001.p/44 has the hash of",
            "path": "tile/entries/001.p/44",
            "index": 260,
            "offset": offset,
            "count": 1,
        }
    ]
    assert auditor.run("log", "log")[1].startswith(f"tile/entries/001.p/44, byte {offset}, entry 260: the entry is not")


def test_a_monitor_follows_and_remembers(auditor: Auditor) -> None:
    for size in (300, 300, 1000):
        auditor.grow(size - len(auditor.log.entries))
        code, said = auditor.run("follow", "log", "--memory", "memory")
        assert (code, said.split(",")[1]) == (0, f" {size} entries")
    forged = Log()
    forged.append([*entries(400), b"false", *entries(700, 401)])
    auditor.log = forged
    auditor.publish()
    for command in ("follow", "log"):
        code, said = auditor.run(command, "log", "--memory", "memory")
        assert code == 1 and "tile/0/001, byte 4608, entry 400: the entry is not the one that was remembered" in said
    code, said = auditor.run("log", "log", "--memory", "memory", "--json")
    assert {"index": 400, "path": "tile/0/001"}.items() <= json.loads(said)["findings"][0].items()


def test_checkpoints_and_their_consistency(auditor: Auditor) -> None:
    auditor.grow(700)
    old, new = (auditor.write(f"{n}.note", note) for n, note in enumerate(auditor.log.past))
    proof = auditor.write("proof", proof_lines(hashes(auditor.log.read, consistency_spans(300, 1000), 1000)))
    assert auditor.run("checkpoint", new)[0] == 0
    assert auditor.run("checkpoint", new, "--since", old, "--proof", proof)[0] == 0
    assert auditor.run("checkpoint", new, "--since", old) == (1, "there is no proof\n")
    assert auditor.run("checkpoint", old, "--since", new, "--proof", proof)[0] == 1
    assert auditor.run("log", "log", "--remembered", old, "--remembered", new)[0] == 0
    stranger = auditor.write("2.note", Log().append(entries(5), seen=False))
    assert auditor.run("checkpoint", stranger)[1] == "checkpoint, byte 65: seen by 0 witnesses, must be 1\n"
    assert auditor.run("checkpoint", stranger, "--quorum", "0")[0] == 0


def test_a_receipt_and_what_it_opens(auditor: Auditor) -> None:
    auditor.log.append([leaf.canonical({"commitment": leaf.commit(RECORD, SALT)})])
    receipt = auditor.write("a.tlog-proof", encode_receipt(auditor.log.receipt(300)))
    right = auditor.write("right", leaf.opening(RECORD, SALT))
    wrong = auditor.write("wrong", leaf.opening({**RECORD, "subject": "s-8"}, SALT))
    other = auditor.write("other", b"another entry")
    assert auditor.run("receipt", receipt)[0] == 0
    assert auditor.run("receipt", receipt, "--opening", right)[0] == 0
    assert auditor.run("receipt", receipt, "--opening", wrong) == (1, "the entry commits to another record or salt\n")
    assert auditor.run("receipt", receipt, "--entry", other)[0] == 1


def test_what_cannot_be_read_is_no_verdict(auditor: Auditor) -> None:
    for arguments in (("log", "nowhere"), ("receipt", "nowhere"), ("log",), (), ("log", "log", "--quorum", "2")):
        assert auditor.run(*arguments)[0] == 2
    code, said = auditor.run("log", "log", keys=("--key", "nonsense"))
    assert code == 2 and "not a verifier key" in said
    auditor.write("log/checkpoint", b"nonsense")
    assert auditor.run("log", "log")[0] == 1


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def url(auditor: Auditor) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(auditor.folder / "log"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_log_behind_a_url(auditor: Auditor, url: str) -> None:
    assert auditor.run("log", url)[0] == 0
    assert auditor.run("follow", url + "/", "--memory", "memory")[0] == 0
    (auditor.folder / "log/tile/0/000").unlink()
    assert auditor.run("log", url) == (1, "tile/0/000, entry 0: cannot be read\n")


def test_it_needs_nothing_of_the_project() -> None:
    source = Path(verify.__file__).read_text()
    assert "proveout" not in source.lower().replace("proveout audit", "")
    imported = {line.split()[1].split(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert imported - set(sys.stdlib_module_names) == {"cryptography"}


@given(st.binary(max_size=400) | st.text(max_size=300).map(str.encode))
def test_nonsense_is_rejected_and_nothing_else(nonsense: bytes) -> None:
    for body in (nonsense, b"c2sp.org/tlog-proof@v1\nindex 1\n" + nonsense, b"log\n1\n" + nonsense):
        with pytest.raises(verify.Rejected):
            verify.Receipt.parse(body).check(POLICY)
        with pytest.raises(verify.Rejected):
            POLICY.open(body)
        with pytest.raises(verify.Rejected):
            verify.check_opening(body, body)
        tile = verify.TileId(verify.ENTRIES, 0, 256)
        assert verify.split_bundle(body, tile)[2] is not None


def test_where_witnesses_must_have_signed_the_newest_that_they_saw_is_read(tmp_path: Path) -> None:
    log = Log()
    log.files["witnessed"] = log.append(entries(3))
    log.append(entries(4, 3), seen=False)  # nobody had the time for this one
    assert verify.head(log.fetch, verify.Policy(LOG.verifier)) == log.past[1]
    assert verify.head(log.fetch, POLICY) == log.past[0]
    checkpoint, _, findings = verify.follow(log.fetch, POLICY, verify.Memory(tmp_path))
    assert (checkpoint.size, findings) == (3, [])
    del log.files["witnessed"]
    with pytest.raises(verify.Rejected, match="seen by 0 witnesses"):
        verify.follow(log.fetch, POLICY, verify.Memory(tmp_path))
