-- Followers of the log: targets of notifications, and the watch for releases that wait for approval.
set search_path to proveout, public;

create index events_by_kind on events (workspace, kind, position) where request is null;

create table followers (
    workspace text not null references workspaces,
    name text not null,
    position bigint not null,
    since timestamptz not null default now(),
    due timestamptz not null default now(),
    attempts integer not null default 0,
    failing timestamptz,
    error text not null default '',
    sent timestamptz,
    primary key (workspace, name)
);
grant select, insert, update, delete on followers to proveout_service;
