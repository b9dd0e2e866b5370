//! From text to words.

use super::{Arithmetic, Comparison, SelectorError, Why};

/// A word that names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    And,
    Between,
    Escape,
    False,
    In,
    Is,
    Like,
    Not,
    Null,
    Or,
    True,
}

impl Keyword {
    const ALL: [(&'static str, Self); 11] = [
        ("AND", Self::And),
        ("BETWEEN", Self::Between),
        ("ESCAPE", Self::Escape),
        ("FALSE", Self::False),
        ("IN", Self::In),
        ("IS", Self::Is),
        ("LIKE", Self::Like),
        ("NOT", Self::Not),
        ("NULL", Self::Null),
        ("OR", Self::Or),
        ("TRUE", Self::True),
    ];

    fn of(word: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(_, keyword)| *keyword)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    Word(Keyword),
    Identifier(String),
    Text(String),
    /// A whole number without its sign: `-9223372036854775808` begins with one too large for `i64`.
    Int(u64),
    Float(f64),
    Compare(Comparison),
    Arithmetic(Arithmetic),
    Open,
    Close,
    Comma,
    End,
}

/// Takes words off the front of a text.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next word and where it begins.
    pub(super) fn next(&mut self) -> Result<(usize, Token), SelectorError> {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
        let begin = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok((begin, Token::End));
        };
        let token = match first {
            '\'' => self.quoted(),
            '0'..='9' => self.number(),
            '.' if rest[1..].starts_with(|next: char| next.is_ascii_digit()) => self.number(),
            _ if is_identifier_start(first) => Ok(self.word()),
            _ => self.symbol(rest, first),
        };
        token
            .map(|token| (begin, token))
            .map_err(|why| SelectorError { at: begin, why })
    }

    fn symbol(&mut self, rest: &str, first: char) -> Result<Token, Why> {
        let second = rest[first.len_utf8()..].chars().next();
        let (token, length) = match (first, second) {
            ('<', Some('>')) => (Token::Compare(Comparison::NotEqual), 2),
            ('<', Some('=')) => (Token::Compare(Comparison::LessOrEqual), 2),
            ('>', Some('=')) => (Token::Compare(Comparison::GreaterOrEqual), 2),
            ('<', _) => (Token::Compare(Comparison::Less), 1),
            ('>', _) => (Token::Compare(Comparison::Greater), 1),
            ('=', _) => (Token::Compare(Comparison::Equal), 1),
            ('+', _) => (Token::Arithmetic(Arithmetic::Add), 1),
            ('-', _) => (Token::Arithmetic(Arithmetic::Subtract), 1),
            ('*', _) => (Token::Arithmetic(Arithmetic::Multiply), 1),
            ('/', _) => (Token::Arithmetic(Arithmetic::Divide), 1),
            ('(', _) => (Token::Open, 1),
            (')', _) => (Token::Close, 1),
            (',', _) => (Token::Comma, 1),
            _ => return Err(Why::Character(first)),
        };
        self.at += length;
        Ok(token)
    }

    fn quoted(&mut self) -> Result<Token, Why> {
        let mut text = String::new();
        let mut rest = &self.rest()[1..];
        loop {
            let (part, after) = rest.split_once('\'').ok_or(Why::OpenText)?;
            text.push_str(part);
            match after.strip_prefix('\'') {
                Some(more) => {
                    text.push('\'');
                    rest = more;
                }
                None => {
                    self.at = self.text.len() - after.len();
                    return Ok(Token::Text(text));
                }
            }
        }
    }

    fn word(&mut self) -> Token {
        let rest = self.rest();
        let end = rest.find(|next| !is_identifier_part(next)).unwrap_or(rest.len());
        let word = &rest[..end];
        self.at += end;
        match Keyword::of(word) {
            Some(keyword) => Token::Word(keyword),
            None => Token::Identifier(word.to_owned()),
        }
    }

    /// A number as Java writes it: `57`, `0x1F`, `017`, `57L`, `7.`, `.5`, `7E3`, `-57.9e2d`.
    fn number(&mut self) -> Result<Token, Why> {
        let rest = self.rest();
        let end = number_end(rest);
        let digits = &rest[..end];
        self.at += end;
        let wrong = || Why::Number(digits.to_owned());
        // Digits that run into a name are neither.
        if self.rest().starts_with(is_identifier_part) {
            return Err(wrong());
        }
        parse_number(digits).ok_or_else(wrong)
    }
}

fn is_identifier_start(c: char) -> bool {
    c.is_alphabetic() || c == '_' || c == '$'
}

fn is_identifier_part(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

fn number_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut end = 0;
    while let Some(&byte) = bytes.get(end) {
        let exponent = end > 0 && matches!(bytes[end - 1], b'e' | b'E') && !is_hex(text);
        let sign = matches!(byte, b'+' | b'-') && exponent;
        if !(byte.is_ascii_alphanumeric() || byte == b'.' || sign) {
            break;
        }
        end += 1;
    }
    end
}

fn is_hex(text: &str) -> bool {
    text.starts_with("0x") || text.starts_with("0X")
}

fn parse_number(text: &str) -> Option<Token> {
    let whole = text.strip_suffix(['l', 'L']).unwrap_or(text);
    if is_hex(whole) {
        return u64::from_str_radix(&whole[2..], 16).ok().map(Token::Int);
    }
    if whole.bytes().all(|byte| byte.is_ascii_digit()) {
        let octal = whole.len() > 1 && whole.starts_with('0');
        let radix = if octal { 8 } else { 10 };
        return u64::from_str_radix(whole, radix).ok().map(Token::Int);
    }
    let plain = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let permitted = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    if !plain.bytes().all(permitted) {
        return None;
    }
    let number: f64 = plain.parse().ok()?;
    number.is_finite().then_some(Token::Float(number))
}
