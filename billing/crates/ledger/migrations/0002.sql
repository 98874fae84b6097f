-- Budgets: what tenants may spend, the credits they were granted, and the leases that nodes hold on both.

-- The terms of a tenant are its last row; the others are history.
CREATE TABLE budget (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  terms TEXT NOT NULL,
  set_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX budget_tenant ON budget (tenant, id);

-- Prepaid money. `id` tells a repeated grant from a second one.
CREATE TABLE credit (
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  amount_pico TEXT NOT NULL,
  note TEXT NOT NULL,
  granted_ns INTEGER NOT NULL,
  PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

-- How far the entries of a tenant are summed up below, and its cost over all time when credits began to pay.
CREATE TABLE budget_read (
  tenant TEXT PRIMARY KEY,
  position INTEGER NOT NULL,
  since_pico TEXT
) STRICT, WITHOUT ROWID;

-- Booked cost by month (`2026-11`) and key (empty: the tenant as a whole).
CREATE TABLE budget_month (
  tenant TEXT NOT NULL,
  key TEXT NOT NULL,
  month TEXT NOT NULL,
  cost_pico TEXT NOT NULL,
  PRIMARY KEY (tenant, key, month)
) STRICT, WITHOUT ROWID;

-- What a node may draw in an epoch, and how much of it is booked. Beyond `expires_ns` only what is booked counts.
CREATE TABLE lease (
  tenant TEXT NOT NULL,
  key TEXT NOT NULL,
  node TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  granted_pico TEXT NOT NULL,
  booked_pico TEXT NOT NULL,
  expires_ns INTEGER NOT NULL,
  PRIMARY KEY (tenant, key, node, epoch)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER budget_append_1 BEFORE UPDATE ON budget BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER budget_append_2 BEFORE DELETE ON budget BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER credit_append_1 BEFORE UPDATE ON credit BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER credit_append_2 BEFORE DELETE ON credit BEGIN SELECT raise(ABORT, 'append only'); END;
