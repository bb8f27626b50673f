"""The runner: asks a release, or a model, the questions of a data set through serving's own pipeline.

Every answer is kept, sealed, the moment it is whole. It is found again by who answered (a release's digest), the
question and the seed, so a run that was killed goes on where it was, and the next one asks only what is new.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import rfc8785

from proveout.domain import Directory, Manifest, Outcome, Principal, Release, Right, Scope, Text, Usage
from proveout.errors import InvalidInput, NotFound, ProveoutError, Unavailable
from proveout.evals.cases import Case
from proveout.evals.scorers.delivered import Delivered, Found
from proveout.ledger.journal import new_request_id
from proveout.serving import pipeline
from proveout.serving.call import Answer, Asked, Call, Rooms
from proveout.serving.resolve import find_release
from proveout.store.pool import Store
from proveout.store.sealing import Keyring, seal, unseal

CONCURRENT = 8  # calls at a time: half of what the engine batches, so that users get the other half
PURPOSE = "evaluation"  # of these requests: recorded and priced, and no user's
RANDOM_REPEATS = 3  # of each question, where the model samples
_TRIES = 4  # while a part of the server is not ready
_PAUSE = 1.0  # seconds before the second try, then twice as long each time
_KEPT = timedelta(days=1)  # so long a provider's answers stand for what it would answer now

Turn = tuple[str, int]  # a case's id and a seed
Tell = Callable[[int, int, float], Awaitable[None]]
"""Called with how many questions are answered, of how many, and the USD that this run has spent."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What to ask: whom (as a request names a model), as whom, how often, in how many calls at a time, for how much.

    `run` is the evaluation that asks: answers that may differ tomorrow are kept for it alone.
    """

    run: str
    model: str
    principal: Principal
    cases: Sequence[Case]
    repeats: int = 1
    concurrent: int = CONCURRENT
    budget_usd: float | None = None
    purpose: str = PURPOSE
    max_tokens: int | None = None  # of an answer


@dataclass(frozen=True, slots=True)
class Answers:
    """What was answered to each turn; `spent` in USD by this run. Not `whole`: the budget ended it before."""

    delivered: Mapping[Turn, Delivered]
    spent: float
    asked: int  # how many turns were not known yet
    whole: bool


class Purse:
    """What a run may spend, and has spent, in USD.

    A call is begun where the budget holds it and all that are under way, each as dear as the dearest so far. Before the
    first has been paid, one is asked at a time.
    """

    def __init__(self, budget: float | None) -> None:
        self.spent = 0.0
        self._budget = budget
        self._dearest: float | None = None
        self._open = 0
        self._paid = asyncio.Condition()

    async def take(self) -> bool:
        """Waits until a call may begin; False when the budget holds no more."""
        if self._budget is None:
            return True
        async with self._paid:
            while not self._has_room(self._budget):
                if not self._open:
                    return False
                await self._paid.wait()
            self._open += 1
        return True

    async def pay(self, cost: float) -> None:
        """Ends a call that was begun."""
        async with self._paid:
            self.spent += cost
            self._open -= 1
            self._dearest = max(cost, self._dearest or 0.0)
            self._paid.notify_all()

    def _has_room(self, budget: float) -> bool:
        if self.spent >= budget:
            return False
        return not self._open if self._dearest is None else self.spent + (self._open + 1) * self._dearest <= budget


class Runner:
    """Asks, and keeps the answers."""

    def __init__(self, store: Store, keyring: Keyring, rooms: Rooms) -> None:
        self._store = store
        self._keyring = keyring
        self._rooms = rooms

    async def ask(self, scope: Scope, asking: Asking, report: Tell) -> Answers:
        """Asks what is not known yet. Raises NotFound for a model that is not there, or is not the principal's."""
        check_groups(asking.cases, asking.principal)
        asked = self._identity(asking)
        questions = {case.id: question_digest(case, asking.principal.key.name) for case in asking.cases}
        known = await self._known(scope, asked, questions, _KEPT if self._is_remote(asking) else None)
        turns = [(case, seed) for seed in range(asking.repeats) for case in asking.cases]
        wanted = {(case.id, seed) for case, seed in turns}
        found = {turn: delivered for turn, delivered in known.items() if turn in wanted}
        todo = iter([(case, seed) for case, seed in turns if (case.id, seed) not in found])
        first, purse = len(found), Purse(asking.budget_usd)
        await report(len(found), len(turns), 0.0)

        async def work() -> None:
            for case, seed in todo:
                if not await purse.take():
                    return
                delivered = await self._answer(asking, case, seed)
                await purse.pay(delivered.cost or 0.0)
                found[case.id, seed] = delivered
                if delivered.outcome is not Outcome.FAILED:
                    await self._keep(scope, asked, questions[case.id], seed, delivered)
                await report(len(found), len(turns), purse.spent)

        async with asyncio.TaskGroup() as group:
            for _ in range(asking.concurrent):
                group.create_task(work())
        return Answers(found, purse.spent, len(found) - first, len(found) == len(turns))

    def _identity(self, asking: Asking) -> str:
        """Who answers, whatever the database calls it."""
        if is_direct(asking.model):
            use = self._rooms.catalogue.use(asking.model)
            return hashlib.sha256(f"model\n{use.name}\n{use.digest}\n{use.mode}".encode()).hexdigest()
        release, _ = find_release(self._rooms.directory(), asking.principal, asking.model)
        return release.digest if is_pinned(release.manifest) else f"{release.digest} {asking.run}"

    def _is_remote(self, asking: Asking) -> bool:
        """Whether a provider answers, who may exchange the model behind its name."""
        return not all(map(_is_here, models_behind(self._rooms.directory(), asking.principal, asking.model)))

    async def _known(
        self, scope: Scope, asked: str, questions: Mapping[str, str], within: timedelta | None
    ) -> dict[Turn, Delivered]:
        """What was answered before, or only of late (`within`)."""
        since = datetime.now(UTC) - within if within else None
        async with self._store.within(scope) as session:
            key = await self._keyring.workspace(session, scope.workspace)
            rows = await session.fetch("delivered.of", asked=asked, questions=list(questions.values()), since=since)
        ids: dict[str, list[str]] = {}
        for case, question in questions.items():
            ids.setdefault(question, []).append(case)
        found: dict[Turn, Delivered] = {}
        for row in rows:
            delivered = msgspec.json.decode(unseal(key, row["sealed"], "delivered"), type=Delivered)
            found |= {(case, row["seed"]): delivered for case in ids[row["question"]]}
        return found

    async def _keep(self, scope: Scope, asked: str, question: str, seed: int, delivered: Delivered) -> None:
        async with self._store.within(scope) as session:
            key = await self._keyring.workspace(session, scope.workspace)
            sealed = seal(key, msgspec.json.encode(delivered), "delivered")
            turn = {"workspace": scope.workspace, "asked": asked, "question": question, "seed": seed}
            await session.run("delivered.put", **turn, sealed=sealed, cost=delivered.cost, kept=_KEPT.total_seconds())

    async def _answer(self, asking: Asking, case: Case, seed: int) -> Delivered:
        """One answer. What is not ready is tried again; a call that fails for good is an answer that failed."""
        pause = _PAUSE
        for attempt in range(_TRIES):
            try:
                return await self._ask(asking, case, seed)
            except (InvalidInput, NotFound):
                raise
            except Unavailable as error:
                if attempt == _TRIES - 1:
                    return Delivered(f"[{error.message}]", Outcome.FAILED)
            except ProveoutError as error:
                return Delivered(f"[{error.message}]", Outcome.FAILED)
            await asyncio.sleep(pause)
            pause *= 2
        raise AssertionError("every try ends above")

    async def _ask(self, asking: Asking, case: Case, seed: int) -> Delivered:
        call = Call(
            request=new_request_id(),
            principal=replace(asking.principal, key=replace(asking.principal.key, groups=frozenset(case.groups))),
            asked=Asked(
                asking.model,
                case.messages,
                seed=seed if asking.repeats > 1 else None,
                max_tokens=asking.max_tokens,
            ),
            streamed=False,
            purpose=asking.purpose,
        )
        return self._delivered(*await whole(call, self._rooms))

    def _delivered(self, call: Call, text: str, end: Answer) -> Delivered:
        model = call.progress.model or call.models[0].name
        price = self._rooms.catalogue.price(model)
        return Delivered(
            text=text.replace("\0", "\N{REPLACEMENT CHARACTER}"),  # which no database takes
            outcome=end.outcome,
            passages=tuple(Found(p.document, p.chunk, p.score, p.text) for p in end.passages),
            citations=end.citations,
            verdicts=end.verdicts,
            usage=end.usage,
            cost=price.cost(end.usage) if price and end.usage != Usage() else None if price is None else 0.0,
            first_token_ms=call.progress.first_token_ms,
            total_ms=call.progress.elapsed_ms,
            quoted=end.quoted,
            model=model,
        )


