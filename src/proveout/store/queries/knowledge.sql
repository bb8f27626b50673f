-- name: knowledge.ensure (scoped)
-- Registers a base; what it is filled from stays once it holds something.
insert into knowledge (workspace, name, origin) values (%(workspace)s, %(name)s, %(origin)s)
on conflict (workspace, name) do update set origin = excluded.origin where knowledge.snapshot is null;

-- name: knowledge.share (scoped)
-- Keeps commits to a base, which may destroy documents and their keys, from happening until the transaction ends.
select from knowledge where workspace = %(workspace)s and name = %(knowledge)s for share;

-- name: knowledge.lock (scoped)
-- One commit to a base at a time: its origin, the serial of its newest snapshot, and that of the one that is searched.
select k.origin, k.serial, k.snapshot, s.serial as current
from knowledge k left join snapshots s on (s.workspace, s.knowledge, s.digest) = (k.workspace, k.name, k.snapshot)
where k.workspace = %(workspace)s and k.name = %(knowledge)s for update of k;

-- name: knowledge.point (scoped)
-- Makes a snapshot the one that is searched.
update knowledge set snapshot = %(snapshot)s, serial = greatest(serial, %(serial)s)
where workspace = %(workspace)s and name = %(knowledge)s;

-- name: knowledge.list (scoped)
-- The bases of a workspace, each with the snapshot that is searched.
select k.name, k.origin, s.digest as snapshot, s.documents, s.chunks, s.problems, s.created
from knowledge k left join snapshots s on (s.workspace, s.knowledge, s.digest) = (k.workspace, k.name, k.snapshot)
where k.workspace = %(workspace)s order by k.name;

-- name: versions.known (scoped)
-- Which of these documents' versions this pipeline has made already.
select v.document, v.digest, v.id, v.chunks from versions v
join unnest(%(documents)s::text[], %(digests)s::text[]) as d(document, digest) using (document, digest)
where v.workspace = %(workspace)s and v.knowledge = %(knowledge)s and v.pipeline = %(pipeline)s;

-- name: versions.insert (scoped)
-- Documents' texts as this pipeline made them; answers with those that were not there.
insert into versions (workspace, knowledge, document, digest, pipeline, readers, sealed, chunks)
select %(workspace)s, %(knowledge)s, v.document, v.digest, %(pipeline)s, v.readers::text[], v.sealed, v.chunks
from unnest(%(documents)s::text[], %(digests)s::text[], %(readers)s::text[], %(sealed)s::bytea[], %(chunks)s::int[])
    as v(document, digest, readers, sealed, chunks)
on conflict do nothing returning id, document;

-- name: versions.members (scoped)
-- Which of these documents a snapshot has.
select v.document from members m join versions v on v.id = m.version
where v.workspace = %(workspace)s and v.knowledge = %(knowledge)s and v.document = any(%(documents)s)
  and m.born <= %(serial)s and m.died > %(serial)s;

-- name: versions.share (scoped)
-- Sets who may read documents, in every version of theirs.
update versions v set readers = u.readers from uploads u
where u.id = %(upload)s and u.sealed is not null and v.workspace = %(workspace)s and v.knowledge = %(knowledge)s
  and v.document = u.document and v.readers is distinct from u.readers;

-- name: versions.delete (scoped)
-- Destroys documents: texts, chunks and membership in every snapshot.
delete from versions v where workspace = %(workspace)s and knowledge = %(knowledge)s and document = any(%(documents)s);

-- name: versions.exist (scoped)
-- Which of these versions are still there.
select coalesce(array_agg(id), '{}') as ids from versions where id = any(%(versions)s);

-- name: versions.get (scoped)
-- A document of the snapshot that is searched, as far as the scope may read it.
select v.document, v.readers, v.sealed, k.wrapped
from versions v
join members m on m.version = v.id
join sealing_keys k on (k.workspace, k.kind, k.owner) = (v.workspace, 'document', v.knowledge || '/' || v.document)
where v.workspace = %(workspace)s and v.knowledge = %(knowledge)s and v.document = %(document)s
  and m.born <= %(serial)s and m.died > %(serial)s;

-- name: chunks.insert (scoped)
-- Chunks of versions with their embeddings; answers with their ids.
insert into chunks (workspace, knowledge, version, ordinal, sealed, start, "end", page, dimensions, embedding)
select %(workspace)s, %(knowledge)s, c.version, c.ordinal, c.sealed, c.start, c.stop, c.page, %(dimensions)s,
       c.embedding::halfvec
