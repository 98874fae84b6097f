-- Stripe: which customer a tenant is, what became of its subscriptions and invoices, and the usage that Stripe counts.

-- A restored backup begins another life: what was sent after the backup was taken must not meet its identifiers.
CREATE TABLE outbox_life (
  id INTEGER PRIMARY KEY,
  word TEXT NOT NULL,
  reason TEXT NOT NULL
) STRICT;
INSERT INTO outbox_life (word, reason) VALUES (lower(hex(randomblob(16))), 'created');

-- How far the entries are counted in buckets.
CREATE TABLE outbox_read (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  position INTEGER NOT NULL
) STRICT;
INSERT INTO outbox_read VALUES (1, 0);

-- Usage of one tenant, meter and UTC hour (its beginning, seconds). Open, `raw` grows; closed, everything up to
-- `closed_ns` is fixed; `customer` and `stamp_s` are fixed as long as an attempt may have arrived.
-- raw + carry_in = value * units + carry_out. Only a closed bucket has a number, counted by tenant and meter.
CREATE TABLE bucket (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  meter TEXT NOT NULL,
  hour INTEGER NOT NULL,
  opened_ns INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'ready', 'sending', 'delivered', 'parked', 'refused')),
  raw TEXT NOT NULL,
  number INTEGER,
  carry_in TEXT,
  units INTEGER,
  value INTEGER,
  carry_out TEXT,
  identifier TEXT UNIQUE,
  closed_ns INTEGER,
  customer TEXT,
  stamp_s INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  began_ns INTEGER,
  resend_until_ns INTEGER,
  due_ns INTEGER NOT NULL DEFAULT 9223372036854775807,
  settled_ns INTEGER,
  reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX bucket_open ON bucket (tenant, meter, hour) WHERE state = 'open';
CREATE UNIQUE INDEX bucket_number ON bucket (tenant, meter, number) WHERE number IS NOT NULL;
CREATE INDEX bucket_lane ON bucket (tenant, meter, due_ns) WHERE state IN ('ready', 'parked');
CREATE INDEX bucket_state ON bucket (state) WHERE state IN ('sending', 'parked', 'refused');
CREATE INDEX bucket_counted ON bucket (customer, meter, stamp_s) WHERE stamp_s IS NOT NULL;

CREATE TABLE stripe_customer (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  customer TEXT NOT NULL UNIQUE,
  made_ns INTEGER NOT NULL,
  gone_ns INTEGER
) STRICT;
CREATE UNIQUE INDEX stripe_customer_tenant ON stripe_customer (tenant) WHERE gone_ns IS NULL;

-- A subscription as it was last read from Stripe; `changed_s` is when it was first read in this standing.
CREATE TABLE stripe_subscription (
  subscription TEXT PRIMARY KEY,
  customer TEXT NOT NULL,
  status TEXT NOT NULL,
  start_s INTEGER NOT NULL,
  ended_s INTEGER,
  changed_s INTEGER NOT NULL,
  read_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX stripe_subscription_customer ON stripe_subscription (customer);

-- What events said of a subscription: a set, so that neither their order nor their repetition matters.
CREATE TABLE stripe_seen (
  subscription TEXT NOT NULL,
  created_s INTEGER NOT NULL,
  event TEXT NOT NULL,
  status TEXT NOT NULL,
  PRIMARY KEY (subscription, created_s, event)
) STRICT, WITHOUT ROWID;

-- Webhooks that were taken, by the id that repetitions share.
CREATE TABLE stripe_event (
  event TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  seen_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Objects that are to be read from Stripe, because an event was about them. `wanted` rises with each such event.
CREATE TABLE stripe_refresh (
  kind TEXT NOT NULL,
  object TEXT NOT NULL,
  wanted INTEGER NOT NULL,
  due_ns INTEGER NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (kind, object)
) STRICT, WITHOUT ROWID;

-- Invoices as last read. `held` and `differs` are drafts that wait for us; `done` is out of our hands.
CREATE TABLE stripe_invoice (
  invoice TEXT PRIMARY KEY,
  customer TEXT NOT NULL,
  status TEXT NOT NULL,
  period_start INTEGER NOT NULL,
  period_end INTEGER NOT NULL,
  total INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('held', 'differs', 'done')),
  detail TEXT NOT NULL,
  read_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX stripe_invoice_customer ON stripe_invoice (customer, state);

CREATE TRIGGER outbox_life_append_1 BEFORE UPDATE ON outbox_life BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER outbox_life_append_2 BEFORE DELETE ON outbox_life BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER outbox_read_rises BEFORE UPDATE ON outbox_read WHEN new.position < old.position
  BEGIN SELECT raise(ABORT, 'the mark only rises'); END;
CREATE TRIGGER bucket_append BEFORE DELETE ON bucket BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER bucket_fixed BEFORE UPDATE ON bucket
  WHEN old.state <> 'open' AND (new.state = 'open' OR new.tenant <> old.tenant OR new.meter <> old.meter
    OR new.hour <> old.hour OR new.raw <> old.raw OR new.number <> old.number OR new.carry_in <> old.carry_in
    OR new.units <> old.units OR new.value <> old.value OR new.carry_out <> old.carry_out
    OR new.identifier <> old.identifier OR new.closed_ns <> old.closed_ns)
  BEGIN SELECT raise(ABORT, 'a closed bucket is fixed'); END;
CREATE TRIGGER bucket_delivered BEFORE UPDATE ON bucket
  WHEN old.state = 'delivered' AND new.state NOT IN ('delivered', 'refused')
  BEGIN SELECT raise(ABORT, 'what is delivered is not sent again'); END;