async def whole(call: Call, rooms: Rooms) -> tuple[Call, str, Answer]:
    """The call as admitted, all of its answer's text, and its end."""
    call = await pipeline.admit(call, rooms)
    text = ""
    async with aclosing(pipeline.answer(call, rooms)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Answer):
                return call, text, piece
            if isinstance(piece, Text):
                text += piece.text
    raise AssertionError("an answer always ends in an Answer")


def question_digest(case: Case, asker: str) -> str:
    """The digest of what is asked and of what decides who may read what; not of what a correct answer holds."""
    messages: list[Any] = [{"role": m.role, "content": m.content} for m in case.messages]
    asked: dict[str, Any] = {"messages": messages, "groups": sorted(set(case.groups)), "asker": asker}
    return hashlib.sha256(rfc8785.dumps(asked)).hexdigest()


def is_pinned(manifest: Manifest) -> bool:
    """Whether the same question to the release gets its answer from the same knowledge tomorrow."""
    return all(use.snapshot for use in manifest.knowledge)


def is_random(release: Release) -> bool:
    """Whether the same question may get another answer, because the model samples. Unasked, models here do not."""
    manifest = release.manifest
    if manifest.parameters.temperature is not None:
        return manifest.parameters.temperature > 0
    return not all(name == "echo" or name.startswith("local/") for name in models_of(manifest))


