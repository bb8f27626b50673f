"""Which of users' answers a judge sees: a share, the same whoever draws, each once, and nothing that is not theirs."""

from __future__ import annotations

import asyncio

import psycopg

from proveout.domain import Scope
from proveout.store.pool import Store, as_json

ROWS = """
set search_path to proveout, public;
insert into workspaces (name, secret) values ('one', 'x'), ('two', 'x');
insert into intents (request, workspace, key, purpose, model, parameters, streamed, begun, app, release, arm)
    select 'req_' || n, case n % 10 when 1 then 'two' else 'one' end, 'k',
           case n % 10 when 2 then 'replay' else 'request' end, 'echo',
           '{}', true, now(), case n % 10 when 3 then 'other' else 'desk' end, 1 + (n % 10 = 4)::int,
           case when n % 2 = 0 then 'candidate' else 'stable' end
    from generate_series(1, 4000) n;
insert into completions (request, workspace, outcome, prompt_tokens, completion_tokens, model, served_by, runtime,
                         schema, total_ms, ended)
    select request, workspace, case when request like '%5' then 'refused' else 'answered' end, 1, 1, 'echo', '', '',
           1, 1, now() from intents;
insert into payloads (request, workspace, subject, sealed, at)
    select request, workspace, 's', 'p', now() - make_interval(secs => 4000 - substr(request, 5)::int)
    from completions where request not like '%6';
"""


def test_a_share_is_drawn_the_oldest_first_and_never_twice(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(ROWS)
        since = connection.execute("select now() - interval '1 hour'").fetchone()[0]  # type: ignore[index]
    shares = [
        {"app": "desk", "release": 1, "share": 0.25, "model": "echo"},
        {"app": "desk", "release": 2, "share": 1.0, "model": "echo"},
    ]

    async def draw(store: Store, limit: int) -> list[str]:
        async with store.within(Scope("one", "system", purpose="judge")) as session:
            rows = await session.fetch("judgements.draw", shares=as_json(shares), since=since, limit=limit)
        return [row["request"] for row in rows]

    async def run() -> tuple[list[list[str]], list[str]]:
        store = Store(dsn, size=4)
        await store.open()
        try:
            first = await draw(store, 5)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(draw(store, 100)) for _ in range(4)]
            return [first, *(task.result() for task in tasks)], await draw(store, 4000)
        finally:
            await store.close()

    parts, rest = asyncio.run(run())
    drawn = [request for part in [*parts, rest] for request in part]
    assert len(drawn) == len(set(drawn))
    numbers = {int(request[4:]) for request in drawn}
    assert {n % 10 for n in numbers} == {0, 4, 7, 8, 9} and min(numbers) > 400  # theirs, answered, kept, not too old
    everything = [n for n in range(401, 4001) if n % 10 == 4]
    assert numbers >= set(everything)  # of a share of 1
    others = [n for n in numbers if n % 10 != 4]
    assert 0.21 < len(others) / (4 * 360) < 0.29
    assert 0.4 < sum(n % 2 for n in others) / len(others) < 0.6  # of either arm: two of the four are odd
    assert max(int(r[4:]) for r in parts[0]) < min(numbers - {int(r[4:]) for r in parts[0]})
