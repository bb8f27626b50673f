-- The full truth of the database. A fresh database gets this file; an older one the migrations beside it.
-- Content tables are read through row-level security: the scope of a transaction stands in the settings
-- proveout.workspace, proveout.readers (text[]) and proveout.unrestricted, set by store/pool.py.

create extension if not exists vector;
create schema proveout;
set search_path to proveout, public;

do $$ begin
    if not exists (select from pg_roles where rolname = 'proveout_service') then
        create role proveout_service nologin nobypassrls nosuperuser;
    end if;
    execute format('grant proveout_service to %I', current_user);
end $$;

create table migrations (
    name text primary key,
    applied timestamptz not null default now()
);

-- One row: its version rises with every change of the configuration that gateways cache.
create table configuration (
    one boolean primary key default true check (one),
    version bigint not null default 1,
    session_secret bytea not null -- signs the sessions of browsers
);
insert into configuration (session_secret)
    select sha256(string_agg(uuid_send(gen_random_uuid()), '')) from generate_series(1, 4);

create table workspaces (
    name text primary key,
    secret bytea not null,
    created timestamptz not null default now()
);

create table keys (
    id text primary key,
    workspace text not null references workspaces,
    name text not null,
    role text not null,
    digest bytea not null unique,
    groups text[] not null default '{}',
    apps text[],
    models text[] not null default '{}',
    created timestamptz not null default now(),
    revoked timestamptz
);

create table logins (
    digest bytea primary key,
    key text not null references keys,
    expires timestamptz not null
);

create table releases (
    workspace text not null references workspaces,
    app text not null,
    number integer not null check (number > 0),
    digest text not null,
    manifest jsonb not null,
    golden bytea, -- the golden questions that came with it, sealed under the workspace's key
    created timestamptz not null default now(),
    primary key (workspace, app, number),
    unique (workspace, app, digest)
);

-- What is recorded of a release beside its manifest. Its digest stays when they change, so they have versions.
create table facts (
    workspace text not null,
    app text not null,
    release integer not null,
    version integer not null check (version > 0),
    facts jsonb not null,
    recorded timestamptz not null default now(),
    primary key (workspace, app, release, version),
    foreign key (workspace, app, release) references releases
);

create table routes (
    workspace text not null,
    app text not null,
    stage text not null check (stage in ('poc', 'beta', 'production')),
    stable integer not null,
    primary key (workspace, app, stage),
    foreign key (workspace, app, stable) references releases
);

create function configuration_changed_v1() returns trigger language plpgsql as $$
begin
    update proveout.configuration set version = version + 1;
    perform pg_notify('proveout_configuration', ''); -- only here: a NOTIFY takes a database-wide lock
    return null;
end $$;
create trigger keys_changed after insert or update or delete on keys
    for each statement execute function configuration_changed_v1();
create trigger releases_changed after insert or update or delete on releases
    for each statement execute function configuration_changed_v1();
create trigger facts_changed after insert or update or delete on facts -- by row: most inserts insert nothing
    for each row execute function configuration_changed_v1();
create trigger routes_changed after insert or update or delete on routes
    for each statement execute function configuration_changed_v1();

-- Content: what a scope may see ---------------------------------------------------------------------

create function scope_workspace() returns text stable language sql as
    $$ select current_setting('proveout.workspace', true) $$;
create function scope_readers() returns text[] stable language sql as
    $$ select coalesce(nullif(current_setting('proveout.readers', true), ''), '{}')::text[] $$;
create function scope_unrestricted() returns boolean stable language sql as
    $$ select coalesce(current_setting('proveout.unrestricted', true), '') = 'on' $$;

-- Wrapped keys: a workspace's by the master key, documents' and subjects' by their workspace's. Destroying a row
-- destroys what was sealed under it.
create table sealing_keys (
    workspace text not null references workspaces,
    kind text not null check (kind in ('workspace', 'document', 'subject')),
    owner text not null,
    wrapped bytea not null,
    primary key (workspace, kind, owner)
);

-- An uploaded app folder, waiting for the job that makes a release of it; sealed under the workspace's key.
create table bundles (
    id text primary key,
    workspace text not null references workspaces,
    sealed bytea not null,
    created timestamptz not null default now()
);

create table documents (
    workspace text not null references workspaces,
    knowledge text not null,
    id text not null check (length(id) between 1 and 1000),
    readers text[] not null,
    primary key (workspace, knowledge, id)
);

-- A document's text as one pipeline made it; digest covers the source's bytes, title and metadata.
create table versions (
    id bigint generated always as identity primary key,
    workspace text not null,
    knowledge text not null,
    document text not null,
    digest text not null,
    pipeline text not null,
    sealed bytea not null, -- title and text, under the document's key
    created timestamptz not null default now(),
    unique (workspace, knowledge, document, digest, pipeline),
    foreign key (workspace, knowledge, document) references documents on delete cascade
);

create table chunks (
    id bigint generated always as identity primary key,
    workspace text not null,
    knowledge text not null,
    document text not null,
    version bigint not null references versions on delete cascade,
    ordinal integer not null,
    sealed bytea not null, -- title, headings and text, under the document's key
    start integer not null,
    "end" integer not null,
    page integer,
    embedding vector not null,
    unique (version, ordinal),
    foreign key (workspace, knowledge, document) references documents on delete cascade
);

