//! From usage to money: exact amounts, invoices, what time does to them.

pub(crate) mod amount;
pub(crate) mod credit;
pub(crate) mod decimal;
pub(crate) mod due;
pub(crate) mod invoice;
pub(crate) mod lines;
pub(crate) mod pay;
pub(crate) mod period;
