"""Signing: checkpoints by the log, cosignatures by its witnesses (C2SP signed-note, tlog-checkpoint, tlog-cosignature).

Reading and verifying them is in `verify.py`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from proveout.errors import InvalidInput
from proveout.ledger.verify import (
    COSIGNATURE,
    ED25519,
    HASH,
    Checkpoint,
    Rejected,
    VerifierKey,
    cosigned_text,
    is_key_name,
    split_note,
    unbase64,
)

_SECRET = "PRIVATE+KEY+"  # noqa: S105 (a prefix of the encoding, not a secret)


@dataclass(frozen=True)
class SigningKey:
    """A private key of Ed25519 and the name that it signs under; of a log, or of a witness (`kind` COSIGNATURE)."""

    verifier: VerifierKey
    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls, name: str, kind: int = ED25519) -> SigningKey:
        if not is_key_name(name):
            raise InvalidInput(f"A key's name has no spaces and no plus: {name!r}.")
        return cls.of(name, Ed25519PrivateKey.generate(), kind)

    @classmethod
    def parse(cls, skey: str, kind: int | None = None) -> SigningKey:
        """Reads `PRIVATE+KEY+NAME+ID+base64(TYPE ‖ SEED)`; `kind` takes the key for another type than it says.

        Raises InvalidInput, which does not repeat the key.
        """
        name, _, rest = skey.strip().removeprefix(_SECRET).partition("+")
        key_id, _, encoded = rest.partition("+")
        try:
            data = unbase64(encoded)
        except Rejected:
            data = b""
        if not skey.startswith(_SECRET) or not is_key_name(name) or data[:1] not in (b"\x01", b"\x04"):
            raise InvalidInput("This is not a signing key of Ed25519 (PRIVATE+KEY+NAME+ID+...).")
        if len(data) != 1 + HASH:
            raise InvalidInput(f"The signing key {name} must have 32 bytes.")
        private = Ed25519PrivateKey.from_private_bytes(data[1:])
        if cls.of(name, private, data[0]).verifier.id.hex() != key_id:
            raise InvalidInput(f"The id of the signing key {name} is not that of its key.")
        return cls.of(name, private, data[0] if kind is None else kind)

    @classmethod
    def of(cls, name: str, private: Ed25519PrivateKey, kind: int = ED25519) -> SigningKey:
        """The key under its name."""
        return cls(VerifierKey(name, kind, private.public_key().public_bytes_raw()), private)

    def encode(self) -> str:
        """The key as C2SP writes it. A secret."""
        data = bytes([self.verifier.kind]) + self.private.private_bytes_raw()
        return f"{_SECRET}{self.verifier.name}+{self.verifier.id.hex()}+{base64.b64encode(data).decode()}"

    def sign(self, text: bytes) -> bytes:
        """The signature line of a note's text by a log."""
        return self._line(self.private.sign(text))

    def cosign(self, text: bytes, when: int) -> bytes:
        """The signature line of a checkpoint's text by a witness that saw it at `when`, in seconds since 1970."""
        return self._line(when.to_bytes(8, "big") + self.private.sign(cosigned_text(text, when)))

    def _line(self, signature: bytes) -> bytes:
        return f"— {self.verifier.name} {base64.b64encode(self.verifier.id + signature).decode()}\n".encode()


def sign_checkpoint(key: SigningKey, size: int, root: bytes) -> bytes:
    """The signed checkpoint of the log that `key` names."""
    text = Checkpoint(key.verifier.name, size, root).text
    return text + b"\n" + key.sign(text)


def add_cosignatures(note: bytes, lines: bytes, witness: VerifierKey) -> bytes:
    """The checkpoint with the cosignature in a witness's answer, in place of a former one. Raises Rejected."""
    text, signed = text_of(note), text_of(note) + b"\n" + lines
    _, answered = _signatures(signed, witness)
    if witness.kind != COSIGNATURE or not answered or text_of(signed) != text:
        raise Rejected(f"the answer holds no cosignature of {witness.name}")
    for _, signature in answered:
        witness.verify(text, signature)
    others, _ = _signatures(note, witness)
    return text + b"\n" + b"".join(others) + answered[-1][0]


def _signatures(note: bytes, key: VerifierKey) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """The signature lines of a note that are by others than the key, and those by it with the signatures' bytes."""
    others, its = list[bytes](), list[tuple[bytes, bytes]]()
    for name, key_id, signature, offset in split_note(note)[1]:
        line = note[offset : note.index(b"\n", offset) + 1]
        if (name, key_id) == (key.name, key.id):
            its.append((line, signature))
        else:
            others.append(line)
    return others, its


def text_of(note: bytes) -> bytes:
    """The text that a note's signatures are over."""
    return split_note(note)[0]
