//! A terminal's bytes, as they are. Docker's client library looks for the frames of a plain stream in them too, and a byte below 3 at the wrong place would stop the terminal; so
//! this one exchange is spoken here.

use std::path::Path;

use bollard::container::LogOutput;
use bollard::errors::Error as DockerError;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

/// Longest answer before the bytes begin.
const LONGEST_HEAD: u64 = 16 << 10;

/// Starts a command that was made with a terminal: what it writes, and where its input goes.
pub(super) async fn start(
    socket: &Path,
    exec: &str,
) -> Result<(BoxStream<'static, Result<LogOutput, DockerError>>, OwnedWriteHalf), DockerError> {
    let (read, mut write) = UnixStream::connect(socket).await?.into_split();
    let body = r#"{"Detach":false,"Tty":true}"#;
    let request = format!(
        "POST /exec/{exec}/start HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    write.write_all(request.as_bytes()).await?;
    let mut read = BufReader::new(read);
    let mut head = (&mut read).take(LONGEST_HEAD);
    let (mut first, mut line) = (String::new(), String::new());
    head.read_line(&mut first).await?;
    while line != "\r\n" {
        line.clear();
        if head.read_line(&mut line).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
    let status_code = first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    if status_code != 101 {
        return Err(DockerError::DockerResponseServerError {
            status_code,
            message: first.trim_end().to_owned(),
        });
    }
    let output = stream::unfold(read, |mut read| async {
        let bytes = match read.fill_buf().await {
            Ok([]) => return None,
            Ok(bytes) => Bytes::copy_from_slice(bytes),
            Err(e) => return Some((Err(e.into()), read)),
        };
        read.consume(bytes.len());
        Some((Ok(LogOutput::Console { message: bytes }), read))
    });
    Ok((output.boxed(), write))
}
