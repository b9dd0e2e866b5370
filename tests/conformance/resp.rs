//! Cases over RESP: one connection, words out, one document in.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use daymark_client::proto::resp::{Frame, Limits, parse_frame, write_command};
use serde_json::{Map, Value};

use super::{Door, words};

pub(crate) struct Resp {
    address: String,
    stream: TcpStream,
    input: Vec<u8>,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl Resp {
    /// Connects and asks for errors as documents.
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("a naming server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut resp = Self {
            address: address.to_owned(),
            stream,
            input: Vec::new(),
        };
        let answer = resp.call(&["ERRORS".to_owned(), "JSON".to_owned()]);
        assert_eq!(answer, Frame::Simple("OK".to_owned()));
        resp
    }

    fn call(&mut self, words: &[String]) -> Frame {
        let mut output = Vec::new();
        write_command(words, &mut output);
        self.stream
            .write_all(&output)
            .unwrap_or_else(|error| panic!("{error} at {:.200?}", words));
        loop {
            let parsed = parse_frame(&self.input, &Limits::default()).expect("RESP");
            if let Some((frame, used)) = parsed {
                self.input.drain(..used);
                return frame;
            }
            let mut more = [0; 4096];
            let read = self.stream.read(&mut more).expect("an answer in time");
            assert!(read > 0, "the server closed the connection");
            self.input.extend_from_slice(&more[..read]);
        }
    }
}

impl Door for Resp {
    fn ask(&mut self, verb: &str, args: &Map<String, Value>) -> Result<Value, Value> {
        let frame = self.call(&words::of(verb, args));
        let document = |text: &[u8]| serde_json::from_slice(text).expect("a document");
        if let Frame::Error(error) = &frame {
            // The code for every Redis client comes first, then the document.
            let at = error
                .find('{')
                .unwrap_or_else(|| panic!("no document in {error}"));
            let error: Value = document(&error.as_bytes()[at..]);
            // After a frame above its limits the server closes the connection: nobody knows where the next begins.
            if error["code"] == "LimitExceeded" {
                *self = Self::connect(&self.address);
            }
            return Err(error);
        }
        let Frame::Bulk(body) = frame else {
            panic!("{verb} was answered with {frame:?}");
        };
        Ok(document(&body))
    }
}
