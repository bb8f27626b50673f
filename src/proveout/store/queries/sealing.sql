-- name: sealing.get (scoped)
-- The wrapped key of a workspace, document or subject.
select wrapped from sealing_keys where workspace = %(workspace)s and kind = %(kind)s and owner = %(owner)s;

-- name: sealing.insert (scoped)
-- A new wrapped key; the first one stays.
insert into sealing_keys (workspace, kind, owner, wrapped)
values (%(workspace)s, %(kind)s, %(owner)s, %(wrapped)s) on conflict do nothing;

-- name: sealing.get_many (scoped)
-- The wrapped keys of documents or subjects.
select owner, wrapped from sealing_keys
where workspace = %(workspace)s and kind = %(kind)s and owner = any(%(owners)s);

-- name: sealing.insert_many (scoped)
-- New wrapped keys; the first ones stay. In the order of owners, so that two that write the same do not deadlock.
insert into sealing_keys (workspace, kind, owner, wrapped)
select %(workspace)s, %(kind)s, k.owner, k.wrapped
from unnest(%(owners)s::text[], %(wrapped)s::bytea[]) as k(owner, wrapped)
on conflict do nothing;

-- name: sealing.destroy (scoped)
-- Destroys keys, and with them what was sealed under them.
delete from sealing_keys where workspace = %(workspace)s and kind = %(kind)s and owner = any(%(owners)s);
