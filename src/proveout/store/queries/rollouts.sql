-- name: routes.try_lock (unscoped)
-- Whether this transaction alone may change one stage's route until it ends.
select pg_try_advisory_xact_lock(hashtextextended(%(workspace)s || '/' || %(app)s || ':' || %(stage)s, 1)) as mine;

-- name: routes.set_candidate (unscoped)
-- Gives a stage a candidate; answers with how many stages that were.
update routes set candidate = %(candidate)s, weight = %(weight)s, salt = %(salt)s, pilots = %(pilots)s,
       rollout = %(rollout)s, retired = jsonb_set(retired, '{until}', to_jsonb(now()))
where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s;

-- name: routes.set_weight (unscoped)
-- Gives the candidate of a rollout another weight.
update routes set weight = %(weight)s
where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s and rollout = %(rollout)s;

-- name: routes.clear (unscoped)
-- Takes the candidate of a rollout away, and with it the salt of its draws.
update routes set candidate = null, weight = 0, salt = null, pilots = null, rollout = null
where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s and rollout = %(rollout)s;

-- name: routes.retire (unscoped)
-- Lets the conversations of a rollout that has promoted its candidate stay on the stable release for so many seconds,
-- and forgets those of the one before.
with gone as (
    delete from assignments a using routes r
    where r.workspace = %(workspace)s and r.app = %(app)s and r.stage = %(stage)s and a.rollout = r.retired ->> 'rollout')
update routes set retired = jsonb_build_object(
    'release', stable, 'rollout', rollout, 'salt', salt, 'until', now() + make_interval(secs => %(seconds)s))
where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s and rollout = %(rollout)s;

-- name: routes.let_go (unscoped)
-- Forgets retired releases whose time has come, and what held conversations to them.
with past as (
    select workspace, app, stage, retired ->> 'rollout' as rollout from routes
    where (retired ->> 'until')::timestamptz < now() for update skip locked),
gone as (
    update routes r set retired = null from past p
    where (r.workspace, r.app, r.stage) = (p.workspace, p.app, p.stage))
delete from assignments a using past p where a.rollout = p.rollout;

-- name: routes.stable (unscoped)
-- The stable release of a stage.
select stable from routes where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s;

-- name: assignments.get (unscoped)
-- The arm that a conversation is on.
select arm, weight from assignments where rollout = %(rollout)s and conversation = %(conversation)s;

-- name: assignments.put (unscoped)
-- Puts a conversation on an arm, unless another gateway was first; answers with the one that it is on.
insert into assignments (rollout, conversation, arm, weight)
values (%(rollout)s, %(conversation)s, %(arm)s, %(weight)s)
on conflict (rollout, conversation) do update set arm = assignments.arm
returning arm, weight;

-- name: assignments.forget (unscoped)
-- What held users to their first exposure, and conversations to their arms, of a rollout that has ended: but for those on
-- the stable arm where `stay`.
with units as (delete from exposures where rollout = %(rollout)s)
delete from assignments where rollout = %(rollout)s and not (%(stay)s and arm = 'stable');

-- name: exposures.get (unscoped)
-- These units, as far as the rollout has met them.
select unit, used from exposures where rollout = %(rollout)s and unit = any(%(units)s);

-- name: exposures.put (unscoped)
-- Units as they stand now.
insert into exposures (rollout, unit, used)
select %(rollout)s, u.unit, u.used from jsonb_to_recordset(%(units)s) as u(unit text, used jsonb)
on conflict (rollout, unit) do update set used = excluded.used;

-- name: rollouts.insert (unscoped)
-- A rollout that starts: it sees what enters the workspace's log after a position.
insert into rollouts (id, workspace, app, stage, release, stable, state, weight, plan, progress, position, key)
values (%(id)s, %(workspace)s, %(app)s, %(stage)s, %(release)s, %(stable)s, 'running', %(weight)s, %(plan)s, %(progress)s,
        %(position)s, %(key)s);

