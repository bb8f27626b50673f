-- name: bundles.insert (scoped)
-- An uploaded app folder.
insert into bundles (id, workspace, sealed, author) values (%(id)s, %(workspace)s, %(sealed)s, %(author)s);

-- name: bundles.get (scoped)
-- An uploaded app folder, sealed.
select sealed, author from bundles where id = %(id)s;

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
insert into releases (workspace, app, number, digest, manifest, golden, author, scorers)
select %(workspace)s, %(app)s, coalesce(max(number), 0) + 1, %(digest)s, %(manifest)s, %(golden)s, %(author)s, %(scorers)s
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
-- The golden questions and the scorers that came with a release, sealed.
select golden, scorers from releases
where workspace = %(workspace)s and app = %(app)s and number = %(number)s;

-- name: routes.lock (unscoped)
-- Serialises the changes of one stage's route until the transaction ends.
select pg_advisory_xact_lock(hashtextextended(%(workspace)s || '/' || %(app)s || ':' || %(stage)s, 1));

-- name: routes.set_stable (unscoped)
-- Makes a release the stable one of a stage; answers with a row where that is a change.
with changed as (
    insert into routes (workspace, app, stage, stable)
    values (%(workspace)s, %(app)s, %(stage)s, %(number)s)
    on conflict (workspace, app, stage) do update set since = now(), stable = excluded.stable
        where routes.stable <> excluded.stable
    returning workspace, app, stage, stable
)
insert into tenures (workspace, app, stage, release, broke_glass)
select workspace, app, stage, stable, %(broke_glass)s from changed
returning id;

-- name: tenures.of_stage (unscoped)
-- Which releases were the stable ones of a stage, newest first.
select t.release, r.digest, t.since, t.broke_glass, t.withdrawn
from tenures t join releases r on (r.workspace, r.app, r.number) = (t.workspace, t.app, t.release)
where t.workspace = %(workspace)s and t.app = %(app)s and t.stage = %(stage)s order by t.id desc;

-- name: tenures.withdraw (unscoped)
-- Marks the present tenure of a stage as one that is rolled back from.
update tenures set withdrawn = true where id = (
    select max(id) from tenures where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s);

-- name: evidence.insert (unscoped)
-- Evidence over one digest.
insert into evidence (id, workspace, app, digest, kind, basis, verdict, author, facts, recorded, expires, signature)
values (%(id)s, %(workspace)s, %(app)s, %(digest)s, %(kind)s, %(basis)s, %(verdict)s, %(author)s, %(facts)s,
        %(recorded)s, %(expires)s, %(signature)s);

-- name: evidence.of_release (unscoped)
-- All evidence over one digest of an app, newest first.
select id, workspace, app, digest, kind, basis, verdict, author, facts, recorded, expires, signature
from evidence where workspace = %(workspace)s and app = %(app)s and digest = %(digest)s order by recorded desc, id desc;
