-- The full truth of the database. A fresh database gets this file; an older one the migrations beside it.
-- Content tables are read through row-level security: the scope of a transaction stands in the settings
-- proveout.workspace, proveout.readers (text[]) and proveout.unrestricted, set by store/pool.py.

create extension if not exists vector;
select '[1]'::vector; -- loads it: who is no superuser may set its parameters only then
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
    author text not null default '', -- the key that made it first
    scorers bytea, -- the app's own scorers, sealed as the golden questions are
    judge bytea, -- the rubric and the labels of its judge, sealed so too
    origins text[] not null default '{}', -- the authors of the releases that it was derived from
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
    since timestamptz not null default now(), -- the stable release serves this stage
    candidate integer, -- the release that a rollout sends a part of the traffic
    weight double precision not null default 0 check (weight between 0 and 1), -- of the candidate
    salt text, -- of the draw of arms; gone with the candidate
    pilots jsonb, -- who gets the candidate whatever its weight
    rollout text,
    retired jsonb, -- the release that a rollout has replaced, for the conversations that stay on it until a time
    primary key (workspace, app, stage),
    foreign key (workspace, app, stable) references releases,
    foreign key (workspace, app, candidate) references releases
);

-- Which releases were the stable ones of a stage, in their order: what a rollback may reach.
create table tenures (
    id bigint generated always as identity primary key,
    workspace text not null,
    app text not null,
    stage text not null,
    release integer not null,
    since timestamptz not null default now(),
    broke_glass boolean not null default false, -- it came without its evidence
    withdrawn boolean not null default false, -- it was rolled back from
    foreign key (workspace, app, release) references releases
);
create index tenures_of_stage on tenures (workspace, app, stage, id);

-- A candidate on its way to be the stable release of a stage, or back. The row is the whole state of the machine.
create table rollouts (
    id text primary key,
    workspace text not null,
    app text not null,
    stage text not null,
    release integer not null,
    stable integer not null, -- the release that it is compared with
    state text not null check (state in ('running', 'paused', 'frozen', 'promoted', 'rolled_back', 'aborted')),
    step integer not null default 0,
    weight double precision not null,
    plan jsonb not null, -- as it stood at the start
    progress jsonb not null, -- what was seen so far: counts, e-values
    position bigint not null, -- of the log, up to which it was seen
    key text not null, -- that started it
    started timestamptz not null default now(),
    ended timestamptz,
    foreign key (workspace, app, release) references releases,
    foreign key (workspace, app, stable) references releases
);
create unique index rollouts_active on rollouts (workspace, app, stage) where state in ('running', 'paused', 'frozen');
create index rollouts_of_stage on rollouts (workspace, app, stage, started);

-- What was decided of a rollout, by whom, and the numbers that made it.
create table decisions (
    rollout text not null references rollouts on delete cascade,
    number integer not null check (number > 0),
    at timestamptz not null default now(),
    action text not null,
    by text not null, -- a key, or `system`
    reason text not null,
    facts jsonb not null default '{}',
    primary key (rollout, number)
);

-- Conversations stay on their release while a rollout runs, and for a time after a promotion. Named by a salted hash.
create table assignments (
    rollout text not null references rollouts on delete cascade,
    conversation text not null,
    arm text not null,
    weight double precision, -- of the candidate at the draw; null where nothing was drawn
    primary key (rollout, conversation)
);

-- Users and conversations that a rollout has met, by a salted hash, and up to which weight each metric has used them.
create table exposures (
    rollout text not null references rollouts on delete cascade,
    unit text not null,
    used jsonb not null default '{}',
    primary key (rollout, unit)
);

-- Snapshots that a stage was offered because its stable release follows a base of knowledge. Each is tried once.
create table refreshes (
    id text primary key, -- of the job too
    workspace text not null,
    app text not null,
    stage text not null,
    stable integer not null, -- the release that follows, and that the new one is compared with
    knowledge text not null,
    snapshot text not null,
    release integer, -- the new one, once it is derived
    state text not null check (state in ('running', 'passed', 'failed', 'inconclusive', 'put_off')),
    reasons jsonb not null default '[]',
    started timestamptz not null default now(),
    ended timestamptz,
    foreign key (workspace, app, stable) references releases,
    foreign key (workspace, app, release) references releases
);
create unique index refreshes_active on refreshes (workspace, app, stage) where state = 'running';
create index refreshes_of_app on refreshes (workspace, app, started);

