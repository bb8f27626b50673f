-- Evidence, the gate and comparisons.
set search_path to proveout, public;

alter table releases add column author text not null default '', add column scorers bytea;
alter table bundles add column author text not null default '';
alter table evaluations
    add column repeats integer not null default 1,
    add column baseline text,
    add column budget_usd double precision,
    add column golden boolean not null default true,
    add column bias boolean not null default false;

create table tenures (
    id bigint generated always as identity primary key,
    workspace text not null,
    app text not null,
    stage text not null,
    release integer not null,
    since timestamptz not null default now(),
    broke_glass boolean not null default false,
    withdrawn boolean not null default false,
    foreign key (workspace, app, release) references releases
);
create index tenures_of_stage on tenures (workspace, app, stage, id);
insert into tenures (workspace, app, stage, release, since) select workspace, app, stage, stable, since from routes;

create table evidence (
    id text primary key,
    workspace text not null references workspaces,
    app text not null,
    digest text not null,
    kind text not null,
    basis text not null check (basis in ('measured', 'attested')),
    verdict text not null check (verdict in ('pass', 'fail', 'inconclusive')),
    author text not null,
    facts jsonb not null,
    recorded timestamptz not null,
    expires timestamptz,
    signature bytea not null
);
create index evidence_of_release on evidence (workspace, app, digest, recorded);

create table delivered (
    workspace text not null,
    asked text not null,
    question text not null,
    seed integer not null,
    sealed bytea not null,
    cost_usd double precision,
    created timestamptz not null default now(),
    primary key (workspace, asked, question, seed)
);
alter table delivered enable row level security;
alter table delivered force row level security;
create policy of_workspace on delivered for all using (workspace = (select scope_workspace()));

create table datasets (
    workspace text not null references workspaces,
    app text not null,
    name text not null,
    version integer not null check (version > 0),
    digest text not null,
    cases integer not null,
    counted integer not null,
    author text not null,
    sealed bytea not null,
    created timestamptz not null default now(),
    primary key (workspace, app, name, version)
);
alter table datasets enable row level security;
alter table datasets force row level security;
create policy of_workspace on datasets for all using (workspace = (select scope_workspace()));

grant select, insert, update, delete on tenures, evidence, delivered, datasets to proveout_service;
