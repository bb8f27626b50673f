"""A sample of what users are answered, judged as it comes, by the judge of the release that answered.

It is drawn by a hash of the request's number, so neither the arm nor the answer has a part in the draw. Whoever draws a
request judges it, once: what is under way when a worker dies stays without a score, as does what the judge's words
leave open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from proveout.access.keys import system
from proveout.domain import Message, Release, Scope
from proveout.errors import Conflict, ProveoutError, Truncated, Unavailable, UpstreamFailed
from proveout.evals.judge import Judge, rating
from proveout.evals.runner import whole
from proveout.ledger.journal import new_request_id
from proveout.ledger.payloads import Payload
from proveout.releases.judging import MAX_TOKENS, PURPOSE, asker
from proveout.releases.own_tests import own_tests
from proveout.serving.call import Asked, Call, Rooms
from proveout.store.events import Kind, note
from proveout.store.pool import Store, as_json
from proveout.store.sealing import Keyring

BATCH = 4  # answers at a time
_LATE = timedelta(hours=1)  # what was answered before is left, however long no worker was there
_OVERLAP = timedelta(minutes=1)  # looked at again: a row may be seen later than it is dated
_REST = timedelta(minutes=1)  # for a judge that is away
_SYSTEM = "system"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Judges what is drawn. By workspace, `seen`: until when answers were looked at; `rests`: until when no judge is
    asked, because one was away."""

    store: Store
    keyring: Keyring
    rooms: Rooms
    seen: dict[str, datetime] = field(default_factory=dict)
    rests: dict[str, datetime] = field(default_factory=dict)

    async def tick(self, scope: Scope) -> int:
        """Draws the oldest answers that nobody drew yet, at most 4, and judges them; answers with how many."""
        now = datetime.now(UTC)
        if now < self.rests.get(scope.workspace, now):
            return 0
        shares = _shares(self.rooms.directory().releases, scope.workspace)
        if not shares:
            return 0
        since = max(self.seen.get(scope.workspace, now - _LATE), now - _LATE)
        async with self.store.within(scope) as session:
            rows = await session.fetch("judgements.draw", shares=as_json(shares), since=since, limit=BATCH)
        self.seen[scope.workspace] = min((row["at"] for row in rows), default=now) - _OVERLAP
        judged = await asyncio.gather(*(self._judge(scope, row) for row in rows))
        if not all(judged):
            self.rests[scope.workspace] = now + _REST
        return sum(judged)

    async def _judge(self, scope: Scope, row: Mapping[str, Any]) -> bool:
        """One answer; False where its judge is away, and the answer left to the next draw. What fails for good is left
        without a score."""
        release = self.rooms.directory().releases[scope.workspace, row["app"], row["release"]]
        try:
            payload, _ = await self.rooms.payloads.open(scope, row["request"], _SYSTEM)
            judge, digest, decides = await self._of(scope, release)
            question = next((m.content for m in reversed(payload.messages) if m.role == "user"), "")
            prompt = judge.prompt(question, "", payload.answer)
            said = [await self._ask(scope, judge, payload, prompt, seed) for seed in range(judge.repeats)]
        except Conflict:  # erased just now
            return True
        except (Unavailable, UpstreamFailed) as error:
            log.warning("%s is not judged yet: %s", row["request"], error.message)
            async with self.store.within(scope) as session:
                await session.run("judgements.put_back", request=row["request"])
            return False
        except ProveoutError as error:
            log.warning("%s was not judged: %s", row["request"], error.message)
            return True
        score = rating([text for text, _ in said]).mean
        costs = [usd for _, usd in said if usd is not None]
        cost = sum(costs) if costs else None
        async with self.store.within(scope) as session:
            found = {"score": score, "decides": decides, "cost": cost}
            await session.run("judgements.put", request=row["request"], **found)
            if score is not None:
                about = {name: row[name] for name in ("request", "app", "release", "arm")}
                told = {"score": score, "decides": decides, "judge": judge.model, "digest": digest, "usd": cost}
                await note(session, scope.workspace, Kind.ANSWER_JUDGED, _SYSTEM, {**about, **told})
        return True

    async def _of(self, scope: Scope, release: Release) -> tuple[Judge, str, bool]:
        """A release's judge, its digest, and whether an evaluation has shown that it may decide."""
        async with self.store.within(scope) as session:
            judge = (await own_tests(session, self.keyring, release)).judge
            if judge is None:
                raise Conflict(f"{release.label} came without a judge.")
            digest = judge.digest(self.rooms.catalogue.digest(judge.model))
            known = await session.row("evaluations.judge", app=release.app, digest=digest)
        return judge, digest, bool(known and known["decides"])

    async def _ask(
        self, scope: Scope, judge: Judge, payload: Payload, prompt: str, seed: int
    ) -> tuple[str, float | None]:
        """The judge's words and their USD. On record as a request of its own that holds the same subject's data, of
        which no second copy is kept."""
        call = Call(
            request=new_request_id(),
            principal=asker(system(scope.workspace), judge.model),
            asked=Asked(
                judge.model,
                (Message("user", prompt),),
                seed=seed if judge.repeats > 1 else None,
                max_tokens=MAX_TOKENS,
            ),
            streamed=False,
            purpose=PURPOSE,
            holder=payload.subject or None,
        )
        try:
            call, text, end = await whole(call, replace(self.rooms, captures=lambda _: False))
        except Truncated:
            return "", None
        price = self.rooms.catalogue.price(call.progress.model or judge.model)
        return text, price.cost(end.usage) if price else None


def _shares(releases: Mapping[tuple[str, str, int], Release], workspace: str) -> list[dict[str, Any]]:
    """Which releases have a judge that is asked online, and how often."""
    judged = [
        (release, release.facts.get("judge")) for (where, _, _), release in releases.items() if where == workspace
    ]
    return [
        {"app": release.app, "release": release.number, "share": judge["share"], "model": judge["model"]}
        for release, judge in judged
        if isinstance(judge, Mapping) and judge["share"] > 0
    ]
