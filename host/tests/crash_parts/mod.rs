//! What the crash and isolation tests share: a client that knows which answers it got to the last byte, the books that
//! must agree with it, and a view of processes through /proc.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

pub mod books;
pub mod http;
pub mod load;
pub mod proc;
