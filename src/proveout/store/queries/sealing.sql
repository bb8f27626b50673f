-- name: sealing.get (scoped)
-- The wrapped key of a document, subject or log.
select wrapped from sealing_keys where workspace = %(workspace)s and kind = %(kind)s and owner = %(owner)s;

-- name: sealing.get_many (scoped)
-- The wrapped keys of documents or subjects.
select owner, wrapped from sealing_keys
where workspace = %(workspace)s and kind = %(kind)s and owner = any(%(owners)s);

-- name: sealing.insert_many (scoped)
-- New wrapped keys; the first ones stay. In the order of owners, so that two that write the same do not deadlock.
insert into sealing_keys (workspace, kind, owner, wrapped, version)
select %(workspace)s, %(kind)s, k.owner, k.wrapped, %(version)s
from unnest(%(owners)s::text[], %(wrapped)s::bytea[]) as k(owner, wrapped)
on conflict do nothing;

-- name: sealing.destroy (scoped)
-- Destroys keys, and with them what was sealed under them.
delete from sealing_keys where workspace = %(workspace)s and kind = %(kind)s and owner = any(%(owners)s);

-- name: sealing.versions (scoped)
-- The keys of a workspace, wrapped by the master key.
select owner, wrapped, version from sealing_keys
where workspace = %(workspace)s and kind = 'workspace' order by version;

-- name: sealing.newest (scoped)
-- The version that wraps what is made now.
select max(version) as version from sealing_keys where workspace = %(workspace)s and kind = 'workspace';

-- name: sealing.older (scoped)
-- Keys that an older key of the workspace wraps, for this transaction alone to change.
select kind, owner, wrapped from sealing_keys
where workspace = %(workspace)s and kind <> 'workspace' and version < %(version)s
order by kind, owner limit %(limit)s for update;

-- name: sealing.rewrap (scoped)
-- The same key, wrapped by another.
update sealing_keys set wrapped = %(wrapped)s, version = %(version)s
where workspace = %(workspace)s and kind = %(kind)s and owner = %(owner)s;

-- name: sealing.retire (scoped)
-- Destroys the workspace's keys between the first, which makes pseudonyms, and this version.
delete from sealing_keys
where workspace = %(workspace)s and kind = 'workspace' and version > 1 and version < %(version)s;

-- name: sealing.lock (scoped)
-- Waits until nobody makes keys under this workspace's, and keeps others from it until the transaction ends.
select pg_advisory_xact_lock(hashtextextended('proveout keys of ' || %(workspace)s, 0));

-- name: sealing.lock_shared (scoped)
-- Keeps the workspace's newest key the newest until the transaction ends.
select pg_advisory_xact_lock_shared(hashtextextended('proveout keys of ' || %(workspace)s, 0));

-- name: sealing.lock_master (scoped)
-- Waits until nobody makes keys of workspaces, and keeps others from it until the transaction ends.
select pg_advisory_xact_lock(hashtextextended('proveout master key', 0));

-- name: sealing.lock_master_shared (scoped)
-- Keeps the newest master key the newest until the transaction ends.
select pg_advisory_xact_lock_shared(hashtextextended('proveout master key', 0));
