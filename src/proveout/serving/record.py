"""Stages: the intent before the model is called, the completion before the last byte leaves."""

from __future__ import annotations

from proveout.domain import Outcome, Text, ToolCallPiece
from proveout.ledger.decision import (
    Check,
    Decision,
    Retrieval,
    ToolUse,
    commit,
    commit_input,
    commit_output,
    tools,
)
from proveout.ledger.journal import Completion, Intent, now
from proveout.ledger.payloads import Payload
from proveout.serving.call import Answer, Call, Rooms
from proveout.serving.tools import fault


async def record_intent(call: Call, rooms: Rooms) -> Call:
    """Returns when the intent is durable. Raises Unavailable when it, or the completion to come, cannot be."""
    release = call.release
    await rooms.payloads.subject(call.principal.scope, call.subject)  # its key is at hand when the answer ends
    await rooms.journal.write(
        Intent(
            request=call.request,
            workspace=call.principal.key.workspace,
            key=call.principal.key.id,
            purpose=call.purpose,
            model=call.models[0].name,
            parameters=call.parameters,
            streamed=call.streamed,
            begun=now(),
            app=release.app if release else None,
            release=release.number if release else None,
            release_digest=release.digest if release else None,
            stage=call.stage,
            arm=call.arm,
            weight=call.weight,
            unit=call.unit,
        )
    )
    return call


async def record_completion(
    call: Call, rooms: Rooms, outcome: Outcome, reason: str = "", answer: Answer | None = None
) -> None:
    """Returns when the completion is durable, once per call."""
    progress = call.progress
    if progress.recorded:  # whoever has the whole answer closes what gave it, and so comes here a second time
        return
    model = progress.model or call.models[0].name
    price = rooms.catalogue.price(model)
    usage = answer.usage if answer else progress.usage
    completion = Completion(
        request=call.request,
        workspace=call.principal.key.workspace,
        outcome=outcome,
        reason=reason[:500],
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_ms=progress.elapsed_ms,
        ended=now(),
        grounded=answer.grounded if answer else None,
        quoted=answer.quoted if answer else False,
        first_token_ms=progress.first_token_ms,
        first_sentence_ms=progress.first_sentence_ms,
        cost_usd=price.cost(usage) if price else None,
        model=model,
        served_by=answer.served_by if answer else "",
        runtime=rooms.catalogue.runtime(model),
        documents=tuple(dict.fromkeys(p.document for p in call.passages)),
        subject=await rooms.payloads.subject(call.principal.scope, call.subject),
        payload=await _payload(call, rooms),
        decision=await _decision(call, rooms, answer),
    )
    if progress.recorded:  # asked and said without a pause in between: a call that was cancelled meanwhile
        return
    progress.recorded = True
    await rooms.journal.write(completion)
    rooms.observe(call, completion)


async def _payload(call: Call, rooms: Rooms) -> bytes | None:
    """What was asked and answered so far, sealed; None where nothing of the content is to be kept."""
    if not _captured(call, rooms):
        return None
    text, calls = _said(call)
    payload = Payload(
        messages=call.asked.messages,
        options=call.asked.options,
        answer=text,
        tool_calls=calls,
        subject=call.subject,
        reader=call.principal.scope.principal,
        groups=sorted(call.principal.key.groups),
        bounds_thoughts=call.asked.bounds_thoughts,
        embed=call.asked.embed,
    )
    return await rooms.payloads.seal(call.principal.scope, call.subject, call.request, payload)


async def _decision(call: Call, rooms: Rooms, answer: Answer | None) -> Decision:
    scope = call.principal.scope
    salt = await rooms.payloads.salt(scope, call.subject, call.request)
    text, calls = _said(call)
    offered = call.asked.options.get("tools")
    uses = [
        ToolUse(name, commit(salt, arguments), fault(offered, name, arguments) if answer else None)
        for name, arguments in tools(calls)
    ]
    verdicts = (*call.progress.withheld, *(answer.verdicts if answer else ()))
    return Decision(
        input=commit_input(salt, call.asked.messages, call.asked.options),
        output=commit_output(salt, text, calls),
        captured=_captured(call, rooms),
        retrieval=_retrieval(call, commit(salt, scope.readers)),
        verdicts=tuple([Check.of(verdict) for verdict in verdicts]),
        tools=tuple(uses),
        replays=call.replays,
    )


def _retrieval(call: Call, readers: str) -> Retrieval | None:
    if call.progress.retrieved_ms is None:
        return None
    return Retrieval(
        snapshots=call.snapshots,
        chunks=[(passage.chunk, round(passage.score, 6)) for passage in call.passages],
        epoch=call.epoch,
        readers=readers,
        answerable=None if call.chance is None else round(call.chance, 6),
        ms=call.progress.retrieved_ms,
    )


def _captured(call: Call, rooms: Rooms) -> bool:
    return rooms.captures(call.release.app if call.release else None)


def _said(call: Call) -> tuple[str, list[ToolCallPiece]]:
    """What was delivered so far: the text, and the pieces of calls of tools."""
    said = call.progress.said
    text = "".join(piece.text for piece in said if isinstance(piece, Text))
    return text, [piece for piece in said if isinstance(piece, ToolCallPiece)]