def models_of(manifest: Manifest) -> list[str]:
    """The models that may answer, fallbacks last."""
    return [choice.use.name for choice in manifest.model] + [use.name for use in manifest.fallback]


def is_direct(name: str) -> bool:
    """Whether a request names a model by this, and no app."""
    return "/" in name or name == "echo"


def models_behind(directory: Directory, principal: Principal, name: str) -> list[str]:
    """The models that may answer under this name. Raises NotFound for an app that is not the principal's."""
    return [name] if is_direct(name) else models_of(find_release(directory, principal, name)[0].manifest)


def _is_here(model: str) -> bool:
    """Whether the digest of a model says what answers: it runs here, or is a fake."""
    return model.partition("/")[0] in ("echo", "local")


def check_groups(cases: Iterable[Case], principal: Principal) -> None:
    """Raises InvalidInput when a case is asked in a group that the key is not in and could not give to a key."""
    if foreign := foreign_groups(cases, principal):
        raise InvalidInput(
            f"The questions are asked in groups that your key is not in ({', '.join(sorted(foreign))}): use a key with "
            f"these groups, or one that holds {Right.KEYS_MANAGE}."
        )


def foreign_groups(cases: Iterable[Case], principal: Principal) -> set[str]:
    """The groups of the cases that the principal may not ask in: it is not in them and could not give them to a key."""
    if Right.KEYS_MANAGE in principal.rights:
        return set()
    return {group for case in cases for group in case.groups} - principal.key.groups
