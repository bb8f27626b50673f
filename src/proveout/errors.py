"""One tree of errors. The docstring is the default message and says what to do.

`code` is stable and part of the API; `edge/http/problems.py` alone turns these into statuses.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence


class ProveoutError(Exception):
    """Something failed inside Proveout; the server's log has the details."""

    code = "internal_error"

    def __init__(self, message: str | None = None, *, retry_after: int | None = None) -> None:
        super().__init__(message or inspect.getdoc(type(self)) or self.code)
        self.retry_after = retry_after

    @property
    def message(self) -> str:
        return str(self.args[0])


class InvalidInput(ProveoutError):
    """The input is not valid; the message says where and how to mend it."""

    code = "invalid_request"


class Unauthenticated(ProveoutError):
    """No valid API key was given: send `Authorization: Bearer KEY` with a key that is not revoked."""

    code = "invalid_api_key"


class NotFound(ProveoutError):
    """There is no such thing here, or your key does not grant it."""

    code = "not_found"


class Conflict(ProveoutError):
    """The present state does not allow this."""

    code = "conflict"


class GateClosed(Conflict):
    """The release lacks evidence that its stage demands; `missing` lists what."""

    code = "gate_closed"

    def __init__(self, message: str | None = None, *, missing: Sequence[Mapping[str, str]] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


class TooLarge(ProveoutError):
    """The body is larger than this server accepts."""

    code = "too_large"


class Unavailable(ProveoutError):
    """A part of the server is not ready; try again in a moment."""

    code = "unavailable"

    def __init__(self, message: str | None = None, *, retry_after: int | None = 2) -> None:
        super().__init__(message, retry_after=retry_after)


class StorageFull(Unavailable):
    """The disk that holds the records is full: free some of it, and requests are answered again."""

    code = "storage_full"


class UpstreamFailed(ProveoutError):
    """The model did not answer; try again, or look at the provider named in the message."""

    code = "upstream_failed"


class Truncated(UpstreamFailed):
    """The model's answer broke off before its end; what was received is incomplete."""

    code = "truncated"


class StartRefused(ProveoutError):
    """The server cannot start; the message says what to change."""

    code = "start_refused"