-- What was found out about a release, signed with the key of the workspace's log over its digest.
create table evidence (
    id text primary key,
    workspace text not null references workspaces,
    app text not null,
    digest text not null, -- of the release
    kind text not null,
    basis text not null check (basis in ('measured', 'attested')),
    verdict text not null check (verdict in ('pass', 'fail', 'inconclusive')),
    author text not null, -- the key that measured or attested it
    facts jsonb not null,
    recorded timestamptz not null,
    expires timestamptz,
    signature bytea not null
);
create index evidence_of_release on evidence (workspace, app, digest, recorded);

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
create trigger routes_changed after insert or update or delete on routes -- and a look at them changes nothing
    for each row execute function configuration_changed_v1();

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
    kind text not null check (kind in ('workspace', 'document', 'subject', 'log')),
    owner text not null,
    wrapped bytea not null,
    version integer not null default 1, -- of the workspace's key that wraps it; of a workspace's key, its own
    primary key (workspace, kind, owner)
);

-- Legal holds. While one stands, neither retention nor erasure touches what it covers.
create table holds (
    id text primary key,
    workspace text not null references workspaces,
    subjects text[] not null default '{}', -- pseudonyms
    app text,
    sealed bytea not null, -- whom it names and why, under the workspace's key
    key text not null, -- that placed it
    since timestamptz not null default now(),
    check ((app is null) = (subjects <> '{}'))
);

-- An uploaded app folder, waiting for the job that makes a release of it; sealed under the workspace's key.
create table bundles (
    id text primary key,
    workspace text not null references workspaces,
    sealed bytea not null,
    created timestamptz not null default now(),
    author text not null default '' -- the key that uploaded it
);

-- A base of documents, filled by pushes or from folders, never both. `snapshot` is the one that is searched.
create table knowledge (
    workspace text not null references workspaces,
    name text not null,
    origin text not null check (origin in ('push', 'folder')),
    snapshot text,
    serial integer not null default 0, -- of the newest snapshot made
    primary key (workspace, name)
);

-- A document as one pipeline made it; digest covers the source, title and metadata, in a folder its readers too.
-- A push sets the readers of every version of its document: whoever loses the right loses it in old snapshots too.
create table versions (
    id bigint generated always as identity primary key,
    workspace text not null,
    knowledge text not null,
    document text not null check (length(document) between 1 and 1000),
    digest text not null,
    pipeline text not null,
    readers text[] not null,
    sealed bytea not null, -- title, text and metadata, under the document's key
    chunks integer not null,
    created timestamptz not null default now(),
    unique (workspace, knowledge, document, digest, pipeline),
    foreign key (workspace, knowledge) references knowledge on delete cascade
);

create table chunks (
    id bigint generated always as identity primary key,
    workspace text not null,
    knowledge text not null,
    version bigint not null references versions on delete cascade,
    ordinal integer not null,
    sealed bytea not null, -- title, headings and text, under the document's key
    start integer not null,
    "end" integer not null,
    page integer,
    dimensions smallint not null,
    embedding halfvec not null, -- of no fixed length: another embedder may have another
    unique (version, ordinal)
);
alter table chunks alter embedding set storage plain; -- beside its row: an exact search reads nothing else

-- An immutable set of versions, those born up to its serial that have not died by then. Where documents were deleted
-- since, it has fewer.
create table snapshots (
    workspace text not null,
    knowledge text not null,
    digest text not null,
    serial integer not null,
    pipeline text not null,
    documents integer not null,
    chunks integer not null,
    problems jsonb not null default '[]',
    created timestamptz not null default now(),
    primary key (workspace, knowledge, digest),
    unique (workspace, knowledge, serial),
    foreign key (workspace, knowledge) references knowledge on delete cascade
);

create table members (
    workspace text not null,
    knowledge text not null,
    version bigint not null references versions on delete cascade,
    born integer not null,
    died integer not null default 2147483647,
    primary key (version, born)
);
create index members_by_serial on members (workspace, knowledge, died, born);

-- The lexical index of a base, in segments that merges make fewer. chunks[i] is the chunk of ordinal i in postings;
-- what is no member of a snapshot is passed over when that snapshot is searched.
create table segments (
    id bigint generated always as identity primary key,
    workspace text not null,
    knowledge text not null,
    size integer not null,
    chunks bytea not null, -- int64 each, little-endian
    versions bytea not null, -- of each chunk, int64
    lengths bytea not null, -- of each chunk in content words, float32
    foreign key (workspace, knowledge) references knowledge on delete cascade
);
create index segments_of_knowledge on segments (workspace, knowledge);