from unnest(%(versions)s::bigint[], %(ordinals)s::int[], %(sealed)s::bytea[], %(starts)s::int[], %(ends)s::int[],
            %(pages)s::int[], %(embeddings)s::text[]) as c(version, ordinal, sealed, start, stop, page, embedding)
returning id, version, ordinal;

-- name: members.at (scoped)
-- The documents of a snapshot with their versions.
select v.document, v.id, v.digest, v.chunks, m.born
from members m join versions v on v.id = m.version
where m.workspace = %(workspace)s and m.knowledge = %(knowledge)s and m.born <= %(serial)s and m.died > %(serial)s;

-- name: members.add (scoped)
-- These versions are in every snapshot from this serial on.
insert into members (workspace, knowledge, version, born)
select %(workspace)s, %(knowledge)s, version, %(serial)s from unnest(%(versions)s::bigint[]) as v(version);

-- name: members.end (scoped)
-- These versions are in no snapshot from this serial on.
update members set died = %(serial)s
where workspace = %(workspace)s and knowledge = %(knowledge)s and version = any(%(versions)s) and died = 2147483647;

-- name: members.versions (scoped)
-- The versions of a snapshot, seen or not: only numbers, for counting.
select coalesce(array_agg(version), '{}') as versions from members
where workspace = %(workspace)s and knowledge = %(knowledge)s and born <= %(serial)s and died > %(serial)s;

-- name: snapshots.put (scoped)
-- A snapshot; one of the same content that stands already stands for this serial too.
insert into snapshots (workspace, knowledge, digest, serial, pipeline, documents, chunks, problems)
values (%(workspace)s, %(knowledge)s, %(digest)s, %(serial)s, %(pipeline)s, %(documents)s, %(chunks)s, %(problems)s)
on conflict (workspace, knowledge, digest) do update set serial = excluded.serial, problems = excluded.problems;

-- name: snapshots.list (scoped)
-- The snapshots of a base, newest first.
select digest, pipeline, documents, chunks, problems, created from snapshots
where workspace = %(workspace)s and knowledge = %(knowledge)s order by serial desc;

-- name: snapshots.find (scoped)
-- One snapshot, or without a digest the one that is searched.
select s.digest, s.serial, s.documents, s.chunks, s.pipeline
from knowledge k join snapshots s on (s.workspace, s.knowledge) = (k.workspace, k.name)
where k.workspace = %(workspace)s and k.name = %(knowledge)s and s.digest = coalesce(%(snapshot)s, k.snapshot);

-- name: snapshots.documents (scoped)
-- The documents of a snapshot that the scope may see, with the digest of their content; and how many there are.
select s.documents as total,
       coalesce(jsonb_object_agg(v.document, v.digest) filter (where v.id is not null), '{}') as digests
from snapshots s
left join members m on (m.workspace, m.knowledge) = (s.workspace, s.knowledge) and m.born <= s.serial and m.died > s.serial
left join versions v on v.id = m.version
where s.workspace = %(workspace)s and s.knowledge = %(knowledge)s and s.digest = %(snapshot)s
group by s.documents;

-- name: snapshots.figures (scoped)
-- What tells a sound snapshot from a broken one: how many documents it was made of and could not be read, and of each that
-- is still there its digest, its chunks and its readers.
select s.documents, jsonb_array_length(s.problems) as unread,
       coalesce(jsonb_object_agg(v.document, jsonb_build_array(v.digest, v.chunks, v.readers)) filter (where v.id is not null),
                '{}') as members
from snapshots s
left join members m on (m.workspace, m.knowledge) = (s.workspace, s.knowledge) and m.born <= s.serial and m.died > s.serial
left join versions v on v.id = m.version
where s.workspace = %(workspace)s and s.knowledge = %(knowledge)s and s.digest = %(snapshot)s
group by s.workspace, s.knowledge, s.digest;

-- name: segments.insert (scoped)
-- A new segment of a base's lexical index.
insert into segments (workspace, knowledge, size, chunks, versions, lengths)
values (%(workspace)s, %(knowledge)s, %(size)s, %(chunks)s, %(versions)s, %(lengths)s) returning id;

