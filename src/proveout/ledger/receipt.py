"""Proofs as text: receipts (C2SP tlog-proof) and what a witness is asked (C2SP tlog-witness)."""

from __future__ import annotations

import base64
from collections.abc import Iterable

from proveout.errors import InvalidInput
from proveout.ledger.verify import PROOF_HEADER, Receipt

LARGEST = 4096  # bytes


def encode_receipt(receipt: Receipt) -> bytes:
    """The receipt as a file. Raises InvalidInput when it would be larger than 4 KiB."""
    extra = f"extra {base64.b64encode(receipt.extra).decode()}\n" if receipt.extra else ""
    head = f"{PROOF_HEADER}\n{extra}index {receipt.index}\n".encode()
    text = head + proof_lines(receipt.proof) + b"\n" + receipt.checkpoint
    if len(text) > LARGEST:
        raise InvalidInput(f"The receipt would have {len(text)} bytes, at most {LARGEST}: its entry is too large.")
    return text


def encode_request(old: int, proof: Iterable[bytes], note: bytes) -> bytes:
    """The body of `add-checkpoint`: the checkpoint, and the consistency proof from the size `old`."""
    return f"old {old}\n".encode() + proof_lines(proof) + b"\n" + note


def proof_lines(proof: Iterable[bytes]) -> bytes:
    """A proof's hashes in base64, one a line."""
    return b"".join([base64.b64encode(one) + b"\n" for one in proof])
