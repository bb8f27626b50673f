-- Candidates of routes, rollouts and feedback.
set search_path to proveout, public;

alter table routes
    add column candidate integer,
    add column weight double precision not null default 0 check (weight between 0 and 1),
    add column salt text,
    add column pilots jsonb,
    add column rollout text,
    add foreign key (workspace, app, candidate) references releases;
alter table intents add column unit text;

create table rollouts (
    id text primary key,
    workspace text not null,
    app text not null,
    stage text not null,
    release integer not null,
    stable integer not null,
    state text not null check (state in ('running', 'paused', 'frozen', 'promoted', 'rolled_back', 'aborted')),
    step integer not null default 0,
    weight double precision not null,
    plan jsonb not null,
    progress jsonb not null,
    position bigint not null,
    key text not null,
    started timestamptz not null default now(),
    ended timestamptz,
    foreign key (workspace, app, release) references releases,
    foreign key (workspace, app, stable) references releases
);
create unique index rollouts_active on rollouts (workspace, app, stage) where state in ('running', 'paused', 'frozen');
create index rollouts_of_stage on rollouts (workspace, app, stage, started);

create table decisions (
    rollout text not null references rollouts on delete cascade,
    number integer not null check (number > 0),
    at timestamptz not null default now(),
    action text not null,
    by text not null,
    reason text not null,
    facts jsonb not null default '{}',
    primary key (rollout, number)
);

create table assignments (
    rollout text not null references rollouts on delete cascade,
    conversation text not null,
    arm text not null,
    weight double precision,
    primary key (rollout, conversation)
);

create table exposures (
    rollout text not null references rollouts on delete cascade,
    unit text not null,
    used jsonb not null default '{}',
    primary key (rollout, unit)
);

create table feedback (
    request text primary key references intents on delete cascade,
    workspace text not null,
    subject text not null,
    key text not null,
    score double precision check (score between 0 and 1),
    outcome jsonb not null default '{}',
    sealed bytea,
    at timestamptz not null default now()
);
create index feedback_by_subject on feedback (workspace, subject);
alter table feedback enable row level security;
alter table feedback force row level security;
create policy of_workspace on feedback for all using (workspace = (select scope_workspace()));

grant select, insert, update, delete on rollouts, decisions, assignments, exposures, feedback to proveout_service;
