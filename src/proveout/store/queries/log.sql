-- name: events.note (unscoped)
-- One event that is not a request's.
insert into events (workspace, kind, at, facts) values (%(workspace)s, %(kind)s, now(), %(facts)s);

-- name: log.lock (scoped)
-- Whether this transaction is the one that may extend the workspace's log.
select pg_try_advisory_xact_lock(hashtextextended('proveout log ' || scope_workspace(), 0)) as mine;

-- name: log.pending (scoped)
-- Events that are not in the log yet, in the order in which they were written, with what requests are made of.
select e.id, e.kind, e.at, e.facts, e.request, e.subject,
       case when e.kind = 'serving:request:begun' then to_jsonb(i) - 'workspace' end as intent,
       case when e.kind = 'serving:request:ended' then to_jsonb(c) - 'workspace' end as completion
from events e
left join intents i on i.request = e.request
left join completions c on c.request = e.request
where e.workspace = (select scope_workspace()) and e.position is null
order by e.id limit %(limit)s;

-- name: log.place (scoped)
-- Gives events their places from `first` on, what they commit to and their salts, unless the subject was erased since.
update events e set position = %(first)s::bigint + p.place - 1, commitment = p.commitment,
       record = case when e.subject is not distinct from p.subject then p.record end,
       salt = case when e.subject is not distinct from p.subject then decode(p.salt, 'base64') end
from rows from (jsonb_to_recordset(%(placed)s) as (id bigint, record text, salt text, commitment text, subject text))
     with ordinality as p(id, record, salt, commitment, subject, place)
where e.id = p.id;

-- name: log.tiles (scoped)
-- These tiles, as far as they are there.
select t.level, t.n, t.content from tiles t
join unnest(%(levels)s::int[], %(numbers)s::bigint[]) as w(level, n) on t.level = w.level and t.n = w.n
where t.workspace = (select scope_workspace());

-- name: log.store_tile (scoped)
-- A new tile, or a partial one that has grown.
insert into tiles (workspace, level, n, content) values ((select scope_workspace()), %(level)s, %(n)s, %(content)s)
on conflict (workspace, level, n) do update set content = excluded.content;

-- name: log.checkpoint (scoped)
-- The newest signed checkpoint of the workspace's log.
select size, note, signed, witnessed_size, witnessed_note from checkpoints
where workspace = (select scope_workspace());

-- name: log.checkpoint_held (scoped)
-- The same, for this transaction alone to change.
select witnessed_size, witnessed_note from checkpoints where workspace = (select scope_workspace()) for update;

-- name: log.cosign (scoped)
-- A checkpoint as witnesses have cosigned it: the newest that they have, and the newest of all if it still is.
update checkpoints set note = case when size = %(size)s then %(note)s else note end,
                       witnessed_size = %(size)s, witnessed_note = %(note)s
where workspace = (select scope_workspace()) and coalesce(witnessed_size, 0) <= %(size)s;

-- name: witnesses.sizes (scoped)
-- The size of the checkpoint that each witness cosigned last.
select name, size from witnesses where workspace = (select scope_workspace());

-- name: witnesses.saw (scoped)
-- A witness has cosigned a checkpoint of this size.
insert into witnesses (workspace, name, size) values ((select scope_workspace()), %(name)s, %(size)s)
on conflict (workspace, name) do update set size = excluded.size;

-- name: log.sign (scoped)
-- A newer checkpoint.
insert into checkpoints (workspace, size, note) values ((select scope_workspace()), %(size)s, %(note)s)
on conflict (workspace) do update set size = excluded.size, note = excluded.note, signed = now()
where checkpoints.size < excluded.size;

-- name: log.of_request (scoped)
-- Where the events of a request stand in the log, and what they commit to.
select kind, at, position, request, subject, record, salt, commitment from events
where workspace = (select scope_workspace()) and request = %(request)s order by id;

-- name: log.workspaces (unscoped)
-- Every workspace.
select name from workspaces order by name;

-- name: events.erase (scoped)
-- Takes away what the entries of these subjects commit to, and the salts; the entries stay.
update events set record = null, salt = null, subject = null
where workspace = (select scope_workspace()) and subject = any(%(subjects)s::text[]);

-- name: payloads.erase (scoped)
-- Deletes what these subjects asked and were answered.
delete from payloads where workspace = (select scope_workspace()) and subject = any(%(subjects)s::text[]);

-- name: events.list (scoped)
-- Events, newest first: of a kind or all that begin so, of a request, of subjects, in a time, before an event.
select id, kind, at, position, request, subject, record, commitment from events
where workspace = (select scope_workspace())
  and (%(kind)s::text is null or starts_with(kind, %(kind)s))
  and (%(request)s::text is null or request = %(request)s)
  and (%(subjects)s::text[] is null or subject = any(%(subjects)s))
  and (%(since)s::timestamptz is null or at >= %(since)s)
  and (%(until)s::timestamptz is null or at < %(until)s)
  and (%(before)s::bigint is null or id < %(before)s)
order by id desc limit %(limit)s;

-- name: events.export (scoped)
-- What is in the log, oldest first, after a position; of requests what a filter lets through, of the rest by app and time.
select e.kind, e.at, e.position, e.request, e.subject, e.record, e.salt, e.commitment
from events e
left join intents i on i.request = e.request
left join completions c on c.request = e.request
where e.workspace = (select scope_workspace()) and e.position is not null
  and (%(app)s::text is null or coalesce(i.app, e.facts->>'app') = %(app)s)
  and (%(release)s::text is null or coalesce(i.release::text, e.facts->>'number', e.facts->>'release') = %(release)s::text)
  and (%(outcome)s::text is null or c.outcome = %(outcome)s)
  and (%(guard)s::text is null or c.decision->'verdicts' @> jsonb_build_array(jsonb_build_object('guard', %(guard)s::text)))
  and (%(subjects)s::text[] is null or e.request in
       (select s.request from events s where s.workspace = (select scope_workspace()) and s.subject = any(%(subjects)s)))
  and (%(since)s::timestamptz is null or e.at >= %(since)s)
  and (%(until)s::timestamptz is null or e.at < %(until)s)
  and (%(after)s::bigint is null or e.position > %(after)s)
order by e.position limit %(limit)s;