-- One packed row a term; terms are keyed hashes, not words.
create table postings (
    workspace text not null,
    segment bigint not null references segments on delete cascade,
    term bigint not null,
    packed bytea not null,
    primary key (segment, term)
);

-- Documents on their way in, waiting for the job that makes them searchable; sealed under the workspace's key.
-- Nothing sealed: the document is to go.
create table uploads (
    id text not null,
    workspace text not null references workspaces,
    document text not null,
    readers text[] not null,
    digest text not null,
    sealed bytea,
    created timestamptz not null default now(),
    primary key (id, document)
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
    begun timestamptz not null,
    writer text not null default '',
    arm text not null default 'stable', -- of the route that sent it to this release
    weight double precision, -- of that arm then, 0 to 1; null where nothing was drawn
    unit text -- whom it was drawn for, a salted hash; null: for this request alone
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
    ended timestamptz not null,
    decision jsonb -- what was found, checked and called on the way: ledger/decision.py
);

-- Few, and looked for with every batch: without it a young table is read whole each time.
create index completions_unknown on completions (request) where outcome = 'unknown';

-- What was asked and answered, sealed under the subject's key.
create table payloads (
    request text primary key references completions,
    workspace text not null,
    subject text not null,
    sealed bytea not null,
    at timestamptz not null default now()
);
create index payloads_by_time on payloads (at);

-- What people, or systems downstream, made of an answer; the last word stands.
create table feedback (
    request text primary key references intents on delete cascade,
    workspace text not null,
    subject text not null, -- the request's
    key text not null, -- that gave it
    score double precision check (score between 0 and 1),
    outcome jsonb not null default '{}', -- what came of it: numbers by name
    sealed bytea, -- comment and correction, under the subject's key
    at timestamptz not null default now()
);
create index feedback_by_subject on feedback (workspace, subject);

-- Answered requests that were drawn for their release's judge, and what it made of the answer.
create table judgements (
    request text primary key references intents on delete cascade,
    workspace text not null,
    model text not null,
    score double precision check (score between 0 and 1), -- null: not judged yet, or its words could not be read
    decides boolean not null default false,
    cost_usd double precision,
    at timestamptz not null default now()
);

-- The log: what happened. An event waits, then the integrator gives it a position in its workspace's log, and with it
-- the record (canonical JSON) and the salt that the log's entry commits to; a subject's salt is sealed under the
-- subject's key. Erasure takes both away; the entry stays.
create table events (
    id bigint generated always as identity primary key,
    workspace text not null,
    kind text not null, -- source:subject:action
    at timestamptz not null,
    request text,
    subject text, -- a pseudonym
    facts jsonb not null default '{}',
    position bigint,
    record text,
    salt bytea,
    commitment text
);
create index events_waiting on events (workspace, id) where position is null;
create index events_by_subject on events (workspace, subject) where subject is not null;
create unique index events_by_position on events (workspace, position) where position is not null;
create unique index events_by_request on events (request, kind) where request is not null;
create index events_by_kind on events (workspace, kind, position) where request is null;

-- Those that follow what enters a log, in its order, each from its end when it was first met; how far they have come.
create table followers (
    workspace text not null references workspaces,
    name text not null,
    position bigint not null, -- of the last entry that it is done with
    since timestamptz not null default now(),
    due timestamptz not null default now(), -- nobody takes the next one before: it is being sent, or has failed lately
    attempts integer not null default 0, -- at the next one
    failing timestamptz, -- since then no attempt has succeeded
    error text not null default '',
    sent timestamptz,
    primary key (workspace, name)
);

-- The Merkle tree as tlog-tiles has it; level -1 are the bundles of entries. A partial tile is a prefix of the later one.
create table tiles (
    workspace text not null,
    level smallint not null,
    n bigint not null,
    content bytea not null,
    primary key (workspace, level, n)
);

create table checkpoints (
    workspace text primary key,
    size bigint not null,
    note bytea not null, -- signed, and cosigned as far as witnesses have answered
    signed timestamptz not null default now(),
    witnessed_size bigint, -- of the newest that a witness has cosigned, while the log grows on
    witnessed_note bytea
);

-- How far each witness has come, so that it can be given the proof that it needs next.
create table witnesses (
    workspace text not null,
    name text not null,
    size bigint not null,
    primary key (workspace, name)
);

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
    repeats integer not null default 1, -- how often each question is asked
    baseline text, -- what it is compared with: a release or a model, as a request would name it
    budget_usd double precision, -- asking stops there
    golden boolean not null default true, -- the data set is the release's own
    bias boolean not null default false, -- asks about other people too
    foreign key (workspace, app, release) references releases
);
create index evaluations_of_app on evaluations (workspace, app, created desc);

