-- Derived releases, and stages that follow knowledge.
set search_path to proveout, public;

alter table releases add column origins text[] not null default '{}';

create table refreshes (
    id text primary key,
    workspace text not null,
    app text not null,
    stage text not null,
    stable integer not null,
    knowledge text not null,
    snapshot text not null,
    release integer,
    state text not null check (state in ('running', 'passed', 'failed', 'inconclusive', 'put_off')),
    reasons jsonb not null default '[]',
    started timestamptz not null default now(),
    ended timestamptz,
    foreign key (workspace, app, stable) references releases,
    foreign key (workspace, app, release) references releases
);
create unique index refreshes_active on refreshes (workspace, app, stage) where state = 'running';
create index refreshes_of_app on refreshes (workspace, app, started);

grant select, insert, update, delete on refreshes to proveout_service;
