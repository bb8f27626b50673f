-- name: evaluations.insert (scoped)
-- An evaluation that is about to run over one release.
insert into evaluations (id, workspace, app, release, key, dataset, repeats, baseline, budget_usd, golden, bias)
values (%(id)s, %(workspace)s, %(app)s, %(release)s, %(key)s, %(dataset)s, %(repeats)s, %(baseline)s,
        %(budget_usd)s, %(golden)s, %(bias)s);

-- name: evaluations.get (scoped)
-- What an evaluation is over, and its summary once it is done.
select id, app, release, key, dataset, repeats, baseline, budget_usd, golden, bias, summary, created
from evaluations where id = %(evaluation)s;

-- name: evaluations.list (scoped)
-- The evaluations of an app, or of one release of it, newest first.
select id, app, release, baseline, golden, repeats, summary, created from evaluations
where app = %(app)s and (%(release)s::integer is null or release = %(release)s)
order by created desc, id limit %(limit)s;

-- name: evaluations.put_case (scoped)
-- The scored answers to one question; a step that runs again overwrites its own.
insert into evaluation_cases (evaluation, workspace, id, result)
values (%(evaluation)s, %(workspace)s, %(case)s, %(result)s)
on conflict (evaluation, id) do update set result = excluded.result;

-- name: evaluations.cases (scoped)
-- The scored answers of an evaluation.
select result from evaluation_cases where evaluation = %(evaluation)s order by id;

-- name: evaluations.finish (scoped)
-- The summary of an evaluation; answers with a row the first time.
update evaluations set summary = %(summary)s where id = %(evaluation)s and summary is null returning id;

-- name: delivered.of (scoped)
-- The answers that are known to these questions, given since a time, if one is named.
select question, seed, sealed from delivered
where asked = %(asked)s and question = any(%(questions)s)
  and (%(since)s::timestamptz is null or created >= %(since)s);

-- name: delivered.put (scoped)
-- Keeps an answer; a newer one takes the place of one that is too old to be used.
insert into delivered (workspace, asked, question, seed, sealed, cost_usd)
values (%(workspace)s, %(asked)s, %(question)s, %(seed)s, %(sealed)s, %(cost)s)
on conflict (workspace, asked, question, seed) do update
    set sealed = excluded.sealed, cost_usd = excluded.cost_usd, created = now()
    where delivered.created < now() - make_interval(secs => %(kept)s);

-- name: drafts.insert (scoped)
-- Questions that are to be drafted of a release's documents.
insert into drafts (id, workspace, app, release, key, count, budget_usd)
values (%(id)s, %(workspace)s, %(app)s, %(release)s, %(key)s, %(count)s, %(budget_usd)s);

-- name: drafts.get (scoped)
-- What is to be drafted for whom; what was, once it is done.
select app, release, key, count, budget_usd, sealed from drafts where id = %(id)s;

-- name: drafts.finish (scoped)
-- The drafts themselves.
update drafts set sealed = %(sealed)s where id = %(id)s;

-- name: drafts.traffic (scoped)
-- Users' requests to an app, drawn at random, whose content is still kept.
select p.request from payloads p join intents i using (request) join completions c using (request)
where i.workspace = (select scope_workspace()) and i.app = %(app)s and i.purpose = 'request'
  and c.outcome in ('answered', 'refused')
order by random() limit %(limit)s;

-- name: drafts.feedback (scoped)
-- The requests to an app that somebody wrote about, or was not helped by, whose content is still kept; newest first.
select f.request from feedback f join intents i using (request) join payloads p using (request)
where i.workspace = (select scope_workspace()) and i.app = %(app)s and (f.sealed is not null or f.score < 0.5)
order by f.at desc limit %(limit)s;

-- name: datasets.put (scoped)
-- The next version of a data set, unless the newest is the same; answers with the version.
insert into datasets (workspace, app, name, version, digest, cases, counted, author, sealed)
select %(workspace)s, %(app)s, %(name)s, coalesce(max(version), 0) + 1, %(digest)s, %(cases)s, %(counted)s,
       %(author)s, %(sealed)s
from datasets where app = %(app)s and name = %(name)s
having not coalesce((array_agg(digest order by version desc))[1] = %(digest)s, false)
returning version;

-- name: datasets.list (scoped)
-- Every version of an app's data sets, newest first.
select name, version, digest, cases, counted, author, created from datasets
where app = %(app)s order by name, version desc;

-- name: datasets.get (scoped)
-- A data set: this version, or the newest.
select name, version, digest, cases, counted, author, created, sealed from datasets
where app = %(app)s and name = %(name)s and (%(version)s::integer is null or version = %(version)s)
order by version desc limit 1;

-- name: evaluations.judge (scoped)
-- Whether a judge may decide, as the newest evaluation of an app that has measured it says.
select (summary -> 'judge' ->> 'decides')::boolean as decides from evaluations
where app = %(app)s and summary -> 'judge' ->> 'digest' = %(digest)s order by created desc limit 1;

-- name: judgements.draw (scoped)
-- Draws users' answered requests since a time for the judges of their releases, those answered first, each but once.
with drawn as (
    insert into judgements (request, workspace, model)
    select p.request, i.workspace, s.model
    from payloads p join intents i using (request) join completions c using (request)
    join jsonb_to_recordset(%(shares)s) as s(app text, release integer, share double precision, model text)
      on (s.app, s.release) = (i.app, i.release)
    where p.workspace = (select scope_workspace()) and p.at > %(since)s
      and i.purpose = 'request' and c.outcome = 'answered'
      and ('x' || left(encode(sha256(convert_to('judge ' || p.request, 'UTF8')), 'hex'), 8))::bit(32)::bigint
          < s.share * 4294967296
      and not exists (select from judgements j where j.request = p.request)
    order by p.at, p.request limit %(limit)s
    on conflict do nothing returning request)
select request, app, release, arm, p.at from drawn join intents using (request) join payloads p using (request);

-- name: judgements.put_back (scoped)
-- Leaves an answer that could not be judged now to the next draw.
delete from judgements where request = %(request)s and score is null;

-- name: judgements.put (scoped)
-- What a judge made of an answer that was drawn for it.
update judgements set score = %(score)s, decides = %(decides)s, cost_usd = %(cost)s, at = now()
where request = %(request)s;

-- name: judgements.of_app (scoped)
-- What judges made of users' answers by an app, by release, the newest first. Drawn ones without a score are under way,
-- failed, or were not understood.
select i.release, count(*) as drawn, count(j.score) as judged, avg(j.score) as mean, stddev_samp(j.score) as spread,
       coalesce(sum(j.cost_usd), 0) as usd, max(j.at) as newest
from judgements j join intents i using (request)
where i.app = %(app)s and (%(release)s::integer is null or i.release = %(release)s)
group by i.release order by i.release desc;