-- name: rollouts.active (unscoped)
-- Every rollout of a workspace that has not ended.
select id, workspace, app, stage from rollouts
where workspace = %(workspace)s and state in ('running', 'paused', 'frozen') order by started;

-- name: rollouts.active_of_stage (unscoped)
-- The rollout of a stage that has not ended, for this transaction alone to change.
select * from rollouts
where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s and state in ('running', 'paused', 'frozen')
for update;

-- name: rollouts.latest (unscoped)
-- The newest rollout of a stage, ended or not.
select * from rollouts where workspace = %(workspace)s and app = %(app)s and stage = %(stage)s
order by started desc limit 1;

-- name: rollouts.recent (unscoped)
-- The newest rollout of each stage of a workspace that runs, or ended lately.
select distinct on (app, stage) * from rollouts
where workspace = %(workspace)s and (ended is null or ended > now() - make_interval(hours => %(hours)s))
order by app, stage, started desc;

-- name: rollouts.gone_back (unscoped)
-- The stages of an app in which the way back was walked: from a stable release, or from a candidate.
select stage from tenures where workspace = %(workspace)s and app = %(app)s and withdrawn
union
select stage from rollouts where workspace = %(workspace)s and app = %(app)s and state = 'rolled_back';

-- name: rollouts.save (unscoped)
-- A rollout as it stands now.
update rollouts set state = %(state)s, step = %(step)s, weight = %(weight)s, progress = %(progress)s,
       position = %(position)s
where id = %(id)s;

-- name: rollouts.end (unscoped)
-- A rollout that has ended.
update rollouts set state = %(state)s, ended = now() where id = %(id)s;

-- name: decisions.insert (unscoped)
-- What was decided of a rollout.
insert into decisions (rollout, number, action, by, reason, facts)
select %(rollout)s, coalesce(max(number), 0) + 1, %(action)s, %(by)s, %(reason)s, %(facts)s
from decisions where rollout = %(rollout)s;

-- name: decisions.list (unscoped)
-- What was decided of a rollout, newest first.
select number, at, action, by, reason, facts from decisions where rollout = %(rollout)s order by number desc;

-- name: readings.since (scoped)
-- What entered the log after a position and tells of an app's stage: requests that began, ended or were lost, feedback
-- on them and judgements of them; of those whose arm was drawn for this rollout. In the log's order, so that nothing is
-- seen twice or never. The end of a request that was taken for lost comes too late: it counts as lost.
select e.kind, e.at, e.facts, i.arm, i.weight, i.unit, c.outcome, c.grounded, c.quoted,
       c.completion_tokens, c.cost_usd, c.first_sentence_ms, c.total_ms, c.decision -> 'verdicts' as verdicts,
       c.decision -> 'tools' as tools
from events e
join intents i on i.request = coalesce(e.request, e.facts ->> 'request')
left join completions c on c.request = i.request and e.kind = 'serving:request:ended'
where e.workspace = (select scope_workspace()) and e.position > %(after)s and e.position <= %(until)s
  and e.kind in ('serving:request:begun', 'serving:request:ended', 'serving:request:lost', 'serving:feedback:given',
                 'evals:answer:judged')
  and not (e.kind = 'serving:request:ended' and exists (
      select from events l where l.request = e.request and l.kind = 'serving:request:lost' and l.position < e.position))
  and i.app = %(app)s and i.stage = %(stage)s and i.purpose = 'request' and i.weight is not null
  and i.begun >= %(started)s and i.release in (%(stable)s, %(release)s)
order by e.position;

-- name: readings.newest (scoped)
-- The last position of the workspace's log, and whether what happened a while ago is not in it yet.
select coalesce(max(position), -1) as position,
       exists (select from events w where w.workspace = (select scope_workspace()) and w.position is null
               and w.at < now() - make_interval(secs => %(seconds)s)) as behind
