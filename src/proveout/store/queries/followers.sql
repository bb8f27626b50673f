-- name: followers.ensure (scoped)
-- A follower that is met for the first time begins at the end of the log.
insert into followers (workspace, name, position)
select scope_workspace(), %(name)s, coalesce((select size from checkpoints where workspace = scope_workspace()), 0) - 1
on conflict do nothing;

-- name: followers.take (scoped)
-- A follower whose time has come.
select position, since, attempts, error from followers
where workspace = (select scope_workspace()) and name = %(name)s and due <= now();

-- name: followers.events (scoped)
-- What entered the log after a position: events of some kinds that happened no earlier than `since`, in their order.
select kind, at, now() - at as age, facts, position, commitment from events
where workspace = (select scope_workspace()) and request is null and kind = any(%(kinds)s) and position > %(after)s
  and at >= %(since)s
order by position limit %(limit)s;

-- name: followers.attempt (scoped)
-- The next event is being sent: whoever does it has so many seconds, and nobody else does meanwhile.
update followers set attempts = attempts + 1, due = now() + make_interval(secs => %(seconds)s)
where workspace = (select scope_workspace()) and name = %(name)s and position = %(was)s and due <= now();

-- name: followers.move (scoped)
-- A follower is done with everything up to a position, unless another process has moved it on meanwhile.
update followers set position = %(position)s, attempts = 0, due = now(),
       sent = case when %(sent)s then now() else sent end,
       failing = case when %(sent)s then null else failing end, error = case when %(sent)s then '' else error end
where workspace = (select scope_workspace()) and name = %(name)s and position = %(was)s;

-- name: followers.fail (scoped)
-- The attempt failed; the next one is so many seconds away.
update followers set due = now() + make_interval(secs => %(seconds)s), failing = coalesce(failing, now()), error = %(error)s
where workspace = (select scope_workspace()) and name = %(name)s and position = %(was)s;

-- name: followers.list (scoped)
-- How far these followers have come.
select name, position, since, due, attempts, failing, error, sent from followers
where workspace = (select scope_workspace()) and name = any(%(names)s);

-- name: approvals.awaited (scoped)
-- Whether it is on record already that this release waits for the approval of this stage.
select 1 from events
where workspace = (select scope_workspace()) and request is null and kind = 'releases:approval:awaited' and facts @> %(about)s
limit 1;
