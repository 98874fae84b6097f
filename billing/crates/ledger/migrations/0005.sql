-- Refunds and other corrections. What they correct stays as it was.

-- `amount_pico` is below zero for what the tenant gets back. It belongs to the month in which it was made (`2026-11`);
-- `draw_key` is the key with a cap that the invocation drew on. An invocation is refunded once.
CREATE TABLE adjustment (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  invocation TEXT,
  draw_key TEXT,
  amount_pico TEXT NOT NULL,
  reason TEXT NOT NULL,
  month TEXT NOT NULL,
  made_ns INTEGER NOT NULL,
  UNIQUE (tenant, name),
  UNIQUE (tenant, invocation)
) STRICT;
CREATE INDEX adjustment_month ON adjustment (tenant, month);
CREATE INDEX adjustment_window ON adjustment (tenant, made_ns);

-- The last adjustment when credits began to pay: those after it change what is left of them.
ALTER TABLE budget_read ADD COLUMN since_adjustment INTEGER NOT NULL DEFAULT 0;

CREATE TRIGGER adjustment_append_1 BEFORE UPDATE ON adjustment BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER adjustment_append_2 BEFORE DELETE ON adjustment BEGIN SELECT raise(ABORT, 'append only'); END;
