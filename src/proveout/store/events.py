"""What is put on record: every kind of event, and the one way to note one, in the transaction of what it tells."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
import rfc8785

from proveout.errors import InvalidInput
from proveout.store.pool import Session, as_json


class Kind(StrEnum):
    """The closed vocabulary of events, `source:subject:action`."""

    REQUEST_BEGUN = "serving:request:begun"
    REQUEST_ENDED = "serving:request:ended"
    FEEDBACK_GIVEN = "serving:feedback:given"
    REQUEST_LOST = "serving:request:lost"
    KEY_CREATED = "access:key:created"
    KEY_REVOKED = "access:key:revoked"
    LOGIN_USED = "access:login:used"
    SNAPSHOT_PUBLISHED = "retrieval:snapshot:published"
    SNAPSHOT_CHOSEN = "retrieval:snapshot:chosen"
    DOCUMENT_DELETED = "retrieval:document:deleted"
    SYNC_FAILED = "retrieval:sync:failed"
    RELEASE_CREATED = "releases:release:created"
    FACTS_RECORDED = "releases:facts:recorded"
    ROUTE_CHANGED = "releases:route:changed"
    ROLLOUT_STARTED = "releases:rollout:started"
    ROLLOUT_DECIDED = "releases:rollout:decided"
    REFRESH_DECIDED = "releases:refresh:decided"
    ANSWER_JUDGED = "evals:answer:judged"
    EVALUATION_ENDED = "evals:evaluation:ended"
    EVIDENCE_RECORDED = "releases:evidence:recorded"
    APPROVAL_AWAITED = "releases:approval:awaited"
    GLASS_BROKEN = "releases:gate:broken"
    SUBJECT_ERASED = "ledger:subject:erased"
    LOG_EXPORTED = "ledger:log:exported"
    HOLD_PLACED = "ledger:hold:placed"
    HOLD_LIFTED = "ledger:hold:lifted"
    RECORDS_EXPIRED = "ledger:records:expired"
    KEYS_ROTATED = "store:keys:rotated"
    NOTIFICATION_FAILED = "edge:notification:failed"
    BACKUP_TAKEN = "store:backup:taken"
    BACKUP_RESTORED = "store:backup:restored"
    PAYLOAD_OPENED = "ledger:payload:opened"


async def note(session: Session, workspace: str, kind: Kind, by: str, facts: Mapping[str, Any]) -> None:
    """Notes an event, by a key's id or `system`, in the session's transaction; the log takes it in within a second.

    Raises InvalidInput for facts that the log's canonical JSON cannot hold: there they would hold up all that follow.
    """
    told = msgspec.to_builtins({"by": by, **facts})
    try:
        rfc8785.dumps(told)
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(f"This cannot be recorded: {error}.") from None
    await session.run("events.note", workspace=workspace, kind=kind.value, facts=as_json(told))
