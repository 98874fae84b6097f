-- Items of invoices: also what usage cost otherwise when it happened than Stripe's prices say now.

CREATE TABLE stripe_item_8 (
  invoice TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('prices', 'minimum', 'adjustments')),
  item TEXT NOT NULL,
  amount INTEGER NOT NULL,
  kept_ns INTEGER NOT NULL,
  PRIMARY KEY (invoice, kind)
) STRICT, WITHOUT ROWID;
INSERT INTO stripe_item_8 SELECT * FROM stripe_item;
DROP TABLE stripe_item;
ALTER TABLE stripe_item_8 RENAME TO stripe_item;
