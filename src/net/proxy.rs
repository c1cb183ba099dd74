//! A way out through an HTTP proxy, for members whose network has no other.
//!
//! Trusted for nothing: its answer is capped, TLS to the peer runs through it.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::error::NetError;

/// A proxy's whole answer; it has no use for more than a few headers.
const ANSWER_MAX_BYTES: usize = 4 * 1024;

/// Asks the proxy at the other end for a tunnel to `endpoint`. The caller bounds
/// the time.
///
/// Source: RFC 9110 9.3.6, CONNECT.
pub(crate) async fn tunnel(proxy: &mut TcpStream, endpoint: &str) -> Result<(), NetError> {
    let request = format!("CONNECT {endpoint} HTTP/1.1\r\nHost: {endpoint}\r\n\r\n");
    proxy
        .write_all(request.as_bytes())
        .await
        .map_err(NetError::Connect)?;
    let answer = answer(proxy).await.map_err(NetError::Connect)?;
    let line = answer.split(|byte| *byte == b'\r').next();
    let line = String::from_utf8_lossy(line.unwrap_or_default());
    let accepted = line.starts_with("HTTP/1.") && line.get(8..10) == Some(" 2");
    if accepted {
        Ok(())
    } else {
        let shown: String = line.chars().filter(|c| !c.is_control()).take(80).collect();
        Err(NetError::Proxy(shown))
    }
}

/// Reads up to the empty line, byte by byte: what follows belongs to TLS.
async fn answer(proxy: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == ANSWER_MAX_BYTES {
            return Err(io::Error::other("the proxy's answer is too long"));
        }
        answer.push(proxy.read_u8().await?);
    }
    Ok(answer)
}