-- Data sets of an app beside the golden questions of its releases, in versions. Sealed under the workspace's key.
create table datasets (
    workspace text not null references workspaces,
    app text not null,
    name text not null,
    version integer not null check (version > 0),
    digest text not null,
    cases integer not null,
    counted integer not null, -- of them: those that a person stands behind
    author text not null,
    sealed bytea not null,
    created timestamptz not null default now(),
    primary key (workspace, app, name, version)
);

-- Answers to the questions of data sets. An evaluation takes those that are there: `asked` is the digest of who
-- answered, `question` that of the question and its asker's groups. Sealed under the workspace's key.
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

create table evaluation_cases (
    evaluation text not null references evaluations on delete cascade,
    workspace text not null,
    id text not null,
    result bytea not null,
    primary key (evaluation, id)
);

-- Questions that a model drafts of a release's documents, for the key that wants them alone.
create table drafts (
    id text primary key,
    workspace text not null,
    app text not null,
    release integer not null,
    key text not null references keys,
    count integer not null,
    budget_usd double precision,
    sealed bytea, -- under the workspace's key, once they are made
    created timestamptz not null default now(),
    foreign key (workspace, app, release) references releases
);

-- Who writes intents, and when it was last heard of. Who is silent is dead: what it left open is `unknown`.
create table writers (
    id text primary key,
    seen timestamptz not null default now()
);

-- Writes one batch of the group commit: intents first, then completions, in one transaction. What stands already
-- stays: a batch whose commit was not heard of, because the connection broke, is written again. Only an `unknown` end
-- gives way, to one that a spool held. With its owner's rights, because a batch is of every workspace.
create function record_v1(new_intents jsonb, new_completions jsonb) returns void
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

-- Ends what dead writers left open; answers with how many requests that were.
create function end_orphans_v1(silent interval) returns bigint
    language plpgsql security definer set search_path = proveout, public, pg_temp as $$
declare
    dead text[];
    ended bigint;
begin
    select array_agg(id) into dead
    from (select id from writers where seen < now() - silent for update skip locked) w;
    if dead is null then
        return 0;
    end if;
    with orphans as (
        insert into completions (request, workspace, outcome, reason, prompt_tokens, completion_tokens, model,
                                 served_by, runtime, schema, total_ms, ended)
            select i.request, i.workspace, 'unknown', 'the process that answered died', 0, 0, i.model, '', '', 1,
                   extract(epoch from now() - i.begun) * 1000, now()
            from intents i
            where i.writer = any(dead) and not exists (select from completions c where c.request = i.request)
            returning workspace, request
    ), noted as (
        insert into events (workspace, kind, at, request, facts)
            select workspace, 'serving:request:lost', now(), request, jsonb_build_object('request', request) from orphans
            on conflict do nothing
    ) select count(*) into ended from orphans;
    delete from writers where id = any(dead);
    return ended;
end $$;
revoke all on function end_orphans_v1 from public;
grant execute on function end_orphans_v1 to proveout_service;

create function held_v1(workspace text, subject text, app text) returns boolean stable language sql as
    $$ select exists (select from proveout.holds h
                      where h.workspace = $1 and (h.app = $3 or $2 = any(h.subjects))) $$;

-- Takes away what is older than a time and not held, of one class of records, at most so many; answers with how many
-- went. The log keeps its entries: what goes is what they commit to. With its owner's rights, because the record is
-- written by its functions alone.
create function expire_v1(class text, before timestamptz, most integer) returns bigint
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
revoke all on function expire_v1 from public;
grant execute on function expire_v1 to proveout_service;

do $$
declare
    name text;
