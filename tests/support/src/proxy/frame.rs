//! Where AMQP frames begin and end in a stream of bytes, and what each is.
//!
//! It reads no further than it must to name a frame: a defect in the engine under test cannot hide here.

/// What one piece of an AMQP stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A protocol header, of SASL or of AMQP.
    Header,
    /// Any SASL frame.
    Sasl,
    /// A frame without a performative: a sign of life.
    Empty,
    /// `open`.
    Open,
    /// `begin`.
    Begin,
    /// `attach`.
    Attach,
    /// `flow`.
    Flow,
    /// `transfer` of a message, or of a part of one.
    Transfer,
    /// `transfer` that declares a transaction.
    Declare,
    /// `transfer` that discharges a transaction.
    Discharge,
    /// `disposition`.
    Disposition,
    /// `detach`.
    Detach,
    /// `end`.
    End,
    /// `close`.
    Close,
    /// Anything else.
    Other,
}

/// An amqp-value section with a declare or a discharge in it.
const DECLARE: &[u8] = &[0x00, 0x53, 0x77, 0x00, 0x53, 0x31];
const DISCHARGE: &[u8] = &[0x00, 0x53, 0x77, 0x00, 0x53, 0x32];

/// The first whole piece of `bytes` and its length; `None` while it is not there whole.
pub(super) fn first(bytes: &[u8]) -> Option<(Piece, usize)> {
    if bytes.starts_with(b"AMQP") {
        return (bytes.len() >= 8).then_some((Piece::Header, 8));
    }
    let size: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let size = (u32::from_be_bytes(size) as usize).max(8);
    let frame = bytes.get(..size)?;
    Some((name(frame), size))
}

fn name(frame: &[u8]) -> Piece {
    if frame[5] == 1 {
        return Piece::Sasl;
    }
    let body = frame.get(usize::from(frame[4]) * 4..).unwrap_or(&[]);
    match body {
        [] => Piece::Empty,
        [0x00, 0x53, 0x10, ..] => Piece::Open,
        [0x00, 0x53, 0x11, ..] => Piece::Begin,
        [0x00, 0x53, 0x12, ..] => Piece::Attach,
        [0x00, 0x53, 0x13, ..] => Piece::Flow,
        [0x00, 0x53, 0x14, ..] => transfer(body),
        [0x00, 0x53, 0x15, ..] => Piece::Disposition,
        [0x00, 0x53, 0x16, ..] => Piece::Detach,
        [0x00, 0x53, 0x17, ..] => Piece::End,
        [0x00, 0x53, 0x18, ..] => Piece::Close,
        _ => Piece::Other,
    }
}

/// Orders to a coordinator are short, and hold nothing else.
fn transfer(body: &[u8]) -> Piece {
    let has = |order: &[u8]| body.len() < 256 && body.windows(order.len()).any(|window| window == order);
    if has(DECLARE) {
        Piece::Declare
    } else if has(DISCHARGE) {
        Piece::Discharge
    } else {
        Piece::Transfer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(8 + body.len())
            .expect("a size")
            .to_be_bytes()
            .to_vec();
        bytes.extend([2, kind, 0, 0]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn pieces_are_named_one_by_one() {
        let mut stream = b"AMQP\x03\x01\x00\x00".to_vec();
        stream.extend(frame(1, &[0x00, 0x53, 0x40]));
        stream.extend(frame(0, &[0x00, 0x53, 0x10, 0xc0]));
        stream.extend(frame(0, &[]));
        stream.extend(frame(0, &[0x00, 0x53, 0x14, 0x00, 0x53, 0x75, 1]));
        stream.extend(frame(0, &[&[0x00, 0x53, 0x14, 9][..], DISCHARGE].concat()));
        let mut names = Vec::new();
        let mut rest = &stream[..];
        while let Some((piece, len)) = first(rest) {
            names.push(piece);
            rest = &rest[len..];
        }
        let expected = [
            Piece::Header,
            Piece::Sasl,
            Piece::Open,
            Piece::Empty,
            Piece::Transfer,
            Piece::Discharge,
        ];
        assert_eq!(names, expected);
        assert!(rest.is_empty());
    }

    #[test]
    fn half_a_piece_is_none() {
        let whole = frame(0, &[0x00, 0x53, 0x18, 0x45]);
        for len in 0..whole.len() {
            assert_eq!(first(&whole[..len]), None);
        }
        assert_eq!(first(&whole), Some((Piece::Close, whole.len())));
    }
}
