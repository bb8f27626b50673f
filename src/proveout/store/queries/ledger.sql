-- name: ledger.record (unscoped)
-- One batch of the group commit.
select record_v1(%(intents)s, %(completions)s);

-- name: payloads.get (scoped)
-- What is kept of a request's content, and what tells why nothing is.
select p.subject, p.sealed, c.outcome, coalesce((c.decision->>'captured')::boolean, true) as captured,
       exists (select from events e where e.request = i.request and e.kind = 'serving:request:ended'
               and e.subject is null) as erased
from intents i left join completions c using (request) left join payloads p using (request)
where i.request = %(request)s;

-- name: requests.get (scoped)
-- One request with its completion, if it has one. Documents are named as far as the scope may read them now.
select i.*, c.outcome, c.reason, c.grounded, c.quoted, c.prompt_tokens, c.completion_tokens, c.cost_usd,
       c.first_token_ms, c.first_sentence_ms, c.total_ms, c.ended, c.model as answered_by, c.served_by, c.runtime, c.decision,
       (select e.subject from events e where e.request = i.request and e.kind = 'serving:request:ended') as subject,
       array(select d from unnest(c.documents) d
             where exists (select from versions v where v.workspace = i.workspace and v.document = d)) as documents,
       cardinality(c.documents) as documents_found
from intents i left join completions c using (request) where i.request = %(request)s;

-- name: requests.list (scoped)
-- The newest requests of a workspace: of an app, a release, an outcome (`open`: without one), subjects, a time; with a
-- verdict of a guard; begun before a time.
select i.request, i.app, i.release, i.stage, i.arm, i.model, i.key, i.purpose, i.begun, c.outcome, c.grounded, c.quoted,
       c.prompt_tokens, c.completion_tokens, c.cost_usd, c.first_token_ms, c.total_ms, c.model as answered_by
from intents i left join completions c using (request)
where i.workspace = (select scope_workspace())
  and (%(app)s::text is null or i.app = %(app)s)
  and (%(release)s::integer is null or i.release = %(release)s)
  and (%(outcome)s::text is null or coalesce(c.outcome, 'open') = %(outcome)s)
  and (%(guard)s::text is null or c.decision->'verdicts' @> jsonb_build_array(jsonb_build_object('guard', %(guard)s::text)))
  and (%(subjects)s::text[] is null or i.request in
       (select e.request from events e where e.workspace = (select scope_workspace()) and e.subject = any(%(subjects)s)))
  and (%(since)s::timestamptz is null or i.begun >= %(since)s)
  and (%(until)s::timestamptz is null or i.begun < %(until)s)
  and (%(before)s::timestamptz is null or i.begun < %(before)s)
order by i.begun desc limit %(limit)s;

-- name: requests.costs (scoped)
-- What was used since a time, by app, model, day (UTC) or key; requests that have not ended are left out.
with used as (
    select case %(by)s::text when 'app' then i.app when 'model' then c.model when 'key' then i.key
                else to_char(i.begun at time zone 'UTC', 'YYYY-MM-DD') end as name, c.*
    from intents i join completions c using (request)
    where i.workspace = (select scope_workspace()) and i.begun >= %(since)s)
select name, count(*) as requests, sum(prompt_tokens) as prompt_tokens, sum(completion_tokens) as completion_tokens,
       coalesce(sum(cost_usd), 0) as cost_usd, count(*) filter (where cost_usd is null) as unpriced
from used group by name
order by case when %(by)s::text = 'day' then name end desc, cost_usd desc, requests desc, name;

-- name: requests.load (scoped)
-- Users' requests since a time, in windows of a length; the row without `begins` is of all. Times are of answered ones.
with binned as (
    select date_bin(%(step)s::interval, i.begun, %(since)s) as begins, c.*
    from intents i left join completions c using (request)
    where i.workspace = (select scope_workspace()) and i.begun >= %(since)s and i.purpose = 'request')
select begins, count(*) as requests,
       count(*) filter (where outcome = 'answered') as answered,
       count(*) filter (where outcome = 'refused') as refused,
       count(*) filter (where outcome in ('failed', 'truncated')) as failed,
       percentile_cont(0.5) within group (order by total_ms) filter (where outcome = 'answered') as p50_ms,
       percentile_cont(0.95) within group (order by total_ms) filter (where outcome = 'answered') as p95_ms,
       percentile_cont(0.5) within group (order by first_sentence_ms) filter (where outcome = 'answered')
           as first_text_p50_ms
from binned group by grouping sets ((begins), ());

-- name: requests.models (scoped)
-- How each model has answered since a time.
select c.model, count(*) as requests, count(*) filter (where c.outcome in ('failed', 'truncated')) as failed,
       max(i.begun) as last
from intents i join completions c using (request)
where i.workspace = (select scope_workspace()) and i.begun >= %(since)s
group by c.model order by c.model;

-- name: writers.seen (unscoped)
-- This process is alive.
insert into writers (id) values (%(id)s) on conflict (id) do update set seen = now();

-- name: writers.end_orphans (unscoped)
-- Ends what processes left open that have been silent for so many seconds.
select end_orphans_v1(make_interval(secs => %(seconds)s)) as ended;

-- name: requests.export (scoped)
-- Ended requests, oldest first (their numbers sort by time), after one.
select i.request, i.app, i.release, i.release_digest, i.stage, i.arm, i.weight, i.key, i.purpose, i.model, i.parameters,
       i.begun, c.outcome, c.grounded, c.quoted, c.prompt_tokens, c.completion_tokens, c.cost_usd, c.first_token_ms,
       c.first_sentence_ms, c.total_ms, c.model as answered_by, c.served_by, c.decision, e.subject
from intents i join completions c using (request)
left join events e on e.request = i.request and e.kind = 'serving:request:ended'
where i.workspace = (select scope_workspace())
  and (%(app)s::text is null or i.app = %(app)s)
  and (%(release)s::integer is null or i.release = %(release)s)
  and (%(outcome)s::text is null or c.outcome = %(outcome)s)
  and (%(guard)s::text is null or c.decision->'verdicts' @> jsonb_build_array(jsonb_build_object('guard', %(guard)s::text)))
  and (%(subjects)s::text[] is null or e.subject = any(%(subjects)s))
  and (%(since)s::timestamptz is null or i.begun >= %(since)s)
  and (%(until)s::timestamptz is null or i.begun < %(until)s)
  and (%(after)s::text is null or i.request > %(after)s)
order by i.request limit %(limit)s;
