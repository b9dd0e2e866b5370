//! Just enough of etcd's gRPC interface to read and to write: two messages over hyper's HTTP/2.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::{Outcome, other};

/// One HTTP/2 connection, which carries many calls at once.
#[derive(Clone, Debug)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: String,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// That nobody answers there.
    pub async fn connect(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let address = address.to_owned();
        Ok(Self { sender, address })
    }

    /// A serializable range over one key: what this member has, without asking the others.
    ///
    /// # Errors
    /// That the call failed, or that nothing came back.
    pub async fn range(&mut self, key: &str) -> Outcome<()> {
        const SERIALIZABLE: [u8; 2] = [7 << 3, 1];
        let mut message = BytesMut::new();
        field(&mut message, 1, key.as_bytes());
        message.extend_from_slice(&SERIALIZABLE);
        let answer = self.call("Range", &message).await?;
        if answer.len() < 64 {
            return Err(other(format!("etcd has no {key}")).into());
        }
        Ok(())
    }

    /// Puts one key, durably.
    ///
    /// # Errors
    /// That the call failed.
    pub async fn put(&mut self, key: &str, value: &str) -> Outcome<()> {
        let mut message = BytesMut::new();
        field(&mut message, 1, key.as_bytes());
        field(&mut message, 2, value.as_bytes());
        self.call("Put", &message).await.map(|_| ())
    }

    async fn call(&mut self, method: &str, message: &[u8]) -> Outcome<Bytes> {
        let mut framed = BytesMut::with_capacity(message.len() + 5);
        framed.put_u8(0);
        framed.put_u32(message.len() as u32);
        framed.extend_from_slice(message);
        let request = Request::post(format!("http://{}/etcdserverpb.KV/{method}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(framed.freeze()))?;
        self.sender.ready().await?;
        let answer = self
            .sender
            .send_request(request)
            .await?
            .into_body()
            .collect()
            .await?;
        let status = answer.trailers().and_then(|trailers| trailers.get("grpc-status"));
        if status.is_some_and(|status| status != "0") {
            return Err(other(format!("etcd answered {:?}", answer.trailers())).into());
        }
        Ok(answer.to_bytes())
    }
}

/// A field of a protobuf message: bytes with their length.
fn field(message: &mut BytesMut, number: u8, value: &[u8]) {
    message.put_u8(number << 3 | 2);
    let mut length = value.len();
    while length >= 0x80 {
        message.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.extend_from_slice(value);
}
