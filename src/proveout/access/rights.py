"""Which role has which rights: one table, default deny."""

from __future__ import annotations

from collections.abc import Mapping

from proveout.domain import Right

ROLES: Mapping[str, frozenset[Right]] = {
    "owner": frozenset(Right),
    "developer": frozenset(
        {
            Right.APPS_ASK,
            Right.EVALUATIONS_RUN,
            Right.EVIDENCE_ATTEST,
            Right.KNOWLEDGE_SEARCH,
            Right.RELEASES_CREATE,
            Right.RELEASES_PREVIEW,
            Right.RELEASES_READ,
            Right.REQUESTS_READ,
        }
    ),
    "operator": frozenset(
        {
            Right.APPS_ASK,
            Right.EVALUATIONS_RUN,
            Right.EVIDENCE_ATTEST,
            Right.RELEASES_PREVIEW,
            Right.RELEASES_PROMOTE,
            Right.RELEASES_READ,
            Right.REQUESTS_READ,
            Right.REQUESTS_REPLAY,
        }
    ),
    "approver": frozenset(
        {Right.APPS_ASK, Right.RELEASES_APPROVE, Right.RELEASES_PREVIEW, Right.RELEASES_READ, Right.REQUESTS_READ}
    ),
    "publisher": frozenset({Right.KNOWLEDGE_SEARCH, Right.KNOWLEDGE_WRITE}),
    "user": frozenset({Right.APPS_ASK, Right.KNOWLEDGE_SEARCH}),
}
"""`user` is what a new key gets unless it names another role."""
