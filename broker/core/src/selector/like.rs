//! `LIKE` patterns: `%` for any number of characters, `_` for one.
//!
//! Only the latest `%` is ever tried again, so a match takes at most pattern times text, never more.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Letter(char),
}

/// A pattern and how it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    pieces: Vec<Piece>,
    pub(super) text: String,
    pub(super) escape: Option<char>,
}

impl Pattern {
    /// `None` if the text ends with the escape character.
    pub(super) fn new(text: &str, escape: Option<char>) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            pieces.push(match letter {
                _ if Some(letter) == escape => Piece::Letter(letters.next()?),
                '%' => Piece::Any,
                '_' => Piece::One,
                _ => Piece::Letter(letter),
            });
        }
        Some(Self {
            pieces,
            text: text.to_owned(),
            escape,
        })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let mut piece = 0;
        let mut rest = text.chars();
        // After the latest `%`: the piece behind it, and the text it has not taken in yet.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            match self.pieces.get(piece) {
                Some(Piece::Any) => {
                    piece += 1;
                    retry = Some((piece, rest.clone()));
                    continue;
                }
                None if rest.as_str().is_empty() => return true,
                Some(Piece::One) if rest.next().is_some() => {
                    piece += 1;
                    continue;
                }
                Some(Piece::Letter(letter)) if rest.next() == Some(*letter) => {
                    piece += 1;
                    continue;
                }
                Some(Piece::One | Piece::Letter(_)) | None => {}
            }
            // The `%` takes in one character more.
            let Some((behind, begin)) = &mut retry else {
                return false;
            };
            if begin.next().is_none() {
                return false;
            }
            piece = *behind;
            rest = begin.clone();
        }
    }
}
