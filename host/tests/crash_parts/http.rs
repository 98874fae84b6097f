//! A small HTTP/1.1 client that tells a whole answer from a broken one: it returns only after the last byte.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A test must fail, not hang.
const PATIENCE: Duration = Duration::from_secs(30);
/// No answer of these tests is larger.
const MOST: usize = 8 << 20;

/// One connection, kept alive between calls.
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

/// An answer that was received to its last byte, trailers included.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Headers and then trailers, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    pub fn open(host: SocketAddr) -> io::Result<Self> {
        assert!(host.ip().is_loopback(), "tests stay on this machine");
        let stream = TcpStream::connect_timeout(&host, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host })
    }

    /// One call. Any error means that the answer was not received whole.
    pub fn call(&mut self, method: &str, path: &str, token: &str, body: &[u8]) -> io::Result<Answer> {
        self.send(method, path, token, body)?;
        self.receive()
    }

    /// The request alone, for a caller who leaves.
    pub fn send(&mut self, method: &str, path: &str, token: &str, body: &[u8]) -> io::Result<()> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nte: trailers\r\ncontent-length: {}\r\n",
            self.host,
            body.len()
        );
        if !token.is_empty() {
            request.push_str(&format!("authorization: Bearer {token}\r\n"));
        }
        request.push_str("\r\n");
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.stream.get_mut().write_all(&bytes)
    }

    pub fn receive(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| broken("status"))?;
        let mut answer = Answer { status, headers: self.fields()?, body: Vec::new() };
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).map_err(|_| broken("chunk size"))?;
                if size == 0 {
                    break;
                }
                self.bytes(size, &mut answer.body)?;
                self.line()?;
            }
            let trailers = self.fields()?;
            answer.headers.extend(trailers);
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| broken("content-length"))?;
            self.bytes(length, &mut answer.body)?;
        } else if status != 204 && status != 304 {
            return Err(broken("no length: the end of the body could not be told"));
        }
        Ok(answer)
    }

    fn bytes(&mut self, count: usize, into: &mut Vec<u8>) -> io::Result<()> {
        if into.len() + count > MOST {
            return Err(broken("the body is too large"));
        }
        let start = into.len();
        into.resize(start + count, 0);
        self.stream.read_exact(&mut into[start..])
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.stream).take(64 << 10).read_until(b'\n', &mut line)?;
        let Some(line) = line.strip_suffix(b"\r\n") else { return Err(broken("a line was cut off")) };
        String::from_utf8(line.to_vec()).map_err(|_| broken("a line is no text"))
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken("header"))?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// One call on a connection of its own.
pub fn call(host: SocketAddr, method: &str, path: &str, token: &str, body: &[u8]) -> io::Result<Answer> {
    Connection::open(host)?.call(method, path, token, body)
}
