//! Just enough of ZooKeeper's protocol to create, read and write nodes, one call after the other.

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Outcome, other};

/// One session.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    xid: i32,
}

const CREATE: i32 = 1;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const ANY_VERSION: i32 = -1;
const NODE_EXISTS: i32 = -110;

impl Client {
    /// Connects and opens a session.
    ///
    /// # Errors
    /// That nobody answers there.
    pub async fn connect(address: &str) -> Outcome<Self> {
        const SESSION_MS: i32 = 30_000;
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut hello = BytesMut::new();
        hello.put_i32(0);
        hello.put_i64(0);
        hello.put_i32(SESSION_MS);
        hello.put_i64(0);
        hello.put_i32(16);
        hello.put_bytes(0, 16);
        send(&mut stream, &hello).await?;
        receive(&mut stream).await?;
        Ok(Self { stream, xid: 0 })
    }

    /// Makes a node; one that exists already is kept.
    ///
    /// # Errors
    /// That the server refuses it.
    pub async fn create(&mut self, path: &str, value: &str) -> Outcome<()> {
        const ALL_PERMISSIONS: i32 = 31;
        let mut body = BytesMut::new();
        text(&mut body, path);
        text(&mut body, value);
        body.put_i32(1);
        body.put_i32(ALL_PERMISSIONS);
        text(&mut body, "world");
        text(&mut body, "anyone");
        body.put_i32(0);
        match self.call(CREATE, &body).await? {
            (0 | NODE_EXISTS, _) => Ok(()),
            (code, _) => Err(other(format!("create was answered with {code}")).into()),
        }
    }

    /// Reads a node.
    ///
    /// # Errors
    /// That it is not there.
    pub async fn get_data(&mut self, path: &str) -> Outcome<()> {
        let mut body = BytesMut::new();
        text(&mut body, path);
        body.put_u8(0);
        match self.call(GET_DATA, &body).await? {
            (0, bytes) if bytes > 64 => Ok(()),
            (code, bytes) => Err(other(format!("getData was answered with {code} and {bytes} bytes")).into()),
        }
    }

    /// Writes a node, durably.
    ///
    /// # Errors
    /// That the server refuses it.
    pub async fn set_data(&mut self, path: &str, value: &str) -> Outcome<()> {
        let mut body = BytesMut::new();
        text(&mut body, path);
        text(&mut body, value);
        body.put_i32(ANY_VERSION);
        match self.call(SET_DATA, &body).await? {
            (0, _) => Ok(()),
            (code, _) => Err(other(format!("setData was answered with {code}")).into()),
        }
    }

    /// The error code and the length of what follows it.
    async fn call(&mut self, kind: i32, body: &[u8]) -> Outcome<(i32, usize)> {
        self.xid += 1;
        let mut message = BytesMut::with_capacity(body.len() + 8);
        message.put_i32(self.xid);
        message.put_i32(kind);
        message.extend_from_slice(body);
        send(&mut self.stream, &message).await?;
        let mut answer = receive(&mut self.stream).await?;
        if answer.len() < 16 {
            return Err(other("an answer without a head").into());
        }
        answer.advance(12);
        let code = answer.get_i32();
        Ok((code, answer.len()))
    }
}

fn text(message: &mut BytesMut, text: &str) {
    message.put_i32(text.len() as i32);
    message.extend_from_slice(text.as_bytes());
}

async fn send(stream: &mut TcpStream, message: &[u8]) -> Outcome<()> {
    let mut framed = BytesMut::with_capacity(message.len() + 4);
    framed.put_i32(message.len() as i32);
    framed.extend_from_slice(message);
    Ok(stream.write_all(&framed).await?)
}

async fn receive(stream: &mut TcpStream) -> Outcome<BytesMut> {
    const LONGEST: u32 = 4 << 20;
    let length = stream.read_u32().await?;
    if length > LONGEST {
        return Err(other(format!("an answer of {length} bytes")).into());
    }
    let mut answer = BytesMut::zeroed(length as usize);
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}
