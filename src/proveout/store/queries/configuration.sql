-- name: configuration.version (unscoped)
-- Rises with every change of keys, releases, facts and routes.
select version, session_secret from configuration;

-- name: configuration.keys (unscoped)
-- Every key that is not revoked.
select id, workspace, name, role, digest, groups, apps, models from keys where revoked is null;

-- name: configuration.releases (unscoped)
-- Every release of every workspace, with the newest version of its facts.
select r.workspace, r.app, r.number, r.digest, r.manifest, f.facts, r.created, r.author, r.origins
from releases r cross join lateral (
    select facts from facts f where (f.workspace, f.app, f.release) = (r.workspace, r.app, r.number)
    order by version desc limit 1) f;

-- name: configuration.routes (unscoped)
-- Which release each stage serves, its candidate, and which release that replaced.
select workspace, app, stage, stable, since, candidate, weight, salt, pilots, rollout, retired from routes;

-- name: workspaces.ensure (unscoped)
-- Makes a workspace once; its secret keys term hashes and signs sessions.
insert into workspaces (name, secret) values (%(name)s, %(secret)s) on conflict do nothing;

-- name: workspaces.secret (unscoped)
-- The secret of a workspace.
select secret from workspaces where name = %(workspace)s;

-- name: keys.insert (unscoped)
-- A new key; only the digest of its text is kept.
insert into keys (id, workspace, name, role, digest, groups, apps, models)
values (%(id)s, %(workspace)s, %(name)s, %(role)s, %(digest)s, %(groups)s, %(apps)s, %(models)s);

-- name: keys.ensure_owner (unscoped)
-- Registers the owner key that a data folder holds, once.
insert into keys (id, workspace, name, role, digest)
values (%(id)s, %(workspace)s, 'owner', 'owner', %(digest)s)
on conflict (digest) do nothing;

-- name: keys.list (unscoped)
-- The keys of a workspace, newest first, revoked ones too.
select id, name, role, groups, apps, models, created, revoked from keys
where workspace = %(workspace)s order by created desc, id;

-- name: keys.revoke (unscoped)
-- Revokes a key; answers with its id when there was one to revoke.
update keys set revoked = now() where id = %(id)s and workspace = %(workspace)s and revoked is null
returning id;

-- name: logins.insert (unscoped)
-- A one-time login code of a key.
insert into logins (digest, key, expires)
values (%(digest)s, %(key)s, now() + make_interval(mins => %(minutes)s));

-- name: logins.take (unscoped)
-- Uses a one-time code up and answers with its key.
delete from logins using keys k where logins.digest = %(digest)s and expires > now() and k.id = logins.key
returning k.id as key, k.workspace;

-- name: logins.expire (unscoped)
-- Forgets codes that nobody used.
delete from logins where expires <= now();

-- name: database.about (unscoped)
-- What the database is, and how much it holds.
select current_setting('server_version') as version, pg_database_size(current_database()) as bytes;

-- name: configuration.changed (unscoped)
-- Tells every process to look again, and to forget what it holds of keys.
with changed as (update configuration set version = version + 1)
select pg_notify('proveout_configuration', '');