-- name: segments.list (scoped)
-- The segments of a base by size, and how many of their versions' chunks are still there.
select id, size from segments where workspace = %(workspace)s and knowledge = %(knowledge)s order by size desc, id;

-- name: segments.get (scoped)
-- What scoring needs of segments.
select id, chunks, versions, lengths from segments where id = any(%(segments)s);

-- name: segments.delete (scoped)
-- Segments that were merged into another.
delete from segments where id = any(%(segments)s);

-- name: postings.insert (scoped)
-- Packed postings of a segment.
insert into postings (workspace, segment, term, packed)
select %(workspace)s, %(segment)s, p.term, p.packed from unnest(%(terms)s::bigint[], %(packed)s::bytea[]) as p(term, packed);

-- name: postings.of_segments (scoped)
-- All postings of segments that are to be merged.
select segment, term, packed from postings where segment = any(%(segments)s);

-- name: vectors.dimensions (scoped)
-- How long the vectors of a base are.
select distinct dimensions from chunks where workspace = %(workspace)s and knowledge = %(knowledge)s;

-- name: vectors.index (scoped)
-- Makes the vector index of a base, once.
select index_vectors_v1(%(workspace)s, %(knowledge)s, %(dimensions)s);

-- name: uploads.insert (scoped)
-- Documents on their way in; of one that comes twice the later one counts.
insert into uploads (id, workspace, document, readers, digest, sealed)
values (%(id)s, %(workspace)s, %(document)s, %(readers)s, %(digest)s, %(sealed)s)
on conflict (id, document) do update set readers = excluded.readers, digest = excluded.digest, sealed = excluded.sealed;

-- name: uploads.list (scoped)
-- What an upload holds, without the content.
select document, digest, sealed is null as deleted, octet_length(sealed) as size from uploads where id = %(id)s order by document;

-- name: uploads.get (scoped)
-- Some of an upload's documents.
select document, digest, sealed from uploads where id = %(id)s and document = any(%(documents)s) order by document;

-- name: uploads.delete (scoped)
-- Forgets an upload, and those that broke off more than a week ago.
delete from uploads where id = %(id)s or created < now() - interval '7 days';

-- name: search.mine (scoped)
-- The versions of a snapshot that the scope may see, up to a limit, and how many chunks they have.
select coalesce(array_agg(id), '{}') as versions, coalesce(sum(chunks), 0)::bigint as chunks
from (select v.id, v.chunks from members m join versions v on v.id = m.version
      where m.workspace = %(workspace)s and m.knowledge = %(knowledge)s and m.born <= %(serial)s and m.died > %(serial)s
      limit %(limit)s) as mine;

-- name: search.exact (scoped)
-- The nearest chunks of these versions, all of them compared; score is the cosine.
with found as materialized (
    select c.id, c.embedding <=> %(query)s::halfvec as distance
    from unnest(%(versions)s::bigint[]) as mine(version) join chunks c on c.version = mine.version
    where c.dimensions = %(dimensions)s)
select id, 1 - distance as score from found order by distance, id limit %(limit)s;

-- name: search.nearest (scoped)
-- The nearest chunks of a snapshot through the vector index of its base; score is the cosine.
select id, score from nearest_v1(%(workspace)s, %(knowledge)s, %(dimensions)s, %(query)s, %(serial)s, %(limit)s);

-- name: search.postings (scoped)
-- The postings of the question's terms, in every segment: one without any of them comes with no term.
select s.id as segment, p.term, p.packed
from segments s left join postings p on p.segment = s.id and p.term = any(%(terms)s)
where s.workspace = %(workspace)s and s.knowledge = %(knowledge)s order by s.id;

-- name: search.visible (scoped)
-- Which of these chunks the scope may see, with their cosine to the query.
select c.id, 1 - (c.embedding <=> %(query)s::halfvec) as score from chunks c
where c.id = any(%(chunks)s) and c.dimensions = %(dimensions)s;

-- name: search.passages (scoped)
-- The passages of these chunks, as far as the scope may see them.
select c.id, c.knowledge, v.document, c.sealed, c.start, c."end", c.page, k.wrapped
from chunks c join versions v on v.id = c.version
join sealing_keys k on (k.workspace, k.kind, k.owner) = (c.workspace, 'document', c.knowledge || '/' || v.document)
where c.id = any(%(chunks)s);