begin
    foreach name in array array['sealing_keys', 'holds', 'bundles', 'knowledge', 'versions', 'chunks', 'snapshots',
                                'members', 'segments', 'postings', 'uploads',
                                'intents', 'completions', 'payloads',
                                'events', 'tiles', 'checkpoints', 'witnesses',
                                'evaluations', 'evaluation_cases', 'delivered', 'datasets', 'drafts', 'feedback',
                                'judgements'] loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
    end loop;
    -- the whole workspace, for rows that hold no document's text
    foreach name in array array['knowledge', 'snapshots', 'members', 'segments', 'postings', 'intents', 'completions',
                                'payloads', 'events', 'tiles', 'checkpoints', 'witnesses'] loop
        execute format('create policy of_workspace on %I for select
            using (workspace = (select scope_workspace()))', name);
    end loop;
    -- written by the functions of the record alone, with their owner's rights
    foreach name in array array['intents', 'completions', 'payloads', 'events'] loop
        execute format('create policy by_owner on %I for all to %I using (true)', name, current_user);
    end loop;
    -- written by background work, within its workspace
    foreach name in array array['knowledge', 'versions', 'chunks', 'snapshots', 'members', 'segments', 'postings',
                                'events', 'tiles', 'checkpoints', 'witnesses'] loop
        execute format('create policy by_system on %I for all
            using (workspace = (select scope_workspace()) and (select scope_unrestricted()))', name);
    end loop;
end $$;
-- `versions` decides: chunks are visible where their version is.
create policy of_readers on versions for select
    using (workspace = (select scope_workspace()) and readers && (select scope_readers()));
create policy of_readers on chunks for select
    using (workspace = (select scope_workspace()) and exists (select from versions v where v.id = chunks.version));
create policy of_workspace on uploads for all using (workspace = (select scope_workspace()));
create policy of_workspace on sealing_keys for all using (workspace = (select scope_workspace()));
create policy of_workspace on holds for all using (workspace = (select scope_workspace()));
create policy of_workspace on bundles for all using (workspace = (select scope_workspace()));
create policy of_workspace on evaluations for all using (workspace = (select scope_workspace()));
create policy of_workspace on evaluation_cases for all using (workspace = (select scope_workspace()));
create policy of_workspace on delivered for all using (workspace = (select scope_workspace()));
create policy of_workspace on datasets for all using (workspace = (select scope_workspace()));
create policy of_workspace on drafts for all using (workspace = (select scope_workspace()));
create policy of_workspace on feedback for all using (workspace = (select scope_workspace()));
create policy of_workspace on judgements for all using (workspace = (select scope_workspace()));
-- whatever changes something notes it
create policy appended on events for insert with check (true);
create policy expired on payloads for delete
    using (workspace = (select scope_workspace()) and (select scope_unrestricted()));

-- Nearest neighbours through the vector index of a base. The length of vectors and the base stand in the text, because
-- the index is of them: a partial expression index, made when a base is large enough to need one.
create function nearest_query_v1(workspace text, knowledge text, dimensions integer) returns text
    immutable language sql as $$
    select format('select c.id, 1 - (c.embedding::public.halfvec(%1$s) operator(public.<=>) $1::public.halfvec(%1$s)) '
                  'from proveout.chunks c where c.workspace = %2$L and c.knowledge = %3$L and c.dimensions = %1$s '
                  'and exists (select from proveout.members m where m.version = c.version and m.born <= $2 and m.died > $2) '
                  'order by c.embedding::public.halfvec(%1$s) operator(public.<=>) $1::public.halfvec(%1$s) limit $3',
                  dimensions, workspace, knowledge) $$;

-- The plan is pinned: at some limits the planner would rather sort every row.
create function nearest_v1(workspace text, knowledge text, dimensions integer, query text, serial integer, count integer)
    returns table (id bigint, score double precision) stable language plpgsql
    set hnsw.ef_search = 200 set hnsw.iterative_scan = relaxed_order
    set enable_seqscan = off set enable_sort = off set enable_bitmapscan = off as $$
begin
    return query execute proveout.nearest_query_v1(workspace, knowledge, dimensions)
        using query::public.halfvec, serial, count;
end $$;

-- With the rights of the schema's owner, for the service may not make indexes.
create function index_vectors_v1(workspace text, knowledge text, dimensions integer) returns void
    language plpgsql security definer set search_path = proveout, public, pg_temp as $$
begin
    execute format('create index if not exists %I on chunks using hnsw ((embedding::halfvec(%s)) halfvec_cosine_ops)
                    where workspace = %L and knowledge = %L and dimensions = %s',
                   'vectors_' || md5(workspace || '/' || knowledge || '/' || dimensions), dimensions,
                   workspace, knowledge, dimensions);
end $$;
revoke all on function index_vectors_v1 from public;
grant execute on function index_vectors_v1 to proveout_service;

grant usage on schema proveout to proveout_service;
grant select, insert, update, delete on all tables in schema proveout to proveout_service;
revoke insert, update, delete on intents, completions, migrations from proveout_service;
revoke insert on payloads from proveout_service;
