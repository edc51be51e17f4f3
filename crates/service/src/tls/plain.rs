//! Who calls without TLS where there is nothing else is told so in the words of HTTP/2, since it would not understand TLS's.

use std::io;

use tokio::io::{AsyncWriteExt as _, copy, sink};
use tokio::net::TcpStream;

/// What every connection of HTTP/2 begins with; TLS begins with 22.
const PREFACE: u8 = b'P';
/// Stands in the error that the caller gets.
const SAID: &[u8; 39] = b"this port speaks TLS: dial it https://.";
/// The error INADEQUATE_SECURITY of HTTP/2.
const INSECURE: u8 = 0xc;

/// True for a connection that begins without TLS. It is told and ended then, and nothing that it says is looked at.
pub(crate) async fn refused(stream: &mut TcpStream) -> io::Result<bool> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 || first != [PREFACE] {
        return Ok(false);
    }
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let go_away = [0, 0, 8 + SAID.len() as u8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, INSECURE];
    stream.write_all(&[&settings[..], &go_away, SAID].concat()).await?;
    stream.shutdown().await?;
    // What is not read would reset the connection before it reads.
    copy(stream, &mut sink()).await?;
    Ok(true)
}
