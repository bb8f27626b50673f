"""Evidence: what was found out about a release, signed over its exact digest and told to the log."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from proveout.domain import Basis, Evidence, Finding, Release
from proveout.errors import InvalidInput
from proveout.evals.cases import Case, digest
from proveout.ledger.integrate import LogKeys
from proveout.store.events import Kind, note
from proveout.store.pool import Session, as_json

EVALUATION = "evaluation"
APPROVAL = "approval"
REFRESH = "refresh"
Found = tuple[Basis, Finding]
_CONTEXT = b"proveout evidence v1\n"  # the log's key signs checkpoints as well: neither can pass for the other


def measured_by(cases: Sequence[Case], scorers: str) -> dict[str, str]:
    """The digests of golden questions (as far as they count) and of an app's own scorers, as a release's facts have
    them."""
    return {"golden": digest([case for case in cases if case.counts]), "scorers": _digest(scorers.encode())}


def standard(facts: Mapping[str, Any]) -> dict[str, str]:
    """What decides whether a release is good enough, by digest: its targets, golden questions, scorers and judge.

    They are facts, so they may change while the release's digest stays. Evidence records them, and counts only while
    they are the same.
    """
    return {name: _digest(rfc8785.dumps(facts.get(name))) for name in ("targets", "golden", "scorers", "judge")}


def changed_since(evidence: Evidence, release: Release) -> str:
    """Which parts of the release's standard changed since the evidence was recorded, in words; "" if none."""
    was = evidence.facts.get("standard")
    if was is None:
        return "targets or questions (it does not say which ones it used)"
    changed = [name for name, now in standard(release.facts).items() if was.get(name) != now]
    return " and ".join("golden questions" if name == "golden" else name for name in changed)


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def record(
    session: Session,
    keys: LogKeys,
    release: Release,
    kind: str,
    found: Found,
    author: str,
    facts: Mapping[str, Any],
    expires: datetime | None = None,
) -> Evidence:
    """Signs evidence, keeps it and notes it for the log, in the transaction of the session, which has a scope.

    `facts` are JSON without content: figures, digests, names of files. Raises InvalidInput for facts that canonical
    JSON cannot hold, and for an expiry that has passed.
    """
    now = datetime.now(UTC)
    if expires is not None and expires <= now:
        raise InvalidInput("expires: this time has passed already.")
    basis, verdict = found
    evidence = Evidence(
        id=f"evidence_{secrets.token_hex(8)}",
        workspace=release.workspace,
        app=release.app,
        digest=release.digest,
        kind=kind,
        basis=basis,
        verdict=verdict,
        author=author,
        facts=facts,
        recorded=now,
        expires=expires,
    )
    key = await keys.get(session, release.workspace)
    evidence = replace(evidence, signature=key.private.sign(_statement(evidence)))
    row = {f.name: getattr(evidence, f.name) for f in fields(evidence)}
    await session.run("evidence.insert", **{**row, "facts": as_json(facts)})
    told = {**_told(evidence), "signature": evidence.signature.hex()}
    await note(session, release.workspace, Kind.EVIDENCE_RECORDED, author, told)
    return evidence


async def of_release(session: Session, keys: LogKeys, release: Release) -> list[Evidence]:
    """The evidence over a release's digest, newest first. What was altered since it was signed is left out."""
    public = (await keys.get(session, release.workspace)).private.public_key()
    about = {"workspace": release.workspace, "app": release.app, "digest": release.digest}
    rows = await session.fetch("evidence.of_release", **about)
    found = [Evidence(**{**row, "signature": bytes(row["signature"])}) for row in rows]
    return [evidence for evidence in found if _is_genuine(evidence, public)]


def shown(evidence: Evidence) -> dict[str, Any]:
    """Evidence as the API gives it, with what an outsider needs to check its signature."""
    return {**_told(evidence), "signature": evidence.signature.hex()}


def _is_genuine(evidence: Evidence, public: Ed25519PublicKey) -> bool:
    try:
        public.verify(evidence.signature, _statement(evidence))
    except InvalidSignature:
        return False
    return True


def _statement(evidence: Evidence) -> bytes:
    """What is signed: a line that says what it is, then canonical JSON (RFC 8785)."""
    try:
        return _CONTEXT + rfc8785.dumps(_told(evidence))
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(f"facts: this cannot be recorded: {error}.") from None


def _told(evidence: Evidence) -> dict[str, Any]:
    def moment(when: datetime | None) -> str | None:
        return when.astimezone(UTC).isoformat(timespec="microseconds") if when else None

    told = {f.name: getattr(evidence, f.name) for f in fields(evidence) if f.name != "signature"}
    times = {"recorded": moment(evidence.recorded), "expires": moment(evidence.expires)}
    return {**told, **times, "facts": dict(evidence.facts)}