-- An immutable set of document versions. chunks[i] is the chunk of ordinal i in postings and lengths.
create table snapshots (
    workspace text not null references workspaces,
    knowledge text not null,
    digest text not null,
    pipeline text not null,
    versions bigint[] not null,
    chunks bigint[] not null,
    lengths bytea not null,
    problems jsonb not null default '[]',
    created timestamptz not null default now(),
    primary key (workspace, knowledge, digest)
);

-- The lexical index of a snapshot, one packed row a term; terms are keyed hashes, not words.
create table postings (
    workspace text not null,
    knowledge text not null,
    snapshot text not null,
    term bigint not null,
    packed bytea not null,
    primary key (workspace, knowledge, snapshot, term),
    foreign key (workspace, knowledge, snapshot) references snapshots on delete cascade
);

-- The record of requests: an intent before the model is called, a completion before the last byte ------

create table intents (
    request text primary key,
    workspace text not null,
    key text not null,
    purpose text not null,
    app text,
    release integer,
    release_digest text,
    stage text,
    model text not null,
    parameters jsonb not null,
    streamed boolean not null,
    begun timestamptz not null
);
create index intents_by_time on intents (workspace, begun desc);

create table completions (
    request text primary key references intents,
    workspace text not null,
    outcome text not null,
    reason text not null default '',
    grounded boolean,
    quoted boolean not null default false,
    prompt_tokens integer not null,
    completion_tokens integer not null,
    cost_usd double precision,
    model text not null, -- the one that answered: the intent's, or a fallback
    served_by text not null, -- the provider's own name for it
    runtime text not null,
    schema integer not null, -- of this row
    first_token_ms double precision,
    first_sentence_ms double precision,
    total_ms double precision not null,
    documents text[] not null default '{}',
    ended timestamptz not null
);

-- What was asked and answered, sealed under the subject's key.
create table payloads (
    request text primary key references completions,
    workspace text not null,
    subject text not null,
    sealed bytea not null,
    at timestamptz not null default now()
);
create index payloads_by_time on payloads (at);

-- Golden questions asked of a release; results hold questions and answers.
create table evaluations (
    id text primary key,
    workspace text not null,
    app text not null,
    release integer not null,
    key text not null references keys,
    dataset bytea not null, -- sealed under the workspace's key, as the results are
    summary jsonb,
    created timestamptz not null default now(),
    foreign key (workspace, app, release) references releases
);

create table evaluation_cases (
    evaluation text not null references evaluations on delete cascade,
    workspace text not null,
    id text not null,
    result bytea not null,
    primary key (evaluation, id)
);

-- Writes one batch of the group commit: intents first, then completions, in one transaction. What stands already
-- stays: a batch whose commit was not heard of, because the connection broke, is written again.
create function record_v1(new_intents jsonb, new_completions jsonb) returns void language plpgsql as $$
begin
    if new_intents <> '[]' then
        insert into proveout.intents
            select * from jsonb_populate_recordset(null::proveout.intents, new_intents)
            on conflict do nothing;
    end if;
    if new_completions <> '[]' then
        insert into proveout.completions
            select * from jsonb_populate_recordset(null::proveout.completions, new_completions)
            on conflict do nothing;
        insert into proveout.payloads (request, workspace, subject, sealed)
            select request, workspace, subject, decode(payload, 'base64')
            from jsonb_to_recordset(new_completions) as c(request text, workspace text, subject text, payload text)
            where payload is not null
            on conflict do nothing;
    end if;
end $$;

do $$
declare
    name text;
begin
    foreach name in array array['sealing_keys', 'bundles', 'documents', 'versions', 'chunks', 'snapshots', 'postings',
                                'intents', 'completions', 'payloads',
                                'evaluations', 'evaluation_cases'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
    end loop;
    -- the whole workspace, for rows that hold no document's text
    foreach name in array array['snapshots', 'postings', 'intents', 'completions', 'payloads'] loop
        execute format('create policy of_workspace on %I for select
            using (workspace = (select scope_workspace()))', name);
    end loop;
    -- written by background work, within its workspace
    foreach name in array array['documents', 'versions', 'chunks', 'snapshots', 'postings'] loop
        execute format('create policy by_system on %I for all
            using (workspace = (select scope_workspace()) and (select scope_unrestricted()))', name);
    end loop;
    foreach name in array array['versions', 'chunks'] loop
        execute format('create policy of_readers on %I for select
            using (workspace = (select scope_workspace()) and exists (
                select from documents d
                where d.workspace = %I.workspace and d.knowledge = %I.knowledge and d.id = %I.document))',
            name, name, name, name);
    end loop;
end $$;
-- `documents` decides: versions and chunks are visible where their document is.
create policy of_readers on documents for select
    using (workspace = (select scope_workspace()) and readers && (select scope_readers()));
create policy of_workspace on sealing_keys for all using (workspace = (select scope_workspace()));
create policy of_workspace on bundles for all using (workspace = (select scope_workspace()));
create policy of_workspace on evaluations for all using (workspace = (select scope_workspace()));
create policy of_workspace on evaluation_cases for all using (workspace = (select scope_workspace()));
-- the group commit writes for every workspace at once, and reads nothing back
create policy appended on intents for insert with check (true);
create policy appended on completions for insert with check (true);
create policy appended on payloads for insert with check (true);
create policy expired on payloads for delete
    using (workspace = (select scope_workspace()) and (select scope_unrestricted()));

grant usage on schema proveout to proveout_service;
grant select, insert, update, delete on all tables in schema proveout to proveout_service;
revoke update, delete on intents, completions, migrations from proveout_service;