from events where workspace = (select scope_workspace()) and position is not null;

-- name: readings.of_stable (scoped)
-- How the stable release of a stage answered of late: what thresholds are frozen from.
select c.outcome, c.first_sentence_ms, c.total_ms, c.completion_tokens, c.cost_usd
from intents i join completions c using (request)
where i.workspace = (select scope_workspace()) and i.app = %(app)s and i.stage = %(stage)s and i.release = %(release)s
  and i.purpose = 'request' and c.outcome = 'answered' and i.begun > now() - interval '7 days'
order by i.begun desc limit %(limit)s;

-- name: readings.baseline (scoped)
-- How a stage's stable release has ended users' requests since a time, the newest first, with the first scores that
-- were given them; a thumb is none.
with given as materialized (
    select distinct on (e.facts ->> 'request') e.facts ->> 'request' as request, e.facts -> 'score' as score
    from events e
    where e.workspace = (select scope_workspace()) and e.kind = 'serving:feedback:given' and e.request is null
      and e.position is not null and e.at > now() - make_interval(days => %(days)s)
      and jsonb_typeof(e.facts -> 'score') = 'number' and e.facts ->> 'app' = %(app)s
    order by e.facts ->> 'request', e.position)
select i.begun, c.outcome, c.grounded, c.quoted, c.completion_tokens, c.cost_usd, c.first_sentence_ms, c.total_ms,
       c.decision -> 'verdicts' as verdicts, c.decision -> 'tools' as tools, g.score::double precision as score,
       case when j.decides then j.score end as judge
from intents i join completions c using (request) left join given g using (request)
left join judgements j using (request)
where i.workspace = (select scope_workspace()) and i.app = %(app)s and i.stage = %(stage)s and i.release = %(release)s
  and i.purpose = 'request' and i.begun > now() - make_interval(days => %(days)s)
order by i.begun desc limit %(limit)s;

-- name: feedback.put (scoped)
-- What is said of a request of the scope's workspace; what was said before stays where nothing new is said. Answers with
-- the words that were sealed before, for this transaction alone to change.
insert into feedback (request, workspace, subject, key, score, outcome)
values (%(request)s, (select scope_workspace()), %(subject)s, %(key)s, %(score)s, %(outcome)s)
on conflict (request) do update set key = excluded.key, score = coalesce(excluded.score, feedback.score),
    outcome = feedback.outcome || excluded.outcome, at = now()
returning sealed;

-- name: feedback.word (scoped)
-- The words that were said of a request.
update feedback set sealed = %(sealed)s where request = %(request)s;

-- name: feedback.outcomes (scoped)
-- What came of the requests of a rollout, by arm, those most often told first: of those whose arm was drawn.
select i.arm, o.key as name, avg(o.value::double precision) as mean, count(*) as count
from feedback f join intents i using (request), jsonb_each(f.outcome) o
where i.workspace = (select scope_workspace()) and i.app = %(app)s and i.stage = %(stage)s and i.purpose = 'request'
  and i.weight is not null and i.begun >= %(started)s and i.begun <= coalesce(%(ended)s, now())
group by i.arm, o.key order by count(*) desc, o.key limit %(limit)s;

-- name: feedback.get (scoped)
-- What was said of a request.
select key, score, outcome, sealed, subject, at from feedback where request = %(request)s;

-- name: feedback.of_request (scoped)
-- What feedback on a request needs to know of it: whose data it holds, and what answered.
select i.request, i.key, i.app, i.release, i.stage, i.arm,
       (select e.subject from events e where e.request = i.request and e.kind = 'serving:request:ended') as subject
from intents i where i.request = %(request)s and i.workspace = (select scope_workspace());

-- name: feedback.erase (scoped)
-- Deletes what was said of these subjects' requests.
delete from feedback where workspace = (select scope_workspace()) and subject = any(%(subjects)s::text[]);
