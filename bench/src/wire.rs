//! HTTP/1.1 over kept-alive connections, as little of it as a measurement needs: what the load program itself costs is not
//! to be what it measures.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection that asks.
#[derive(Debug)]
pub struct Asker {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A whole request, ready to be sent many times.
pub fn post(path: &str, body: &str) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

/// A whole answer with JSON in it.
pub fn answer(status: u16, body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

impl Asker {
    /// # Errors
    /// Nobody listens.
    pub async fn connect(to: SocketAddr) -> io::Result<Asker> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Asker { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends a request; answers the status and the length of the body, which stays in [`Asker::body`].
    ///
    /// # Errors
    /// The connection broke, or what came is not HTTP.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(head) = head_end(&self.buffer) else { continue };
            let text = String::from_utf8_lossy(self.buffer.get(..head).unwrap_or_default()).into_owned();
            let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
            let length = content_length(&text);
            while self.buffer.len() < head + length {
                if self.stream.read_buf(&mut self.buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            self.buffer.drain(..head);
            return Ok(status);
        }
    }

    /// Of the last answer.
    pub fn body(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

/// One request as a server reads it: head and body, or nothing once the peer is gone.
pub async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(head) = head_end(buffer) {
            let length = content_length(&String::from_utf8_lossy(buffer.get(..head)?));
            if buffer.len() >= head + length {
                let rest = buffer.split_off(head + length);
                let whole = std::mem::replace(buffer, rest);
                return Some(String::from_utf8_lossy(&whole).into_owned());
            }
        }
        match stream.read_buf(buffer).await {
            Ok(read) if read > 0 => {}
            _ => return None,
        }
    }
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn content_length(head: &str) -> usize {
    let line = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}
