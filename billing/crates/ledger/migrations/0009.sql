-- Fewer trees for an entry. Each that it stands in costs its booking about as much as reading and judging the record.
--
-- The links of a commit stand in the commit: a link alone is never asked for without it. That a sequence is booked once is
-- what the high-water mark is for, which moves in the transaction that books; an index over it told nothing else. Nor is
-- there a row of `high_water` or `price_sheet` that could go, so that an entry does not look for its own; `check` looks for
-- all of them.

CREATE TABLE entry_9 (
  position INTEGER PRIMARY KEY,
  spool INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  invocation TEXT NOT NULL,
  end_ns INTEGER NOT NULL,
  function TEXT,
  sheet INTEGER NOT NULL,
  requests INTEGER NOT NULL,
  fuel INTEGER NOT NULL,
  cpu_ns INTEGER NOT NULL,
  gpu_ns INTEGER NOT NULL,
  tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL,
  egress_bytes INTEGER NOT NULL,
  cost_pico INTEGER NOT NULL,
  record TEXT NOT NULL,
  UNIQUE (tenant, invocation)
) STRICT;
INSERT INTO entry_9 SELECT * FROM entry ORDER BY position;

CREATE TABLE entry_model_9 (
  tenant TEXT NOT NULL,
  end_ns INTEGER NOT NULL,
  position INTEGER NOT NULL,
  model TEXT NOT NULL,
  version INTEGER NOT NULL,
  sheet INTEGER NOT NULL,
  cpu_ns INTEGER NOT NULL,
  gpu_ns INTEGER NOT NULL,
  PRIMARY KEY (tenant, end_ns, position, model, version)
) STRICT, WITHOUT ROWID;
INSERT INTO entry_model_9 SELECT * FROM entry_model ORDER BY tenant, end_ns, position, model, version;

-- `links` has 40 bytes an entry, in their order: its place in its tenant's chain, the highest byte first, and its link.
CREATE TABLE signed_commit_9 (
  number INTEGER PRIMARY KEY,
  made TEXT NOT NULL,
  first_position INTEGER NOT NULL UNIQUE,
  entries INTEGER NOT NULL,
  root BLOB NOT NULL,
  previous BLOB NOT NULL,
  committed_ns INTEGER NOT NULL,
  key INTEGER NOT NULL REFERENCES receipt_key (id),
  signature BLOB NOT NULL,
  links BLOB NOT NULL
) STRICT;
INSERT INTO signed_commit_9 SELECT c.number, c.made, c.first_position, c.entries, c.root, c.previous, c.committed_ns, c.key,
  c.signature, coalesce((
    SELECT unhex(group_concat(printf('%016x', l.chain) || hex(l.link), '' ORDER BY l.position)) FROM link l
    WHERE l.position >= c.first_position AND l.position < c.first_position + c.entries), x'')
  FROM signed_commit c ORDER BY c.number;

DROP TABLE entry_model;
DROP TABLE entry;
DROP TABLE signed_commit;
DROP TABLE link;
ALTER TABLE entry_9 RENAME TO entry;
ALTER TABLE entry_model_9 RENAME TO entry_model;
ALTER TABLE signed_commit_9 RENAME TO signed_commit;
CREATE INDEX entry_window ON entry (tenant, end_ns);
CREATE INDEX entry_page ON entry (tenant, position, end_ns);

CREATE TRIGGER entry_append_1 BEFORE UPDATE ON entry BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER entry_append_2 BEFORE DELETE ON entry BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER entry_model_append_1 BEFORE UPDATE ON entry_model BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER entry_model_append_2 BEFORE DELETE ON entry_model BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER signed_commit_append_1 BEFORE UPDATE ON signed_commit BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER signed_commit_append_2 BEFORE DELETE ON signed_commit BEGIN SELECT raise(ABORT, 'append only'); END;
