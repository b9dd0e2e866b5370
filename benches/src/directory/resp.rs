//! A bare RESP client for filling and for writing: commands out, replies counted and checked for errors.

use daymark_naming_proto::resp::{Frame, Limits, parse_frame, write_command};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use super::{attributes, key, object};
use crate::{Outcome, other};

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// That nobody answers there.
    pub async fn connect(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
        })
    }

    /// The connection itself.
    ///
    /// # Errors
    /// That something was read from it that nobody has taken.
    pub fn into_stream(self) -> Outcome<TcpStream> {
        if self.input.is_empty() {
            return Ok(self.stream);
        }
        Err(other(format!("{} bytes were not expected", self.input.len())).into())
    }

    /// Adds a command to those that are sent together.
    pub fn add(&mut self, words: &[&str]) {
        write_command(words, &mut self.output);
    }

    /// Sends what was added.
    ///
    /// # Errors
    /// That the connection ended.
    pub async fn send(&mut self) -> Outcome<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// That the connection ended, or that it is an error of the server.
    pub async fn frame(&mut self) -> Outcome<Frame> {
        loop {
            let parsed = parse_frame(&self.input, &Limits::default())?;
            if let Some((frame, used)) = parsed {
                self.input.drain(..used);
                if let Frame::Error(error) = frame {
                    return Err(error.into());
                }
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(other("the server closed the connection").into());
            }
        }
    }

    /// Sends what was added and reads as many replies.
    ///
    /// # Errors
    /// That the connection ended, or the first error of the server.
    pub async fn replies(&mut self, count: usize) -> Outcome<()> {
        self.send().await?;
        let (mut seen, mut at) = (0, 0);
        loop {
            while let Some((frame, used)) = parse_frame(&self.input[at..], &Limits::default())? {
                if let Frame::Error(error) = frame {
                    return Err(error.into());
                }
                at += used;
                seen += 1;
            }
            self.input.drain(..at);
            at = 0;
            if seen >= count {
                return Ok(());
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(other("the server closed the connection").into());
            }
        }
    }

    /// One command, one reply.
    ///
    /// # Errors
    /// As `frame`.
    pub async fn ask(&mut self, words: &[&str]) -> Outcome<Frame> {
        self.add(words);
        self.send().await?;
        self.frame().await
    }
}

/// One connection that several clients share, each of which waits for its own reply.
#[derive(Clone, Debug)]
pub struct Shared {
    commands: mpsc::UnboundedSender<Asked>,
}

/// A command, and who waits for the reply.
type Asked = (Vec<u8>, oneshot::Sender<Frame>);

impl Shared {
    /// Connects.
    ///
    /// # Errors
    /// That nobody answers there.
    pub async fn connect(address: &str) -> Outcome<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reading, writing) = stream.into_split();
        let (commands, asked) = mpsc::unbounded_channel();
        let (waiting, awaited) = mpsc::unbounded_channel();
        tokio::spawn(send_together(asked, writing, waiting));
        tokio::spawn(hand_out(reading, awaited));
        Ok(Self { commands })
    }

    /// One command, one reply.
    ///
    /// # Errors
    /// That the connection ended, or an error of the server.
    pub async fn ask(&self, words: &[&str]) -> Outcome<Frame> {
        let mut command = Vec::new();
        write_command(words, &mut command);
        let (sender, reply) = oneshot::channel();
        let ended = || other("the connection ended");
        self.commands.send((command, sender)).map_err(|_| ended())?;
        let frame = reply.await.map_err(|_| ended())?;
        if let Frame::Error(error) = frame {
            return Err(error.into());
        }
        Ok(frame)
    }
}

/// Sends the commands that wait together.
async fn send_together(
    mut asked: mpsc::UnboundedReceiver<Asked>,
    mut stream: OwnedWriteHalf,
    waiting: mpsc::UnboundedSender<oneshot::Sender<Frame>>,
) {
    let (mut together, mut output) = (Vec::new(), Vec::new());
    while asked.recv_many(&mut together, 64).await > 0 {
        output.clear();
        for (command, sender) in together.drain(..) {
            output.extend_from_slice(&command);
            // Where nobody reads any more, whoever asked is told by the end of the channel.
            let _ = waiting.send(sender);
        }
        if stream.write_all(&output).await.is_err() {
            return;
        }
    }
}

/// Hands each reply to the one who has waited longest. Ends with the connection, and so does everybody's waiting.
async fn hand_out(mut stream: OwnedReadHalf, mut awaited: mpsc::UnboundedReceiver<oneshot::Sender<Frame>>) {
    let mut input = Vec::new();
    while matches!(stream.read_buf(&mut input).await, Ok(1..)) {
        let mut at = 0;
        while let Ok(Some((frame, used))) = parse_frame(&input[at..], &Limits::default()) {
            at += used;
            let Some(sender) = awaited.recv().await else {
                return;
            };
            // A client that has ended needs no reply.
            let _ = sender.send(frame);
        }
        input.drain(..at);
    }
}

/// Binds the names `0..count` in Daymark.
///
/// # Errors
/// That it refuses one.
pub async fn fill_daymark(address: &str, count: u64) -> Outcome<()> {
    fill(address, count, |client, index| {
        client.add(&["REBIND", &key(index), &object(index), "ATTRS", &attributes(index)]);
    })
    .await
}

/// Sets the keys `0..count` in Redis to `value`.
///
/// # Errors
/// That it refuses one.
pub async fn fill_redis(address: &str, count: u64, value: &str) -> Outcome<()> {
    fill(address, count, |client, index| {
        client.add(&["SET", &key(index), value]);
    })
    .await
}

async fn fill(address: &str, count: u64, add: impl Fn(&mut Client, u64)) -> Outcome<()> {
    const TOGETHER: u64 = 256;
    let mut client = Client::connect(address).await?;
    let mut index = 0;
    while index < count {
        let end = (index + TOGETHER).min(count);
        for index in index..end {
            add(&mut client, index);
        }
        client.replies((end - index) as usize).await?;
        index = end;
    }
    Ok(())
}

/// What Daymark answers to `LOOKUP key(index)`: the bytes every peer serves.
///
/// # Errors
/// That it is not bound.
pub async fn looked_up(address: &str, index: u64) -> Outcome<String> {
    let mut client = Client::connect(address).await?;
    let frame = client.ask(&["LOOKUP", &key(index)]).await?;
    let Frame::Bulk(body) = frame else {
        return Err(other(format!("a lookup was answered with {frame:?}")).into());
    };
    Ok(String::from_utf8(body.to_vec())?)
}
