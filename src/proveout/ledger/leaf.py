"""The entry of one record: public facts, and a commitment to what is private.

Personal data stays off the tree. What the entry commits to can be opened by whoever holds record and salt; once both
are destroyed, nothing in the log tells what it was, and every proof still verifies.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import rfc8785

from proveout.errors import InvalidInput

SCHEMA = 1
SALT = 32  # bytes
_KIND = re.compile(r"[a-z][a-z_]*:[a-z][a-z_]*:[a-z][a-z_]*")


def new_salt() -> bytes:
    """Fresh randomness, so that nobody finds a record by trying likely ones."""
    return secrets.token_bytes(SALT)


def canonical(record: Mapping[str, Any]) -> bytes:
    """RFC 8785: the one spelling of a JSON object. Raises InvalidInput."""
    try:
        return rfc8785.dumps(dict(record))
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(f"This cannot be recorded: {error}.") from None


def commit(record: Mapping[str, Any], salt: bytes) -> str:
    """`SHA-256(salt ‖ JCS(record))`, base64. Raises InvalidInput."""
    return commitment(canonical(record), salt)


def commitment(record: bytes, salt: bytes) -> str:
    """As `commit`, of a record that is canonical already."""
    if len(salt) != SALT:
        raise InvalidInput(f"A salt has {SALT} bytes.")
    return base64.b64encode(hashlib.sha256(salt + record).digest()).decode()


def entry(kind: str, workspace: str, when: datetime, commits_to: str) -> bytes:
    """What becomes a leaf: canonical JSON. `kind` is `source:subject:action`. Raises InvalidInput."""
    if not _KIND.fullmatch(kind) or when.utcoffset() is None:
        raise InvalidInput(f"A record needs a kind like `request:chat:completed` and a time with its zone: {kind!r}.")
    moment = when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    facts = {"commitment": commits_to, "kind": kind, "schema": SCHEMA, "time": moment, "workspace": workspace}
    return canonical(facts)


def opening(record: Mapping[str, Any], salt: bytes) -> bytes:
    """What a holder shows beside a receipt to prove what an entry commits to; `verify.check_opening` reads it."""
    content = {"record": canonical(record).decode(), "salt": base64.b64encode(salt).decode()}
    return json.dumps(content, ensure_ascii=False).encode()
