-- Version 1. Released: a change of the schema is a further file, never an edit of this one (a test holds its hash).
-- Money and summed quantities pass 64 bits, so balances are decimal text and are added in Rust; what one entry holds
-- fits 64 bits, and a record for which it does not is rejected.

CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE price_sheet (
  id INTEGER PRIMARY KEY,
  hash TEXT NOT NULL UNIQUE,
  json TEXT NOT NULL,
  added_ns INTEGER NOT NULL
) STRICT;

-- One row a spool: the last sequence that is booked or rejected. The epoch is an unsigned 64-bit number, bit for bit.
CREATE TABLE high_water (
  spool INTEGER PRIMARY KEY,
  node TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  UNIQUE (node, epoch)
) STRICT;

-- One row an invocation, for ever. The columns of quantities hold what is charged; `record` is what the host sent.
CREATE TABLE entry (
  position INTEGER PRIMARY KEY,
  spool INTEGER NOT NULL REFERENCES high_water (spool),
  seq INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  invocation TEXT NOT NULL,
  end_ns INTEGER NOT NULL,
  function TEXT,
  sheet INTEGER NOT NULL REFERENCES price_sheet (id),
  requests INTEGER NOT NULL,
  fuel INTEGER NOT NULL,
  cpu_ns INTEGER NOT NULL,
  gpu_ns INTEGER NOT NULL,
  tokens_in INTEGER NOT NULL,
  tokens_out INTEGER NOT NULL,
  egress_bytes INTEGER NOT NULL,
  cost_pico INTEGER NOT NULL,
  record TEXT NOT NULL,
  UNIQUE (tenant, invocation),
  UNIQUE (spool, seq)
) STRICT;
CREATE INDEX entry_window ON entry (tenant, end_ns);
CREATE INDEX entry_page ON entry (tenant, position, end_ns);

-- Charged device time of an entry by model version, in the order in which windows read it.
CREATE TABLE entry_model (
  tenant TEXT NOT NULL,
  end_ns INTEGER NOT NULL,
  position INTEGER NOT NULL REFERENCES entry (position),
  model TEXT NOT NULL,
  version INTEGER NOT NULL,
  sheet INTEGER NOT NULL,
  cpu_ns INTEGER NOT NULL,
  gpu_ns INTEGER NOT NULL,
  PRIMARY KEY (tenant, end_ns, position, model, version)
) STRICT, WITHOUT ROWID;

-- Sums over all entries of a tenant, kept in the transaction that books them.
CREATE TABLE balance (
  tenant TEXT NOT NULL,
  meter TEXT NOT NULL,
  quantity TEXT NOT NULL,
  PRIMARY KEY (tenant, meter)
) STRICT, WITHOUT ROWID;

CREATE TABLE balance_cost (
  tenant TEXT PRIMARY KEY,
  cost_pico TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row an Append that moved a high-water mark. Positions are null where every record of it was rejected.
CREATE TABLE batch (
  id INTEGER PRIMARY KEY,
  spool INTEGER NOT NULL REFERENCES high_water (spool),
  first_seq INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  first_position INTEGER,
  last_position INTEGER,
  committed_ns INTEGER NOT NULL
) STRICT;

-- Records that can never be booked, whole: acknowledged, so that the spool goes on, and never lost.
CREATE TABLE rejected (
  id INTEGER PRIMARY KEY,
  spool INTEGER NOT NULL REFERENCES high_water (spool),
  seq INTEGER NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  raw TEXT NOT NULL,
  rejected_ns INTEGER NOT NULL,
  UNIQUE (spool, seq)
) STRICT;

CREATE TRIGGER meta_fixed_1 BEFORE UPDATE ON meta BEGIN SELECT raise(ABORT, 'meta is fixed'); END;
CREATE TRIGGER meta_fixed_2 BEFORE DELETE ON meta BEGIN SELECT raise(ABORT, 'meta is fixed'); END;
CREATE TRIGGER price_sheet_append_1 BEFORE UPDATE ON price_sheet BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER price_sheet_append_2 BEFORE DELETE ON price_sheet BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER entry_append_1 BEFORE UPDATE ON entry BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER entry_append_2 BEFORE DELETE ON entry BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER entry_model_append_1 BEFORE UPDATE ON entry_model BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER entry_model_append_2 BEFORE DELETE ON entry_model BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER batch_append_1 BEFORE UPDATE ON batch BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER batch_append_2 BEFORE DELETE ON batch BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER rejected_append_1 BEFORE UPDATE ON rejected BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER rejected_append_2 BEFORE DELETE ON rejected BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER high_water_rises BEFORE UPDATE ON high_water
  WHEN new.seq < old.seq OR new.node <> old.node OR new.epoch <> old.epoch OR new.spool <> old.spool
  BEGIN SELECT raise(ABORT, 'a high-water mark only rises'); END;
CREATE TRIGGER high_water_stays BEFORE DELETE ON high_water BEGIN SELECT raise(ABORT, 'append only'); END;
