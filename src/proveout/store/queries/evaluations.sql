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
-- The evaluations of an app, newest first.
select id, app, release, baseline, golden, repeats, summary, created from evaluations
where app = %(app)s order by created desc, id limit %(limit)s;

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
-- The answers that are known to these questions.
select question, seed, sealed from delivered where asked = %(asked)s and question = any(%(questions)s);

-- name: delivered.put (scoped)
-- Keeps an answer; the first stays.
insert into delivered (workspace, asked, question, seed, sealed, cost_usd)
values (%(workspace)s, %(asked)s, %(question)s, %(seed)s, %(sealed)s, %(cost)s)
on conflict do nothing;

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
