-- name: documents.put (scoped)
-- Registers a document and who may read it.
insert into documents (workspace, knowledge, id, readers)
values (%(workspace)s, %(knowledge)s, %(id)s, %(readers)s)
on conflict (workspace, knowledge, id) do update set readers = excluded.readers
where documents.readers is distinct from excluded.readers;

-- name: versions.known (scoped)
-- The versions of a corpus that this pipeline has made already.
select document, digest, id from versions
where workspace = %(workspace)s and knowledge = %(knowledge)s and pipeline = %(pipeline)s;

-- name: versions.insert (scoped)
-- A document's text as this pipeline made it.
insert into versions (workspace, knowledge, document, digest, pipeline, sealed)
values (%(workspace)s, %(knowledge)s, %(document)s, %(digest)s, %(pipeline)s, %(sealed)s)
on conflict do nothing returning id;

-- name: chunks.insert (scoped)
-- One chunk of a version with its embedding.
insert into chunks (workspace, knowledge, document, version, ordinal, sealed, start, "end", page, embedding)
values (%(workspace)s, %(knowledge)s, %(document)s, %(version)s, %(ordinal)s, %(sealed)s, %(start)s, %(end)s,
        %(page)s, %(embedding)s::vector);

-- name: chunks.of_versions (scoped)
-- The chunks of these versions, in a stable order, for the lexical index.
select c.id, c.knowledge, c.document, c.sealed, k.wrapped
from chunks c
join sealing_keys k on (k.workspace, k.kind, k.owner) = (c.workspace, 'document', c.knowledge || '/' || c.document)
where c.version = any(%(versions)s) order by array_position(%(versions)s::bigint[], c.version), c.ordinal;

-- name: snapshots.exists (scoped)
-- Whether a corpus has this snapshot.
select true as found from snapshots
where workspace = %(workspace)s and knowledge = %(knowledge)s and digest = %(digest)s;

-- name: snapshots.insert (scoped)
-- A new immutable snapshot.
insert into snapshots (workspace, knowledge, digest, pipeline, versions, chunks, lengths, problems)
values (%(workspace)s, %(knowledge)s, %(digest)s, %(pipeline)s, %(versions)s, %(chunks)s, %(lengths)s,
        %(problems)s);

-- name: postings.insert (scoped)
-- The packed postings of one term in a snapshot.
insert into postings (workspace, knowledge, snapshot, term, packed)
values (%(workspace)s, %(knowledge)s, %(snapshot)s, %(term)s, %(packed)s);

-- name: snapshots.list (scoped)
-- The snapshots of a corpus, newest first.
select digest, pipeline, cardinality(versions) as documents, cardinality(chunks) as chunks, problems, created
from snapshots where workspace = %(workspace)s and knowledge = %(knowledge)s
order by created desc, digest;

-- name: snapshots.documents (scoped)
-- The documents of a snapshot that the scope may see, with the digest of their content; and how many there are.
select cardinality(s.versions) as total,
       coalesce(jsonb_object_agg(v.document, v.digest) filter (where v.id is not null), '{}') as digests
from snapshots s left join versions v on v.id = any(s.versions)
where s.workspace = %(workspace)s and s.knowledge = %(knowledge)s and s.digest = %(snapshot)s
group by s.versions;

-- name: search.index (scoped)
-- What lexical scoring needs of a snapshot: chunk ids by ordinal, and lengths.
select chunks, lengths from snapshots
where workspace = %(workspace)s and knowledge = %(knowledge)s and digest = %(snapshot)s;

-- name: search.postings (scoped)
-- The postings of the question's terms.
select term, packed from postings
where workspace = %(workspace)s and knowledge = %(knowledge)s and snapshot = %(snapshot)s
  and term = any(%(terms)s);

-- name: search.dense (scoped)
-- The visible chunks of a snapshot nearest to the query's embedding, exactly; score is the cosine.
select c.id, 1 - (c.embedding <=> %(query)s::vector) as score
from chunks c
where c.version = any(array(select unnest(s.versions) from snapshots s
                            where s.workspace = %(workspace)s and s.knowledge = %(knowledge)s
                              and s.digest = %(snapshot)s))
order by c.embedding <=> %(query)s::vector limit %(limit)s;

-- name: search.visible (scoped)
-- Which of these chunks the scope may see, with their cosine to the query.
select c.id, 1 - (c.embedding <=> %(query)s::vector) as score from chunks c where c.id = any(%(chunks)s);

-- name: search.passages (scoped)
-- The passages of these chunks, as far as the scope may see them.
select c.id, c.knowledge, c.document, c.sealed, c.start, c."end", c.page, k.wrapped
from chunks c
join sealing_keys k on (k.workspace, k.kind, k.owner) = (c.workspace, 'document', c.knowledge || '/' || c.document)
where c.id = any(%(chunks)s);
