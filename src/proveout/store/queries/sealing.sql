-- name: sealing.get (scoped)
-- The wrapped key of a workspace, document or subject.
select wrapped from sealing_keys where workspace = %(workspace)s and kind = %(kind)s and owner = %(owner)s;

-- name: sealing.insert (scoped)
-- A new wrapped key; the first one stays.
insert into sealing_keys (workspace, kind, owner, wrapped)
values (%(workspace)s, %(kind)s, %(owner)s, %(wrapped)s) on conflict do nothing;
