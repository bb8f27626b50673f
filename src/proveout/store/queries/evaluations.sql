-- name: evaluations.insert (scoped)
-- An evaluation that is about to run over one release.
insert into evaluations (id, workspace, app, release, key, dataset)
values (%(id)s, %(workspace)s, %(app)s, %(release)s, %(key)s, %(dataset)s);

-- name: evaluations.get (scoped)
-- What an evaluation is over, and its summary once it is done.
select id, app, release, key, dataset, summary, created from evaluations where id = %(evaluation)s;

-- name: evaluations.put_case (scoped)
-- The scored answer to one golden question; a step that runs again overwrites its own.
insert into evaluation_cases (evaluation, workspace, id, result)
values (%(evaluation)s, %(workspace)s, %(case)s, %(result)s)
on conflict (evaluation, id) do update set result = excluded.result;

-- name: evaluations.cases (scoped)
-- The scored answers of an evaluation.
select result from evaluation_cases where evaluation = %(evaluation)s order by id;

-- name: evaluations.finish (scoped)
-- The summary of an evaluation.
update evaluations set summary = %(summary)s where id = %(evaluation)s;
