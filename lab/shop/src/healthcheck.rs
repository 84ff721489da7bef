//! `shop healthcheck`: asks this container's own `/healthz`, as Docker's health check.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Under Docker's own timeout, so that the exit code and the sentence are ours.
const PATIENCE: Duration = Duration::from_millis(800);

/// The exit code: 0 healthy, 1 not. What Docker keeps of the output is the sentence printed here.
pub fn run(address: SocketAddr) -> i32 {
    match ask(address) {
        Ok(status) if status.contains(" 200 ") => 0,
        Ok(status) => {
            println!("/healthz answers {status:?}");
            1
        }
        Err(error) => {
            println!("/healthz does not answer: {error}");
            1
        }
    }
}

/// The status line of the answer.
fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut start = [0; 64];
    let length = stream.read(&mut start)?;
    let text = String::from_utf8_lossy(&start[..length]);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
