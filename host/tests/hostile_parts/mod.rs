//! The parts of the hostile test: what is run, what must come of it, and what must come back.
#![allow(dead_code, unreachable_pub, reason = "helpers of tests")]

pub mod case;
pub mod guests;
pub mod held;
pub mod table;
pub mod uploads;
