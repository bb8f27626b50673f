-- name: bundles.insert (scoped)
-- An uploaded app folder.
insert into bundles (id, workspace, sealed) values (%(id)s, %(workspace)s, %(sealed)s);

-- name: bundles.get (scoped)
-- An uploaded app folder, sealed.
select sealed from bundles where id = %(id)s;

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
insert into releases (workspace, app, number, digest, manifest, golden)
select %(workspace)s, %(app)s, coalesce(max(number), 0) + 1, %(digest)s, %(manifest)s, %(golden)s
from releases where workspace = %(workspace)s and app = %(app)s
returning number;

-- name: facts.put (unscoped)
-- The next version of a release's facts, unless they are the same as the last one.
insert into facts (workspace, app, release, version, facts)
select %(workspace)s, %(app)s, %(number)s, coalesce(max(version), 0) + 1, %(facts)s
from facts where workspace = %(workspace)s and app = %(app)s and release = %(number)s
having not coalesce((array_agg(facts order by version desc))[1] = %(facts)s, false);

-- name: facts.list (unscoped)
-- Every version of a release's facts, newest first.
select version, facts, recorded from facts
where workspace = %(workspace)s and app = %(app)s and release = %(number)s order by version desc;

-- name: releases.golden (unscoped)
-- The golden questions that came with a release, sealed.
select golden from releases
where workspace = %(workspace)s and app = %(app)s and number = %(number)s;

-- name: routes.set_stable (unscoped)
-- Makes a release the stable one of a stage.
insert into routes (workspace, app, stage, stable)
values (%(workspace)s, %(app)s, %(stage)s, %(number)s)
on conflict (workspace, app, stage) do update set
    since = case when routes.stable = excluded.stable then routes.since else now() end, stable = excluded.stable;
