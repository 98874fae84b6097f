-- Alerts: each threshold of a budget once for a bound and a period, and what became of telling it.

-- `kind` is `monthly` (`period` is the month, `2026-11`) or `credits` (`period` is empty: another grant is another bound).
CREATE TABLE alert (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  tenant TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('monthly', 'credits')),
  period TEXT NOT NULL,
  bound_pico TEXT NOT NULL,
  percent INTEGER NOT NULL,
  spent_pico TEXT NOT NULL,
  fired_ns INTEGER NOT NULL,
  UNIQUE (tenant, kind, period, bound_pico, percent)
) STRICT;
CREATE INDEX alert_tenant ON alert (tenant, id);

-- One row a way of telling. It is `pending` until the other side has taken it, or nobody tries any more.
CREATE TABLE alert_delivery (
  alert INTEGER NOT NULL REFERENCES alert (id),
  channel TEXT NOT NULL CHECK (channel IN ('webhook', 'email')),
  state TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'failed')),
  attempts INTEGER NOT NULL DEFAULT 0,
  due_ns INTEGER NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (alert, channel)
) STRICT, WITHOUT ROWID;
CREATE INDEX alert_due ON alert_delivery (due_ns) WHERE state = 'pending';

CREATE TRIGGER alert_append_1 BEFORE UPDATE ON alert BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER alert_append_2 BEFORE DELETE ON alert BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER alert_delivery_append BEFORE DELETE ON alert_delivery BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER alert_delivery_settled BEFORE UPDATE ON alert_delivery WHEN old.state <> 'pending'
  BEGIN SELECT raise(ABORT, 'what is settled stays so'); END;
