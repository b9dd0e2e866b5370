//! Damage that keeps most of a conversation's structure: frames are moved, repeated, mixed and bent, so that the
//! engine is reached behind its first checks.

use super::random::Random;

/// Bytes that mean something: constructors, booleans, extremes.
const BYTES: &[u8] = &[
    0x00, 0x01, 0x24, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x52, 0x53, 0x56, 0x70, 0x7f, 0x80, 0xa0, 0xa1,
    0xa3, 0xb0, 0xc0, 0xc1, 0xd0, 0xd1, 0xe0, 0xf0, 0xff,
];
/// Numbers at which things change.
const NUMBERS: &[u32] = &[
    0,
    1,
    7,
    8,
    63,
    64,
    511,
    512,
    4_096,
    65_536,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
];
/// A conversation grows no longer than this many pieces.
const PIECES_MAX: usize = 200;

/// Cuts a conversation into protocol headers and frames; what is neither stays one piece.
pub(crate) fn pieces(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let size = match bytes.first_chunk::<4>() {
            Some(b"AMQP") => 8,
            Some(size) => u32::from_be_bytes(*size) as usize,
            None => bytes.len(),
        };
        let (piece, rest) = bytes.split_at(size.clamp(1, bytes.len()));
        pieces.push(piece.to_vec());
        bytes = rest;
    }
    pieces
}

/// A damaged copy of one conversation, with pieces of others in it.
pub(crate) fn damaged(corpus: &[Vec<Vec<u8>>], random: &mut Random) -> Vec<u8> {
    let mut pieces = random.pick(corpus).cloned().unwrap_or_default();
    for _ in 0..=random.below(6) {
        damage(&mut pieces, corpus, random);
        pieces.truncate(PIECES_MAX);
    }
    pieces.concat()
}

fn damage(pieces: &mut Vec<Vec<u8>>, corpus: &[Vec<Vec<u8>>], random: &mut Random) {
    if pieces.is_empty() {
        return;
    }
    let place = random.below(pieces.len());
    match random.below(10) {
        0 => drop(pieces.remove(place)),
        1 => {
            let copy = pieces[place].clone();
            let times = 1 + random.below(40);
            pieces.splice(place..place, std::iter::repeat_n(copy, times));
        }
        2 => {
            let other = random.below(pieces.len());
            pieces.swap(place, other);
        }
        3 => {
            let foreign = random.pick(corpus).and_then(|other| random.pick(other));
            pieces.splice(place..place, foreign.cloned());
        }
        4 => channel(&mut pieces[place], random),
        _ => bend(&mut pieces[place], random),
    }
}

fn channel(piece: &mut [u8], random: &mut Random) {
    if let Some(low) = piece.get_mut(7) {
        *low = *random.pick(&[0, 1, 2, 7, 8, 255]).unwrap_or(&0);
    }
}

/// Changes bytes of a frame; mostly its size stays true.
fn bend(piece: &mut Vec<u8>, random: &mut Random) {
    let start = if random.one_in(8) { 0 } else { 8 };
    let place = start + random.below(piece.len().saturating_sub(start));
    match random.below(6) {
        0 | 1 => {
            let byte = if random.one_in(2) {
                random.byte()
            } else {
                *random.pick(BYTES).unwrap_or(&0)
            };
            if let Some(old) = piece.get_mut(place) {
                *old = byte;
            }
        }
        2 => {
            let number = random.pick(NUMBERS).copied().unwrap_or(0).to_be_bytes();
            for (old, new) in piece.iter_mut().skip(place).zip(number) {
                *old = new;
            }
        }
        3 => piece.truncate(place),
        4 => {
            let bytes: Vec<u8> = (0..random.below(9)).map(|_| random.byte()).collect();
            let place = place.min(piece.len());
            piece.splice(place..place, bytes);
        }
        _ => {
            let byte = *random.pick(BYTES).unwrap_or(&0);
            let place = place.min(piece.len());
            piece.insert(place, byte);
        }
    }
    if !random.one_in(8) {
        restore_size(piece);
    }
}

fn restore_size(piece: &mut [u8]) {
    let size = u32::try_from(piece.len()).unwrap_or(u32::MAX).to_be_bytes();
    if piece.len() >= 8 && !piece.starts_with(b"AMQP") {
        piece[..4].copy_from_slice(&size);
    }
}
