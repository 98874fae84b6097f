//! A command as a component (`wasi:cli/run`), which is what `fn main` becomes for `wasm32-wasip2`. It answers like a CGI
//! program and knows nothing of the platform.
//!
//! | path | what it does |
//! |---|---|
//! | `/` | text without a head, and does not read the body |
//! | `/body` | the body back, with a head and status 203 |
//! | `/env` | `NAME=value` lines of the environment, its arguments before them |
//! | `/silent` | nothing at all |
//! | `/flood` | writes for ever |
//! | `/err` | an answer, then `main` returns an error |
//! | `/exit`, `/exit-well` | an answer, then an exit with status 3, 0 |
//! | `/trap` | half an answer, then a trap |
//! | `/loop` | half an answer, then an endless loop |

use std::io::{self, Read, Write};

fn main() -> io::Result<()> {
    let path = std::env::var("PATH_INFO").unwrap_or_default();
    let mut out = io::stdout().lock();
    eprintln!("path {path}");
    match path.as_str() {
        "/body" => {
            let mut body = Vec::new();
            io::stdin().lock().read_to_end(&mut body)?;
            write!(out, "Status: 203 Echoed\r\nContent-Type: text/x-echo\r\n\r\n")?;
            out.write_all(&body)
        }
        "/env" => {
            writeln!(out, "{:?}", std::env::args().collect::<Vec<_>>())?;
            std::env::vars().try_for_each(|(name, value)| writeln!(out, "{name}={value}"))
        }
        "/silent" => Ok(()),
        "/flood" => loop {
            out.write_all(&[b'x'; 4096])?;
        },
        "/err" => {
            half(&mut out)?;
            Err(io::Error::other("on purpose"))
        }
        "/exit" => {
            half(&mut out)?;
            std::process::exit(3)
        }
        "/exit-well" => {
            half(&mut out)?;
            std::process::exit(0)
        }
        "/trap" => {
            half(&mut out)?;
            std::process::abort()
        }
        "/loop" => {
            half(&mut out)?;
            loop {
                std::hint::black_box(&path);
            }
        }
        _ => writeln!(out, "hello from a component"),
    }
}

fn half(out: &mut impl Write) -> io::Result<()> {
    write!(out, "Content-Type: text/plain\n\nhalf")?;
    out.flush()
}
