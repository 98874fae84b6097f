-- Receipts that their holder can check: a hash chain over the entries of each tenant, a signed commit over the entries of
-- each transaction, and the public keys of the signatures. Entries from before get theirs when the ledger is opened next.

-- All keys that ever signed. `key` is what commits name a key by; the private one lies in a file beside the ledger.
CREATE TABLE receipt_key (
  id INTEGER PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  public TEXT NOT NULL,
  added_ns INTEGER NOT NULL
) STRICT;

-- What the first link of a tenant's chain hangs on: 32 random bytes, so that nobody can guess a link.
CREATE TABLE chain_start (
  tenant TEXT PRIMARY KEY,
  previous BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One row an entry, at its position: its place in its tenant's chain, and its link.
CREATE TABLE link (
  position INTEGER PRIMARY KEY,
  chain INTEGER NOT NULL,
  link BLOB NOT NULL
) STRICT;

-- One row a transaction that booked entries, without gaps in numbers and positions.
CREATE TABLE signed_commit (
  number INTEGER PRIMARY KEY,
  made TEXT NOT NULL,
  first_position INTEGER NOT NULL UNIQUE,
  entries INTEGER NOT NULL,
  root BLOB NOT NULL,
  previous BLOB NOT NULL,
  committed_ns INTEGER NOT NULL,
  key INTEGER NOT NULL REFERENCES receipt_key (id),
  signature BLOB NOT NULL
) STRICT;

CREATE TRIGGER receipt_key_append_1 BEFORE UPDATE ON receipt_key BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER receipt_key_append_2 BEFORE DELETE ON receipt_key BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER chain_start_append_1 BEFORE UPDATE ON chain_start BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER chain_start_append_2 BEFORE DELETE ON chain_start BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER link_append_1 BEFORE UPDATE ON link BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER link_append_2 BEFORE DELETE ON link BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER signed_commit_append_1 BEFORE UPDATE ON signed_commit BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER signed_commit_append_2 BEFORE DELETE ON signed_commit BEGIN SELECT raise(ABORT, 'append only'); END;
