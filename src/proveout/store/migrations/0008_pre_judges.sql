-- The judge of a release, and what it makes of a sample of what users were answered.
set search_path to proveout, public;

alter table releases add column judge bytea;

create table judgements (
    request text primary key references intents on delete cascade,
    workspace text not null,
    model text not null,
    score double precision check (score between 0 and 1),
    decides boolean not null default false,
    cost_usd double precision,
    at timestamptz not null default now()
);
alter table judgements enable row level security;
alter table judgements force row level security;
create policy of_workspace on judgements for all using (workspace = (select scope_workspace()));

grant select, insert, update, delete on judgements to proveout_service;
