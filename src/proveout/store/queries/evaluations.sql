-- name: evaluations.insert (scoped)
-- An evaluation that is about to run over one release.
insert into evaluations (id, workspace, app, release, key, dataset, repeats, baseline, budget_usd, golden)
values (%(id)s, %(workspace)s, %(app)s, %(release)s, %(key)s, %(dataset)s, %(repeats)s, %(baseline)s,
        %(budget_usd)s, %(golden)s);

-- name: evaluations.get (scoped)
-- What an evaluation is over, and its summary once it is done.
select id, app, release, key, dataset, repeats, baseline, budget_usd, golden, summary, created
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
