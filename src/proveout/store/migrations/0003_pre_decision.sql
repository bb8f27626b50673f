-- The arm of a request's route, and what was decided on its way.
set search_path to proveout, public;

alter table intents
    add column arm text not null default 'stable',
    add column weight double precision;
alter table completions add column decision jsonb;

create or replace function record_v1(new_intents jsonb, new_completions jsonb) returns void
    language plpgsql security definer set search_path = proveout, public, pg_temp as $$
begin
    if new_intents <> '[]' then
        insert into proveout.intents
            select * from jsonb_populate_recordset(
                jsonb_populate_record(null::proveout.intents, '{"arm": "stable"}'), new_intents) -- an older gateway's
            on conflict do nothing;
        insert into proveout.events (workspace, kind, at, request)
            select workspace, 'serving:request:begun', begun, request
            from jsonb_populate_recordset(null::proveout.intents, new_intents)
            on conflict do nothing;
    end if;
    if new_completions <> '[]' then
        delete from proveout.completions c using jsonb_to_recordset(new_completions) as n(request text)
            where c.request = n.request and c.outcome = 'unknown';
        insert into proveout.completions
            select * from jsonb_populate_recordset(null::proveout.completions, new_completions)
            on conflict do nothing;
        insert into proveout.events (workspace, kind, at, request, subject)
            select workspace, 'serving:request:ended', ended, request, subject
            from jsonb_to_recordset(new_completions)
                as c(workspace text, ended timestamptz, request text, subject text)
            on conflict do nothing;
        insert into proveout.payloads (request, workspace, subject, sealed)
            select request, workspace, subject, decode(payload, 'base64')
            from jsonb_to_recordset(new_completions) as c(request text, workspace text, subject text, payload text)
            where payload is not null
            on conflict do nothing;
    end if;
end $$;
