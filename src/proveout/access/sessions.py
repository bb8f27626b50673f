"""Browser sessions: a signed statement of a key's id and an end, so any gateway can check it from memory."""

from __future__ import annotations

import hmac
import time

from proveout.access.keys import principal_of
from proveout.domain import Directory, Principal
from proveout.errors import Unauthenticated

HOURS = 12


def sign(directory: Directory, key: str, now: float | None = None) -> str:
    """A session of this key, for 12 hours."""
    ends = int(time.time() if now is None else now) + HOURS * 3600
    return f"{key}.{ends}.{_mac(directory, key, ends)}"


def open_session(directory: Directory, text: str, now: float | None = None) -> Principal:
    """The principal of a session. Raises Unauthenticated when it is forged, over, or its key revoked."""
    key, _, rest = text.partition(".")
    ends, _, mac = rest.partition(".")
    if ends.isascii() and ends.isdigit() and int(ends) > (time.time() if now is None else now):
        principal = principal_of(directory, key)
        if principal and hmac.compare_digest(mac.encode(), _mac(directory, key, int(ends)).encode()):
            return principal
    raise Unauthenticated("The session is over: log in again with a fresh link from `proveout login`.")


def _mac(directory: Directory, key: str, ends: int) -> str:
    return hmac.digest(directory.session_secret, f"proveout-session:{key}:{ends}".encode(), "sha256").hex()
