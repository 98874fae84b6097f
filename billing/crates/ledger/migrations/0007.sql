-- Corrections in receipts: each is a link of its tenant's chain of corrections, with a signature, and names where the
-- chain of entries was. Those from before get theirs when the ledger is opened next.

CREATE TABLE adjustment_seal (
  adjustment INTEGER PRIMARY KEY REFERENCES adjustment (id),
  tenant TEXT NOT NULL,
  chain INTEGER NOT NULL,
  made TEXT NOT NULL,
  -- What the ledger was stamped with then; the stamp may have come later.
  stamp TEXT NOT NULL,
  entries INTEGER NOT NULL,
  head BLOB NOT NULL,
  previous BLOB NOT NULL,
  hash BLOB NOT NULL,
  key INTEGER NOT NULL REFERENCES receipt_key (id),
  signature BLOB NOT NULL,
  UNIQUE (tenant, chain)
) STRICT;

-- Lines of invoices at Stripe that are not usage: what the minimum lacks, and corrections.
CREATE TABLE stripe_item (
  invoice TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('minimum', 'adjustments')),
  item TEXT NOT NULL,
  amount INTEGER NOT NULL,
  kept_ns INTEGER NOT NULL,
  PRIMARY KEY (invoice, kind)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER adjustment_seal_append_1 BEFORE UPDATE ON adjustment_seal
  BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER adjustment_seal_append_2 BEFORE DELETE ON adjustment_seal
  BEGIN SELECT raise(ABORT, 'append only'); END;
