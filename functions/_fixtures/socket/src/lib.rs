//! Talks over a WebSocket. A binary message comes back as it is, a text in capitals, but for these:
//! `bye` ends, `close CODE REASON` closes, `fail` fails with 418, `trap` traps, `spin` loops, `many N` sends N messages,
//! `large N` sends one of N bytes. `?refuse=STATUS` does not take the connection.

use wasmeter_guest::{Error, Message, Request, Response, Result, WebSocket};

#[wasmeter_guest::handler]
fn handle(req: Request) -> Result<Response> {
    if let Some(status) = req.query_param("refuse") {
        let status = status.parse().map_err(|_| Error::bad_request("refuse is no number"))?;
        return Ok(Response::text("no\n").with_status(status));
    }
    req.websocket(talk)
}

fn talk(socket: &mut WebSocket<'_>) -> Result<()> {
    while let Some(message) = socket.receive()? {
        let Message::Text(text) = &message else {
            socket.send(&message)?;
            continue;
        };
        let mut words = text.splitn(3, ' ');
        match (words.next().unwrap_or_default(), words.next().and_then(|n| n.parse::<u16>().ok())) {
            ("bye", _) => return Ok(()),
            ("close", Some(code)) => return socket.close(code, words.next().unwrap_or_default()),
            ("fail", _) => return Err(Error::new(418, "asked to fail")),
            ("trap", _) => panic!("asked to trap"),
            ("spin", _) => loop {
                std::hint::black_box(());
            },
            ("many", Some(count)) => {
                for n in 0..count {
                    socket.send(&Message::Text(n.to_string()))?;
                }
            }
            ("large", Some(bytes)) => socket.send(&Message::Binary(vec![0; bytes.into()]))?,
            _ => socket.send(&Message::Text(text.to_uppercase()))?,
        }
    }
    Ok(())
}
