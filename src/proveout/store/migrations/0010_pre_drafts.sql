-- Questions that a model drafts, as a job.
set search_path to proveout, public;

create table drafts (
    id text primary key,
    workspace text not null,
    app text not null,
    release integer not null,
    key text not null references keys,
    count integer not null,
    budget_usd double precision,
    sealed bytea,
    created timestamptz not null default now(),
    foreign key (workspace, app, release) references releases
);
alter table drafts enable row level security;
alter table drafts force row level security;
create policy of_workspace on drafts for all using (workspace = (select scope_workspace()));
grant select, insert, update, delete on drafts to proveout_service;

create or replace function expire_v1(class text, before timestamptz, most integer) returns bigint
    language plpgsql security definer set search_path = proveout, public, pg_temp as $$
declare
    here text := scope_workspace();
    old text[];
    ids bigint[];
begin
    if not scope_unrestricted() then
        return 0;
    elsif class = 'payloads' then
        select coalesce(array_agg(request), '{}') into old from (
            select p.request from payloads p join intents i using (request)
            where p.workspace = here and p.at < before and not held_v1(here, p.subject, i.app) limit most) o;
        delete from payloads where request = any(old);
        return cardinality(old);
    elsif class = 'requests' then
        select coalesce(array_agg(request), '{}') into old from (
            select i.request from intents i join completions c using (request)
            where i.workspace = here and i.begun < before
              and not exists (select from events e where e.request = i.request
                              and (e.position is null or held_v1(here, e.subject, i.app))) limit most) o;
        delete from payloads where request = any(old);
        delete from completions where request = any(old);
        delete from intents where request = any(old);
        update events set record = null, salt = null, subject = null, facts = '{}' where request = any(old);
        return cardinality(old);
    elsif class = 'events' then
        select coalesce(array_agg(id), '{}') into ids from (
            select e.id from events e
            where e.workspace = here and e.at < before and e.request is null and e.record is not null
              and not held_v1(here, e.subject, e.facts ->> 'app') limit most) o;
        update events set record = null, salt = null, subject = null, facts = '{}' where id = any(ids);
        return cardinality(ids);
    elsif class = 'evaluations' then
        select coalesce(array_agg(id), '{}') into old from (
            select v.id from evaluations v
            where v.workspace = here and v.created < before and not held_v1(here, null, v.app) limit most) o;
        delete from evaluations where id = any(old);
        delete from drafts d where d.workspace = here and d.created < before and not held_v1(here, null, d.app);
        delete from delivered where workspace = here and created < before
            and not exists (select from holds h where h.workspace = here and h.app is not null);
        return cardinality(old);
    end if;
    raise exception 'no class of records is called %', class;
end $$;
