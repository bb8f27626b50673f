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
insert into releases (workspace, app, number, digest, manifest, golden, author, scorers, judge)
select %(workspace)s, %(app)s, coalesce(max(number), 0) + 1, %(digest)s, %(manifest)s, %(golden)s, %(author)s, %(scorers)s,
       %(judge)s
from releases where workspace = %(workspace)s and app = %(app)s
returning number;

-- name: releases.derive (unscoped)
-- The next release of an app, measured by what the one that it comes from is measured by; author null: the same as its.
insert into releases (workspace, app, number, digest, manifest, golden, author, scorers, judge, origins)
select workspace, app, (select max(number) + 1 from releases n where (n.workspace, n.app) = (r.workspace, r.app)),
       %(digest)s, %(manifest)s, golden, coalesce(%(author)s::text, author), scorers, judge,
       array_remove(array_append(array_remove(origins, author), author), coalesce(%(author)s::text, author))
from releases r where workspace = %(workspace)s and app = %(app)s and number = %(origin)s
returning number;

-- name: releases.set_golden (unscoped)
-- The golden questions, the scorers and the judge that came with a release the last time.
update releases set golden = %(golden)s, scorers = %(scorers)s, judge = %(judge)s
where workspace = %(workspace)s and app = %(app)s and number = %(number)s;

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
-- The golden questions, the scorers and the judge of a release, sealed.
select golden, scorers, judge from releases
where workspace = %(workspace)s and app = %(app)s and number = %(number)s;

-- name: routes.lock (unscoped)
-- Serialises the changes of one stage's route until the transaction ends.
select pg_advisory_xact_lock(hashtextextended(%(workspace)s || '/' || %(app)s || ':' || %(stage)s, 1));

-- name: routes.set_stable (unscoped)
-- Makes a release the stable one of a stage; answers with a row where that is a change. Conversations stay on the one
-- before only where a rollout has just retired it.
with changed as (
    insert into routes (workspace, app, stage, stable)
    values (%(workspace)s, %(app)s, %(stage)s, %(number)s)
    on conflict (workspace, app, stage) do update set since = now(), stable = excluded.stable,
        retired = case when (routes.retired ->> 'release')::integer = routes.stable then routes.retired
                       else jsonb_set(routes.retired, '{until}', to_jsonb(now())) end
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

-- name: routes.followed (unscoped)
-- The stable release of a stage with the knowledge that it follows, where it does and came through the gate.
select r.workspace, r.app, r.number, r.digest, r.manifest, f.facts, r.created, r.author, r.origins
from routes s
join releases r on (r.workspace, r.app, r.number) = (s.workspace, s.app, s.stable)
cross join lateral (
    select facts from facts where (workspace, app, release) = (r.workspace, r.app, r.number)
    order by version desc limit 1) f
cross join lateral (
    select broke_glass from tenures where (workspace, app, stage) = (s.workspace, s.app, s.stage)
    order by id desc limit 1) t
where s.workspace = %(workspace)s and s.app = %(app)s and s.stage = %(stage)s
  and not t.broke_glass and jsonb_array_length(coalesce(f.facts -> 'follows', '[]')) > 0;

-- name: refreshes.insert (unscoped)
-- A snapshot that a stage is offered; answers with a row, unless the stage is busy with another one.
insert into refreshes (id, workspace, app, stage, stable, knowledge, snapshot, state)
values (%(id)s, %(workspace)s, %(app)s, %(stage)s, %(stable)s, %(knowledge)s, %(snapshot)s, 'running')
on conflict do nothing returning id;

-- name: refreshes.get (unscoped)
-- One refresh.
select * from refreshes where id = %(refresh)s;

-- name: refreshes.running (unscoped)
-- Those that have not ended.
select * from refreshes where workspace = %(workspace)s and state = 'running';

-- name: refreshes.list (unscoped)
-- The refreshes of an app, newest first.
select id, stage, stable, release, knowledge, snapshot, state, reasons, started, ended from refreshes
where workspace = %(workspace)s and app = %(app)s order by started desc limit %(limit)s;

-- name: refreshes.tried (unscoped)
-- Whether a stage has had a snapshot, be it for a while, or was offered it before: then not again by itself.
select true as tried where exists (
    select from refreshes
    where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s
      and knowledge = %(knowledge)s and snapshot = %(snapshot)s
      and (state <> 'put_off' or ended > now() - make_interval(secs => %(pause)s))
) or exists (
    select from (
        select release from tenures where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s
        union select release from rollouts where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s
    ) had
    join releases r on (r.workspace, r.app, r.number) = (%(workspace)s, %(app)s, had.release)
    where r.manifest -> 'knowledge' @> jsonb_build_array(
        jsonb_build_object('name', %(knowledge)s::text, 'snapshot', %(snapshot)s::text))
);

-- name: refreshes.put_off (unscoped)
-- How often a stage was to have a snapshot, and could not be asked about it.
select id from refreshes
where (workspace, app, stage) = (%(workspace)s, %(app)s, %(stage)s)
  and (knowledge, snapshot, state) = (%(knowledge)s, %(snapshot)s, 'put_off');

-- name: refreshes.derived (unscoped)
-- The release that a refresh is about.
update refreshes set release = %(release)s where id = %(refresh)s;

-- name: refreshes.end (unscoped)
-- What came of a refresh; answers with a row the first time.
update refreshes set state = %(state)s, reasons = %(reasons)s, ended = now()
where id = %(refresh)s and state = 'running' returning id;
