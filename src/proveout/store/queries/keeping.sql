-- name: holds.lock (scoped)
-- Keeps holds and erasures of a workspace apart until the transaction ends.
select pg_advisory_xact_lock(hashtextextended('proveout holds ' || scope_workspace(), 0));

-- name: holds.insert (scoped)
-- A hold over a subject's pseudonyms, or over an app.
insert into holds (id, workspace, subjects, app, sealed, key)
values (%(id)s, (select scope_workspace()), %(subjects)s, %(app)s, %(sealed)s, %(key)s);

-- name: holds.list (scoped)
-- The holds that stand, oldest first.
select id, app, sealed, key, since from holds where workspace = (select scope_workspace()) order by since, id;

-- name: holds.delete (scoped)
-- Lifts a hold.
delete from holds where workspace = (select scope_workspace()) and id = %(id)s returning subjects, app;

-- name: holds.over (scoped)
-- The holds that keep these subjects: their own, and those over apps that they asked.
select h.id from holds h
where h.workspace = (select scope_workspace())
  and (h.subjects && %(subjects)s::text[]
       or exists (select from events e join intents i on i.request = e.request
                  where e.workspace = h.workspace and e.subject = any(%(subjects)s::text[]) and i.app = h.app))
order by h.since, h.id;

-- name: records.expire (scoped)
-- Takes away what is older than so many days, of one class of records, at most so many.
select expire_v1(%(class)s, now() - make_interval(days => %(days)s), %(most)s) as gone;
