-- name: ledger.record (unscoped)
-- One batch of the group commit.
select record_v1(%(intents)s, %(completions)s);

-- name: payloads.expire (scoped)
-- Deletes payloads that are older than this many days.
delete from payloads where at < now() - make_interval(days => %(days)s);

-- name: requests.get (scoped)
-- One request with its completion, if it has one.
select i.*, c.outcome, c.reason, c.grounded, c.quoted, c.prompt_tokens, c.completion_tokens, c.cost_usd,
       c.first_token_ms, c.first_sentence_ms, c.total_ms, c.documents, c.ended, c.model as answered_by,
       c.served_by, c.runtime
from intents i left join completions c using (request) where i.request = %(request)s;

-- name: requests.list (scoped)
-- The newest requests of a workspace.
select i.request, i.app, i.release, i.stage, i.model, i.key, i.begun, c.outcome, c.grounded, c.quoted,
       c.prompt_tokens, c.completion_tokens, c.total_ms
from intents i left join completions c using (request)
where i.workspace = (select scope_workspace()) order by i.begun desc limit %(limit)s;
