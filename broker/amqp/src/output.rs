//! Bytes on their way out: small frames are gathered in one buffer, big payloads stay slices of their own.

use crate::performative::Performative;
use crate::sasl::SaslFrame;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Payloads up to this many bytes are copied; a slice of their own would cost more.
const COPY_LIMIT: usize = 2_048;
/// An empty buffer larger than this is given back.
const KEEP: usize = 256 << 10;

const AMQP_FRAME: u8 = 0;
const SASL_FRAME: u8 = 1;

#[derive(Debug, Default)]
pub(crate) struct Output {
    sealed: VecDeque<Bytes>,
    sealed_len: usize,
    tail: Vec<u8>,
    written: usize,
    /// Bytes of frames other than messages, at most: the older part of them may have been written.
    control: usize,
}

impl Output {
    pub(crate) fn len(&self) -> usize {
        self.sealed_len + self.tail.len() - self.written
    }

    /// How many of the waiting bytes are, at most, other than messages.
    pub(crate) fn control_len(&self) -> usize {
        self.control.min(self.len())
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    pub(crate) fn frame(&mut self, channel: u16, performative: &Performative) {
        let start = self.begin(channel, AMQP_FRAME);
        performative.encode(&mut self.tail);
        self.finish(start, 0);
        self.control += self.tail.len() - start;
    }

    pub(crate) fn frame_with(&mut self, channel: u16, encode: impl FnOnce(&mut Vec<u8>)) {
        let start = self.begin(channel, AMQP_FRAME);
        encode(&mut self.tail);
        self.finish(start, 0);
        self.control += self.tail.len() - start;
    }

    pub(crate) fn sasl(&mut self, frame: &SaslFrame) {
        let start = self.begin(0, SASL_FRAME);
        frame.encode(&mut self.tail);
        self.finish(start, 0);
    }

    pub(crate) fn empty_frame(&mut self) {
        let start = self.begin(0, AMQP_FRAME);
        self.finish(start, 0);
    }

    /// Starts a frame; `finish` fills in its size.
    pub(crate) fn begin(&mut self, channel: u16, kind: u8) -> usize {
        let start = self.tail.len();
        let [high, low] = channel.to_be_bytes();
        self.tail.extend_from_slice(&[0, 0, 0, 0, 2, kind, high, low]);
        start
    }

    pub(crate) fn begin_amqp(&mut self, channel: u16) -> usize {
        self.begin(channel, AMQP_FRAME)
    }

    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    /// Ends the frame begun at `start`; `payload` bytes follow it.
    pub(crate) fn finish(&mut self, start: usize, payload: usize) {
        // Frames are far smaller than 4 GiB.
        let size = u32::try_from(self.tail.len() - start + payload).unwrap_or(u32::MAX);
        self.tail[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }

    pub(crate) fn rewind(&mut self, start: usize) {
        self.tail.truncate(start);
    }

    pub(crate) fn payload(&mut self, bytes: &Bytes) {
        if bytes.len() <= COPY_LIMIT {
            self.tail.extend_from_slice(bytes);
            return;
        }
        self.seal();
        self.sealed_len += bytes.len();
        self.sealed.push_back(bytes.clone());
    }

    fn seal(&mut self) {
        let mut tail = Bytes::from(std::mem::take(&mut self.tail));
        tail = tail.split_off(self.written);
        self.written = 0;
        if !tail.is_empty() {
            self.sealed_len += tail.len();
            self.sealed.push_back(tail);
        }
    }

    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let tail = &self.tail[self.written..];
        let chunks = self
            .sealed
            .iter()
            .map(|bytes| &bytes[..])
            .chain((!tail.is_empty()).then_some(tail));
        let mut count = 0;
        for (slot, chunk) in slices.iter_mut().zip(chunks) {
            *slot = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    pub(crate) fn advance(&mut self, n: usize) {
        self.step(n);
        self.control = self.control_len();
    }

    fn step(&mut self, mut n: usize) {
        while let Some(front) = self.sealed.front_mut() {
            let step = n.min(front.len());
            n -= step;
            self.sealed_len -= step;
            if step < front.len() {
                *front = front.split_off(step);
                return;
            }
            self.sealed.pop_front();
        }
        self.written = (self.written + n).min(self.tail.len());
        if self.written == self.tail.len() {
            self.tail.clear();
            self.written = 0;
            self.tail.shrink_to(KEEP);
        } else if self.written > KEEP && self.written > self.tail.len() / 2 {
            self.tail.drain(..self.written);
            self.written = 0;
        }
    }

    pub(crate) fn shrink(&mut self) {
        if self.len() == 0 {
            *self = Self::default();
        }
    }
}
