-- name: bundles.insert (scoped)
-- An uploaded app folder.
insert into bundles (id, workspace, content) values (%(id)s, %(workspace)s, %(content)s);

-- name: bundles.content (scoped)
-- The bytes of an uploaded app folder.
select content from bundles where id = %(id)s;

-- name: bundles.delete (scoped)
-- Forgets an upload once its release stands.
delete from bundles where id = %(id)s;

-- name: releases.lock (unscoped)
-- Serialises the numbering of one app's releases until the transaction ends.
select pg_advisory_xact_lock(hashtextextended(%(workspace)s || '/' || %(app)s, 0));

-- name: releases.by_digest (unscoped)
-- The release of an app with this digest, if there is one.
select number from releases
where workspace = %(workspace)s and app = %(app)s and digest = %(digest)s;

-- name: releases.insert (unscoped)
-- The next release of an app.
insert into releases (workspace, app, number, digest, manifest, facts, golden)
select %(workspace)s, %(app)s, coalesce(max(number), 0) + 1, %(digest)s, %(manifest)s, %(facts)s, %(golden)s
from releases where workspace = %(workspace)s and app = %(app)s
returning number;

-- name: releases.golden (unscoped)
-- The golden questions that came with a release, as JSON lines.
select golden from releases
where workspace = %(workspace)s and app = %(app)s and number = %(number)s;

-- name: routes.set_stable (unscoped)
-- Makes a release the stable one of a stage.
insert into routes (workspace, app, stage, stable)
values (%(workspace)s, %(app)s, %(stage)s, %(number)s)
on conflict (workspace, app, stage) do update set stable = excluded.stable;
