"""The runner: asks a release its golden questions through serving's own pipeline, and scores the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import msgspec

from proveout.access.keys import principal_of
from proveout.domain import Directory, Message, Principal, Right, Text
from proveout.errors import InvalidInput, NotFound
from proveout.evals.golden import Case, read_golden
from proveout.evals.scorers import SCORERS, Delivered
from proveout.jobs.runtime import Result, Steps
from proveout.ledger.journal import new_request_id
from proveout.serving import pipeline
from proveout.serving.call import Answer, Asked, Call, Rooms
from proveout.store.pool import Store, as_json
from proveout.store.sealing import Keyring, seal, unseal

_CONCURRENT = 4
_CASES_PER_STEP = 8


class RunEvaluation:
    """The job `evaluate`: its id is an evaluation's; its result the mean of each scorer and its count."""

    def __init__(self, store: Store, keyring: Keyring, rooms: Rooms) -> None:
        self._store = store
        self._keyring = keyring
        self._rooms = rooms

    async def __call__(self, steps: Steps, evaluation: str) -> Result:
        async with self._store.within(steps.scope) as session:
            row = await session.row("evaluations.get", evaluation=evaluation)
            key = await self._keyring.workspace(session, steps.scope.workspace)
        if row is None:
            raise NotFound(f"There is no evaluation {evaluation}.")
        cases = read_golden(unseal(key, row["dataset"], "dataset").decode(), "dataset")
        principal = self._principal(self._rooms.directory(), row["key"])
        check_groups(cases, principal)
        model = f"{row['app']}@{row['release']}"
        for start in range(0, len(cases), _CASES_PER_STEP):
            group = cases[start : start + _CASES_PER_STEP]
            await steps.run("ask", self._ask_group, steps, evaluation, principal, model, group)
            await steps.progress(start + len(group), len(cases), f"asking {model}")
        return await steps.run("summarise", self._summarise, steps, evaluation)

    async def _ask_group(
        self, steps: Steps, evaluation: str, principal: Principal, model: str, group: Sequence[Case]
    ) -> None:
        turns = asyncio.Semaphore(_CONCURRENT)

        async def ask(case: Case) -> dict[str, Any]:
            async with turns:
                delivered = await self._ask(principal, model, case)
            scores = {name: score(case, delivered) for name, score in SCORERS.items()}
            return {"case": case.id, "result": msgspec.json.encode(_result(case, delivered, scores))}

        rows = await asyncio.gather(*(ask(case) for case in group))
        async with self._store.within(steps.scope) as session:
            key = await self._keyring.workspace(session, steps.scope.workspace)
            where = {"workspace": steps.scope.workspace, "evaluation": evaluation}
            sealed = [{**where, **row, "result": seal(key, row["result"], "case")} for row in rows]
            await session.run_many("evaluations.put_case", sealed)

    async def _ask(self, principal: Principal, model: str, case: Case) -> Delivered:
        call = Call(
            request=new_request_id(),
            principal=replace(principal, key=replace(principal.key, groups=frozenset(case.groups))),
            asked=Asked(model, (Message("user", case.question),)),
            streamed=False,
            purpose="evaluation",
        )
        call = await pipeline.admit(call, self._rooms)
        text, documents = "", tuple[str, ...]()
        async with aclosing(pipeline.answer(call, self._rooms)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Text):
                    text += piece.text
                elif isinstance(piece, Answer):
                    end = piece
                    documents = tuple(dict.fromkeys(p.document for p in end.passages))
        return Delivered(text, end.outcome, documents, end.quoted, call.progress.elapsed_ms)

    async def _summarise(self, steps: Steps, evaluation: str) -> dict[str, Any]:
        async with self._store.within(steps.scope) as session:
            rows = await session.fetch("evaluations.cases", evaluation=evaluation)
            key = await self._keyring.workspace(session, steps.scope.workspace)
            summary = _summary([msgspec.json.decode(unseal(key, row["result"], "case")) for row in rows])
            await session.run("evaluations.finish", evaluation=evaluation, summary=as_json(summary))
        return {"evaluation": evaluation, **summary}

    def _principal(self, directory: Directory, key: str) -> Principal:
        principal = principal_of(directory, key)
        if principal is None:
            raise InvalidInput("The key that asked for this evaluation was revoked: start it again with another one.")
        return principal


def check_groups(cases: Sequence[Case], principal: Principal) -> None:
    """Raises InvalidInput when a case is asked in a group that the key is not in and could not give to a key."""
    foreign = {group for case in cases for group in case.groups} - principal.key.groups
    if foreign and Right.KEYS_MANAGE not in principal.rights:
        raise InvalidInput(
            f"The questions are asked in groups that your key is not in ({', '.join(sorted(foreign))}): use a key with "
            f"these groups, or one that holds {Right.KEYS_MANAGE}."
        )


def _result(case: Case, delivered: Delivered, scores: Mapping[str, float | None]) -> dict[str, Any]:
    return {
        "case": case.id,
        "question": case.question,
        "answer": delivered.text,
        "outcome": delivered.outcome,
        "documents": delivered.documents,
        "quoted": delivered.quoted,
        "total_ms": round(delivered.total_ms, 1),
        "scores": scores,
    }


def _summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for name in SCORERS:
        values = [v for r in results if (v := r["scores"][name]) is not None]
        scores[name] = {"mean": sum(values) / len(values) if values else None, "cases": len(values)}
    quoted = sum(bool(r["quoted"]) for r in results) / max(len(results), 1)
    return {"cases": len(results), "scores": scores, "quoted": quoted}
