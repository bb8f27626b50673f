"""What is said of an event: which ones are told, and in which words. Nothing that users wrote is in them."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec

from proveout.configfile import Topic
from proveout.store.events import Kind
from proveout.store.pool import Row

Facts = Mapping[str, Any]
NameOf = Callable[[str], str]
"""The name of a key, by its id."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What a target gets. `id` is the same however often it is sent, and at every target; `link` is the console's page
    of it, where the server was told how people reach it."""

    id: str
    type: Topic | Literal["test"]
    time: datetime
    workspace: str
    title: str
    text: str
    app: str | None = None
    stage: str | None = None
    link: str = ""
    facts: Facts = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """The notification as JSON."""
        return msgspec.json.encode(self)


@dataclass(frozen=True, slots=True)
class _Said:
    topic: Topic
    title: str
    text: str
    page: str  # of the console


def notification(event: Row, workspace: str, name_of: NameOf, url: str = "") -> Notification | None:
    """What is said of an event of the workspace's log; None where nobody is to be told of it. `url`: of the console.

    The id is made of what the log's entry commits to, which no other entry does, in any log.
    """
    facts: Facts = event["facts"]
    by = facts.get("by")
    said = _SAID[event["kind"]](facts, "Proveout" if by == "system" else name_of(str(by))) if by else None
    if said is None:
        return None
    return Notification(
        id=f"event_{b64decode(event['commitment'])[:16].hex()}",
        type=said.topic,
        time=event["at"],
        workspace=workspace,
        title=_line(said.title),
        text=_line(said.text),
        link=url and url + said.page,
        app=facts.get("app"),
        stage=facts.get("stage"),
        facts=facts,
    )


def _line(text: str) -> str:
    """One line, of what can be printed."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _rollout(facts: Facts, by: str) -> _Said | None:
    app, stage, why = facts["app"], facts["stage"], facts["reason"]
    new, old = f"{app}@{facts['release']}", f"{app}@{facts['stable']}"
    page = f"/rollouts/{app}/{stage}"
    match facts["action"]:
        case "rolled_back":
            text = (
                f"{by} ended the rollout of {new} to {stage}: {why}. {old} serves all of {stage}. "
                f"Next: `proveout release diff {old} {new}` shows what the release had changed."
            )
            return _Said("rollback", f"{new} was rolled back in {stage}", text, page)
        case "promoted":
            text = (
                f"{by} ended its rollout: {why}. It takes the place of {old}. "
                f"Should it prove bad: `proveout rollback {app} --stage {stage}`."
            )
            return _Said("promotion", f"{new} was promoted to {stage}", text, page)
        case "freeze":
            text = (
                f"{by} decides nothing more: {why}. Both releases go on at their present weights. Next: find out why "
                f"the arms are not met as drawn, then `proveout rollout resume {app} --stage {stage}`, or `abort`."
            )
            return _Said("frozen", f"The rollout of {new} to {stage} is frozen", text, page)
        case "held":
            text = (
                f"{by} would promote it, but the gate of {stage} is closed: {why}. It goes on beside {old} at its last "
                f"step. Next: bring what it lacks, and it is promoted by itself."
            )
            return _Said("approval", f"The promotion of {new} to {stage} is held by its gate", text, page)
        case "aborted":
            text = (
                f"{by} ended it: {why}. {old} serves all of {stage}. "
                f"Next: `proveout rollout simulate {new}` says how much traffic a rollout needs."
            )
            return _Said("aborted", f"The rollout of {new} to {stage} was aborted", text, page)
    return None


def _route(facts: Facts, by: str) -> _Said | None:
    app, stage, before = facts["app"], facts["stage"], facts.get("before")
    if "action" not in facts or facts["rollout"] is not None:  # the end of a rollout is told as such
        return None
    now, was = f"{app}@{facts['stable']}", f"{app}@{before}"
    page = f"/releases/{app}/{facts['stable']}"
    if facts["action"] == "refreshed":  # as it was meant to
        return None
    if facts["action"] == "rolled_back":
        text = (
            f"{by} rolled it back by hand. {now} serves {stage} again. "
            f"Next: `proveout release diff {now} {was}` shows what the release had changed."
        )
        return _Said("rollback", f"{was} was rolled back in {stage}", text, page)
    if stage == "poc":  # where every start of a server may bring a release
        return None
    place = "It is the stage's first release." if before is None else f"It takes the place of {was}."
    text = f"{by} promoted it by hand. {place} Should it prove bad: `proveout rollback {app} --stage {stage}`."
    return _Said("promotion", f"{now} was promoted to {stage}", text, page)


def _glass(facts: Facts, by: str) -> _Said:
    app, stage, release = facts["app"], facts["stage"], f"{facts['app']}@{facts['release']}"
    text = (
        f"{by} broke the glass, for this reason: {facts['reason']}. It lacks {', '.join(facts['lacking'])}. "
        f"Next: bring what it lacks, or `proveout rollback {app} --stage {stage}`."
    )
    page = f"/releases/{app}/{facts['release']}"
    return _Said("break-glass", f"{release} entered {stage} without its evidence", text, page)


def _approval(facts: Facts, _: str) -> _Said:
    release = f"{facts['app']}@{facts['release']}"
    text = f"Everything else that {facts['stage']} demands of it is there. Next: {'; '.join(facts['lacking'])}."
    page = f"/releases/{facts['app']}/{facts['release']}"
    return _Said("approval", f"{release} waits for approval to enter {facts['stage']}", text, page)


def _refresh(facts: Facts, _: str) -> _Said | None:
    if facts["verdict"] == "passed":
        return None
    app, stage, stable = facts["app"], facts["stage"], f"{facts['app']}@{facts['stable']}"
    what = f"A new snapshot of {facts['knowledge']}"
    text = (
        f"The refresh was judged {facts['verdict']}: {'; '.join(facts['reasons'])}. {stable} serves {stage} as before, "
        f"and this snapshot is not tried again. Next: mend the documents, and a newer snapshot is tried."
    )
    return _Said("refresh", f"{what} was not let into {stage} of {app}", text, "/releases")


def _sync(facts: Facts, _: str) -> _Said:
    text = f"{facts['message']} What was searched before still is. Next: mend the cause, and sync again."
    return _Said("sync", f"The sync of the knowledge {facts['knowledge']} failed", text, "/operations")


_SAID: Mapping[str, Callable[[Facts, str], _Said | None]] = {
    Kind.ROLLOUT_DECIDED: _rollout,
    Kind.ROUTE_CHANGED: _route,
    Kind.GLASS_BROKEN: _glass,
    Kind.APPROVAL_AWAITED: _approval,
    Kind.REFRESH_DECIDED: _refresh,
    Kind.SYNC_FAILED: _sync,
}
KINDS = tuple(map(Kind, _SAID))
"""The events that may be told."""
