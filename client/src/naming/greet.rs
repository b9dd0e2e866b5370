//! One attempt at one naming server: resolve, connect, greet.
//!
//! It decides whether an address speaks the protocol. Whether the server may serve is decided by the book.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use daymark_naming_proto::resp::{Frame, parse_frame, write_command};
use daymark_naming_proto::{Endpoint, NamingError, Revision};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::NamingConfig;
use super::error::Failure;
use super::link::{LIMITS, lost, malformed, text};

/// A connection to a server that said who it is.
pub(super) struct Greeted {
    pub(super) stream: TcpStream,
    /// What came after the greeting.
    pub(super) input: BytesMut,
    pub(super) cluster: String,
    pub(super) revision: Revision,
}

/// Resolves the host afresh, tries its addresses in order, and greets the first that accepts.
pub(super) async fn attempt(server: &Endpoint, config: &NamingConfig) -> Result<Greeted, Failure> {
    let addresses = resolve(server, config.call_timeout).await?;
    let mut why = Failure::Resolve {
        reason: "it has no address".into(),
    };
    for address in addresses {
        match connect(address, config.connect_timeout).await {
            Ok(stream) => {
                return timeout(config.call_timeout, greet(stream, config))
                    .await
                    .unwrap_or_else(|_| Err(no_answer(config.call_timeout)));
            }
            Err(failure) => why = failure,
        }
    }
    Err(why)
}

async fn resolve(server: &Endpoint, patience: Duration) -> Result<Vec<SocketAddr>, Failure> {
    let lookup = tokio::net::lookup_host((server.host.as_str(), server.port));
    match timeout(patience, lookup).await {
        Ok(Ok(addresses)) => Ok(addresses.collect()),
        Ok(Err(error)) => Err(Failure::Resolve {
            reason: error.to_string(),
        }),
        Err(_) => Err(Failure::Resolve {
            reason: format!("no answer within {} ms", patience.as_millis()),
        }),
    }
}

async fn connect(address: SocketAddr, patience: Duration) -> Result<TcpStream, Failure> {
    let refuse = |reason: String| Failure::Connect { address, reason };
    match timeout(patience, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => {
            stream
                .set_nodelay(true)
                .map_err(|error| refuse(error.to_string()))?;
            Ok(stream)
        }
        Ok(Err(error)) => Err(refuse(error.to_string())),
        Err(_) => Err(refuse(format!("silent for {} ms", patience.as_millis()))),
    }
}

pub(super) fn no_answer(waited: Duration) -> Failure {
    Failure::NoAnswer {
        waited_ms: u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
    }
}

async fn greet(mut stream: TcpStream, config: &NamingConfig) -> Result<Greeted, Failure> {
    let mut hello = vec!["HELLO", "3"];
    if let Some(credentials) = &config.credentials {
        hello.extend(["AUTH", &credentials.user, &credentials.password]);
    }
    let mut output = Vec::new();
    write_command(&hello, &mut output);
    write_command(&["ERRORS", "JSON"], &mut output);
    stream.write_all(&output).await.map_err(|error| lost(&error))?;

    let mut input = BytesMut::with_capacity(1024);
    let hello = next_reply(&mut stream, &mut input).await?;
    let (cluster, revision) = read_hello(&hello)?;
    if let Frame::Error(refused) = next_reply(&mut stream, &mut input).await? {
        return Err(malformed(&format_args!("ERRORS JSON was refused: {refused}")));
    }
    Ok(Greeted {
        stream,
        input,
        cluster,
        revision,
    })
}

/// The most bytes of a greeting.
const GREETING_MAX: usize = 64 * 1024;

async fn next_reply(stream: &mut TcpStream, input: &mut BytesMut) -> Result<Frame, Failure> {
    loop {
        if let Some((frame, used)) = parse_frame(input, &LIMITS).map_err(|error| malformed(&error))? {
            input.advance(used);
            return Ok(frame);
        }
        if input.len() > GREETING_MAX {
            return Err(malformed(&"the greeting does not end"));
        }
        if stream.read_buf(input).await.map_err(|error| lost(&error))? == 0 {
            return Err(Failure::Lost {
                reason: "the server closed it before its greeting".into(),
            });
        }
    }
}

fn read_hello(frame: &Frame) -> Result<(String, Revision), Failure> {
    if let Frame::Error(refused) = frame {
        return Err(refusal(refused));
    }
    let Frame::Map(pairs) = frame else {
        return Err(malformed(&"HELLO was not answered with a map"));
    };
    let field = |name: &str| {
        let found = pairs.iter().find(|(key, _)| text(key) == Some(name));
        found.map(|(_, value)| value)
    };
    let cluster = field("cluster_id").and_then(text);
    let revision = field("revision").and_then(number);
    match (cluster, revision) {
        (Some(cluster), Some(revision)) => Ok((cluster.to_owned(), Revision(revision))),
        _ => Err(malformed(&"HELLO was answered without cluster_id and revision")),
    }
}

fn number(frame: &Frame) -> Option<u64> {
    if let Frame::Integer(number) = frame {
        return u64::try_from(*number).ok();
    }
    text(frame).and_then(|text| text.parse().ok())
}

/// An error reply as a failure of its server; the code is its first word.
pub(super) fn refusal(line: &str) -> Failure {
    let (code, reason) = line.split_once(' ').unwrap_or((line, ""));
    match code {
        "NOAUTH" | "WRONGPASS" | "NOPERM" => Failure::Denied {
            reason: line.to_owned(),
        },
        "SERVICEUNAVAILABLE" => Failure::PassedOver(NamingError::ServiceUnavailable {
            reason: reason.to_owned(),
        }),
        _ => malformed(&format_args!("{line:.200}")),
    }
}
