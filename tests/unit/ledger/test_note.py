"""Signed notes, checkpoints, cosignatures: the published example, and everything that must not pass."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proveout.errors import InvalidInput
from proveout.ledger.note import SigningKey, add_cosignatures, sign_checkpoint, text_of
from proveout.ledger.verify import (
    COSIGNATURE,
    ED25519,
    EMPTY_ROOT,
    Checkpoint,
    Policy,
    Rejected,
    VerifierKey,
    open_note,
    split_note,
)
from tlog import LOG, POLICY, SEEN, WITNESS, Log, entries

# The example of golang.org/x/mod/sumdb/note, where the format comes from.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
SKEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
LINE = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
# A checkpoint of a log of Tessera, signed by it.
TESSERA = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
TESSERA_NOTE = """example.com/log/testdata
100270
GRV1O0dCqmjjPvYi7CtOT79zb/fPwLNsMFWsynwU8Ac=

— example.com/log/testdata M9e0lkcvy5bAe7rrC8tCyAP+my+CLzswA91zOpBNWVU7qCojkUOHnfdQzDImoYeYH8G8PJSwOqsx0RkSa261OmKVwwM=
""".encode()
# The example of tlog-cosignature.
EXAMPLE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZ"
    "qhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()


def test_the_published_note_is_made_and_opened_byte_for_byte() -> None:
    key = SigningKey.parse(SKEY)
    assert (str(key.verifier), key.encode(), key.sign(TEXT).decode()) == (VKEY, SKEY, LINE)
    assert open_note(TEXT + b"\n" + LINE.encode(), [VerifierKey.parse(VKEY)]) == (TEXT, {key.verifier: None})


def test_a_published_checkpoint_opens() -> None:
    checkpoint, seen = Policy(VerifierKey.parse(TESSERA)).open(TESSERA_NOTE)
    assert (checkpoint.origin, checkpoint.size, seen) == ("example.com/log/testdata", 100_270, {})


def test_the_published_cosignature_is_framed_as_ours() -> None:
    text, signatures = split_note(EXAMPLE)
    assert Checkpoint.parse(text).size == 20_852_163
    name, _, signature, offset = signatures[1]
    assert name == "witness.example.com/w1" and len(signature) == 72 and EXAMPLE[offset:].startswith("— wit".encode())
    assert int.from_bytes(signature[:8], "big") == 1_679_315_147


@pytest.mark.parametrize(
    "note",
    [
        TEXT,
        TEXT + b"\n",
        TEXT + b"\n" + LINE.encode()[:-1],
        b"\x01" + TEXT + b"\n" + LINE.encode(),
        b"\xff" + TEXT + b"\n" + LINE.encode(),
        TEXT.replace(b" ", b"\t") + b"\n" + LINE.encode(),
        TEXT + b"\n" + LINE.replace("PeterNeumann", "Bad Name").encode(),
        TEXT + b"\n" + LINE.encode() + b"Unexpected line.\n",
        TEXT + b"\n" + LINE.replace("—", "-").encode(),
        TEXT + b"\n" + LINE.replace("AM=", "AN=").encode(),
        TEXT + b"\n" + LINE.replace(" x08", "  x08").encode(),
        TEXT + b"\n" + LINE.encode() * 101,
        TEXT + b"\n" + "— PeterNeumann x08g\n".encode(),
        TEXT + b"\n" + LINE.replace("PeterNeumann", "SomebodyElse").encode(),
        b"",
        b"\n\n",
        TEXT * 700 + b"\n" + LINE.encode(),
    ],
)
def test_what_is_not_a_signed_note_is_refused(note: bytes) -> None:
    with pytest.raises(Rejected):
        open_note(note, [VerifierKey.parse(VKEY)])


def test_unknown_signatures_are_ignored_and_a_wrong_known_one_is_not() -> None:
    known, other = VerifierKey.parse(VKEY), SigningKey.generate("PeterNeumann")
    assert open_note(TEXT + b"\n" + other.sign(TEXT) + LINE.encode(), [known])[1] == {known: None}
    assert open_note(TEXT + b"\n" + LINE.encode() * 100, [known])[1] == {known: None}
    with pytest.raises(Rejected, match="signature of PeterNeumann is wrong") as error:
        open_note(TEXT + b"\n" + LINE.encode() + LINE.replace("x08go/Z", "x08go/Y").encode(), [known])
    assert error.value.finding.offset == len(TEXT) + 1 + len(LINE.encode())


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        VKEY.replace("c74f20a3", "C74F20A3"),
        VKEY.replace("c74f20a3", "c74f20a4"),
        VKEY.replace("PeterNeumann", "Peter Neumann"),
        VKEY.replace("PeterNeumann", ""),
        VKEY.removeprefix("PeterNeumann+"),
        "",
        "a+b",
    ],
)
def test_mangled_keys_are_refused(vkey: str) -> None:
    with pytest.raises(Rejected):
        VerifierKey.parse(vkey)


def test_every_part_of_a_signing_key_is_no_signing_key() -> None:
    for cut in [SKEY[i:] for i in range(1, len(SKEY))] + [SKEY[:i] for i in range(len(SKEY))]:
        with pytest.raises(InvalidInput) as error:
            SigningKey.parse(cut)
        assert "YEKFALVFGy" not in str(error.value), "an error must not repeat a private key"
    with pytest.raises(InvalidInput):
        SigningKey.parse(SKEY.replace("AYEK", "AYEL"))
    with pytest.raises(InvalidInput):
        SigningKey.generate("two words")
    assert "private" not in repr(SigningKey.parse(SKEY))


def test_a_witness_key_says_so() -> None:
    again = SigningKey.parse(WITNESS.encode())
    assert again.verifier == WITNESS.verifier and again.verifier.kind == COSIGNATURE
    assert VerifierKey.parse(str(WITNESS.verifier)) == WITNESS.verifier
    # Tools of the transparency world give witnesses keys of type 1 and take them for cosigning.
    taken = SigningKey.parse(SKEY, COSIGNATURE).verifier
    assert taken.kind == COSIGNATURE and taken.public == VerifierKey.parse(VKEY).public and taken.id.hex() != "c74f20a3"


@pytest.mark.parametrize(
    "text",
    [
        "log\n1\n",
        "log\n01\nROOT\n",
        "log\n-1\nROOT\n",
        "log\n+1\nROOT\n",
        "log\n1 \nROOT\n",
        "log\n١\nROOT\n",
        "log\n9223372036854775808\nROOT\n",
        "\n1\nROOT\n",
        "log\n1\nROOT\n\n",
        "log\n1\nROOT",
        "log\n1\nAAAA\n",
        "log\n0\nROOT\n",
    ],
)
def test_what_is_not_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        Checkpoint.parse(text.replace("ROOT", base64.b64encode(bytes(32)).decode()).encode())


def test_extension_lines_are_signed_and_otherwise_not_looked_at() -> None:
    text = Checkpoint("log", 0, EMPTY_ROOT).text + b"an extension\n"
    assert Checkpoint.parse(text) == Checkpoint("log", 0, EMPTY_ROOT)


def test_a_policy_counts_witnesses() -> None:
    others = [SigningKey.generate(f"w{n}.example", COSIGNATURE) for n in range(3)]
    policy = Policy(LOG.verifier, tuple(key.verifier for key in others), 2)
    note = sign_checkpoint(LOG, 0, EMPTY_ROOT)
    for count, key in enumerate(others):
        if count < 2:
            with pytest.raises(Rejected, match=f"seen by {count} witnesses, must be 2"):
                policy.open(note)
        note = add_cosignatures(note, key.cosign(text_of(note), SEEN + count), key.verifier)
        if count == 0:  # the same witness again is still one
            again = add_cosignatures(note, key.cosign(text_of(note), SEEN), key.verifier)
            with pytest.raises(Rejected, match="seen by 1 witnesses"):
                policy.open(again)
    assert policy.open(note)[1] == {"w0.example": SEEN, "w1.example": SEEN + 1, "w2.example": SEEN + 2}


def test_a_log_is_believed_only_under_its_own_name() -> None:
    note = Log().append(entries(3))
    assert POLICY.open(note)[0].size == 3
    stranger = SigningKey.generate("other.example")
    with pytest.raises(Rejected, match="not signed by the log"):  # the witness alone is not enough
        Policy(stranger.verifier, POLICY.witnesses, 1).open(note)
    text = Checkpoint("other.example/log", 3, bytes(32)).text
    with pytest.raises(Rejected, match="not signed by the log"):
        Policy(LOG.verifier).open(text + b"\n" + LOG.sign(text))


def test_policies_that_mean_nothing_are_refused() -> None:
    twin = VerifierKey("other.name", COSIGNATURE, WITNESS.verifier.public)
    for log, witnesses, quorum in (
        (LOG.verifier, (WITNESS.verifier,), 2),
        (LOG.verifier, (), -1),
        (WITNESS.verifier, (), 0),
        (LOG.verifier, (SigningKey.generate("w", ED25519).verifier,), 1),
        (LOG.verifier, (WITNESS.verifier, twin), 2),
        (LOG.verifier, (VerifierKey("w", COSIGNATURE, LOG.verifier.public),), 1),
    ):
        with pytest.raises(Rejected):
            Policy(log, witnesses, quorum)


def test_only_valid_answers_of_a_witness_are_added() -> None:
    note = sign_checkpoint(LOG, 0, EMPTY_ROOT)
    good, text = WITNESS.cosign(text_of(note), SEEN), text_of(note)
    stranger = SigningKey.generate("else.example", COSIGNATURE).cosign(text, SEEN)
    assert add_cosignatures(note, stranger + good, WITNESS.verifier) == note + good
    for answer in (b"", stranger, WITNESS.cosign(text + b"x", SEEN), b"\n\n" + good, good[:-1], b"sorry\n"):
        with pytest.raises(Rejected):
            add_cosignatures(note, answer, WITNESS.verifier)


NOTE = Log().append(entries(300))


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_no_changed_note_is_accepted(data: st.DataObject) -> None:
    """Any byte changed, taken out or put in: another note opens only if it says the same to the same policy."""
    note = bytearray(NOTE)
    place = data.draw(st.integers(0, len(note) - 1))
    how = data.draw(st.sampled_from(("change", "delete", "insert", "cut")))
    if how == "change":
        note[place] ^= data.draw(st.integers(1, 255))
    elif how == "delete":
        del note[place]
    elif how == "insert":
        note.insert(place, data.draw(st.integers(0, 255)))
    else:
        del note[place:]
    with pytest.raises(Rejected):
        POLICY.open(bytes(note))
