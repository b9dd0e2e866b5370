//! From words to a condition.
//!
//! Every descent is counted, so that no text makes the stack overflow; chains of `AND`, `OR` and arithmetic
//! are lists and nest nothing.

use super::lex::{Keyword, Lexer, Token};
use super::like::Pattern;
use super::{Arithmetic, Comparison, Expr, MAX_SELECTOR_BYTES, MAX_SELECTOR_DEPTH, SelectorError, Why};

pub(super) fn parse(text: &str) -> Result<Expr, SelectorError> {
    let length = text.len();
    if length > MAX_SELECTOR_BYTES {
        let why = Why::TooLong { length };
        return Err(SelectorError { at: 0, why });
    }
    let mut lexer = Lexer::new(text);
    let (at, token) = lexer.next()?;
    if token == Token::End {
        return Err(SelectorError { at, why: Why::Empty });
    }
    let mut parser = Parser {
        lexer,
        at,
        token,
        depth: 0,
    };
    let condition = parser.any_of()?;
    must_be(&condition, Kind::Truth, "a selector", at)?;
    if parser.token != Token::End {
        return Err(parser.expected("an operator or the end"));
    }
    Ok(condition)
}

/// What is known of an operand before any message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    Truth,
    Number,
    Text,
}

fn kind_of(expr: &Expr) -> Kind {
    match expr {
        Expr::Identifier(_) => Kind::Unknown,
        Expr::Text(_) => Kind::Text,
        Expr::Int(_) | Expr::Float(_) | Expr::Negated(_) | Expr::Chain(..) => Kind::Number,
        Expr::Bool(_)
        | Expr::Compare(..)
        | Expr::Between { .. }
        | Expr::In { .. }
        | Expr::Like { .. }
        | Expr::IsNull { .. }
        | Expr::Not(_)
        | Expr::And(_)
        | Expr::Or(_) => Kind::Truth,
    }
}

fn must_be(expr: &Expr, wanted: Kind, operator: &'static str, at: usize) -> Result<(), SelectorError> {
    let kind = match kind_of(expr) {
        found if found == wanted => return Ok(()),
        Kind::Unknown => return Ok(()),
        Kind::Truth => "a truth value",
        Kind::Number => "a number",
        Kind::Text => "a text",
    };
    let why = Why::Kind { operator, kind };
    Err(SelectorError { at, why })
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// Where `token` begins.
    at: usize,
    token: Token,
    depth: usize,
}

type Parsed = Result<Expr, SelectorError>;

impl Parser<'_> {
    fn advance(&mut self) -> Result<Token, SelectorError> {
        let (at, next) = self.lexer.next()?;
        self.at = at;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn take(&mut self, token: &Token) -> Result<bool, SelectorError> {
        let found = self.token == *token;
        if found {
            self.advance()?;
        }
        Ok(found)
    }

    fn take_word(&mut self, keyword: Keyword) -> Result<bool, SelectorError> {
        self.take(&Token::Word(keyword))
    }

    fn expected(&self, wanted: &'static str) -> SelectorError {
        let found = match &self.token {
            Token::Word(word) => format!("{word:?}").to_uppercase(),
            Token::Identifier(name) => format!("the identifier {name}"),
            Token::Text(_) => "a text".to_owned(),
            Token::Int(_) | Token::Float(_) => "a number".to_owned(),
            Token::Compare(_) => "a comparison".to_owned(),
            Token::Arithmetic(_) => "an arithmetic sign".to_owned(),
            Token::Open => "(".to_owned(),
            Token::Close => ")".to_owned(),
            Token::Comma => ",".to_owned(),
            Token::End => "the end".to_owned(),
        };
        let why = Why::Expected { wanted, found };
        SelectorError { at: self.at, why }
    }

    fn wrong(&self, why: Why) -> SelectorError {
        SelectorError { at: self.at, why }
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Parsed) -> Parsed {
        if self.depth >= MAX_SELECTOR_DEPTH {
            return Err(self.wrong(Why::TooDeep));
        }
        self.depth += 1;
        let expr = inner(self)?;
        self.depth -= 1;
        Ok(expr)
    }

    fn any_of(&mut self) -> Parsed {
        self.joined(Keyword::Or, "OR", Self::all_of, Expr::Or)
    }

    fn all_of(&mut self) -> Parsed {
        self.joined(Keyword::And, "AND", Self::negation, Expr::And)
    }

    fn joined(
        &mut self,
        word: Keyword,
        name: &'static str,
        operand: fn(&mut Self) -> Parsed,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Parsed {
        let mut at = self.at;
        let first = operand(self)?;
        if self.token != Token::Word(word) {
            return Ok(first);
        }
        must_be(&first, Kind::Truth, name, at)?;
        let mut all = vec![first];
        while self.take_word(word)? {
            at = self.at;
            let next = operand(self)?;
            must_be(&next, Kind::Truth, name, at)?;
            all.push(next);
        }
        Ok(join(all))
    }

    fn negation(&mut self) -> Parsed {
        if !self.take_word(Keyword::Not)? {
            return self.test();
        }
        let at = self.at;
        let inner = self.nested(Self::negation)?;
        must_be(&inner, Kind::Truth, "NOT", at)?;
        Ok(Expr::Not(Box::new(inner)))
    }

    fn test(&mut self) -> Parsed {
        let at = self.at;
        let left = self.sum()?;
        if let Token::Compare(comparison) = self.token {
            self.advance()?;
            return self.comparison(at, left, comparison);
        }
        if self.take_word(Keyword::Is)? {
            let name = identifier(left, "IS", at)?;
            let negated = self.take_word(Keyword::Not)?;
            if !self.take_word(Keyword::Null)? {
                return Err(self.expected("NULL"));
            }
            return Ok(Expr::IsNull { name, negated });
        }
        let negated = self.take_word(Keyword::Not)?;
        if self.take_word(Keyword::Between)? {
            self.between(at, left, negated)
        } else if self.take_word(Keyword::In)? {
            self.list(identifier(left, "IN", at)?, negated)
        } else if self.take_word(Keyword::Like)? {
            self.like(identifier(left, "LIKE", at)?, negated)
        } else if negated {
            Err(self.expected("BETWEEN, IN or LIKE"))
        } else {
            Ok(left)
        }
    }

    fn comparison(&mut self, at: usize, left: Expr, comparison: Comparison) -> Parsed {
        let right_at = self.at;
        let right = self.sum()?;
        if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) {
            must_be(&left, Kind::Number, comparison.as_str(), at)?;
            must_be(&right, Kind::Number, comparison.as_str(), right_at)?;
        }
        Ok(Expr::Compare(Box::new(left), comparison, Box::new(right)))
    }

    fn between(&mut self, at: usize, value: Expr, negated: bool) -> Parsed {
        must_be(&value, Kind::Number, "BETWEEN", at)?;
        let low = self.bound()?;
        if !self.take_word(Keyword::And)? {
            return Err(self.expected("AND"));
        }
        let high = self.bound()?;
        Ok(Expr::Between {
            value: Box::new(value),
            low: Box::new(low),
            high: Box::new(high),
            negated,
        })
    }

    fn bound(&mut self) -> Parsed {
        let at = self.at;
        let bound = self.sum()?;
        must_be(&bound, Kind::Number, "BETWEEN", at)?;
        Ok(bound)
    }

    fn list(&mut self, name: String, negated: bool) -> Parsed {
        if !self.take(&Token::Open)? {
            return Err(self.expected("("));
        }
        let mut texts = vec![self.text()?];
        while self.take(&Token::Comma)? {
            texts.push(self.text()?);
        }
        if !self.take(&Token::Close)? {
            return Err(self.expected(", or )"));
        }
        Ok(Expr::In { name, texts, negated })
    }

    fn text(&mut self) -> Result<String, SelectorError> {
        let Token::Text(text) = &mut self.token else {
            return Err(self.expected("a text in quotes"));
        };
        let text = std::mem::take(text);
        self.advance()?;
        Ok(text)
    }

    fn like(&mut self, name: String, negated: bool) -> Parsed {
        let at = self.at;
        let text = self.text()?;
        let wrong = |at| SelectorError { at, why: Why::Escape };
        let escape = if self.take_word(Keyword::Escape)? {
            let at = self.at;
            let escape = self.text()?;
            let mut letters = escape.chars();
            let (Some(letter), None) = (letters.next(), letters.next()) else {
                return Err(wrong(at));
            };
            Some(letter)
        } else {
            None
        };
        let pattern = Pattern::new(&text, escape).ok_or_else(|| wrong(at))?;
        Ok(Expr::Like {
            name,
            pattern,
            negated,
        })
    }

    fn sum(&mut self) -> Parsed {
        let sign = |sign| matches!(sign, Arithmetic::Add | Arithmetic::Subtract);
        self.chain(Self::product, sign)
    }

    fn product(&mut self) -> Parsed {
        let sign = |sign| matches!(sign, Arithmetic::Multiply | Arithmetic::Divide);
        self.chain(Self::signed, sign)
    }

    fn chain(&mut self, operand: fn(&mut Self) -> Parsed, belongs: fn(Arithmetic) -> bool) -> Parsed {
        let first_at = self.at;
        let first = operand(self)?;
        let mut others = Vec::new();
        while let Token::Arithmetic(sign) = self.token
            && belongs(sign)
        {
            self.advance()?;
            let at = self.at;
            let next = operand(self)?;
            must_be(&next, Kind::Number, sign.as_str(), at)?;
            others.push((sign, next));
        }
        let Some((sign, _)) = others.first() else {
            return Ok(first);
        };
        must_be(&first, Kind::Number, sign.as_str(), first_at)?;
        Ok(Expr::Chain(Box::new(first), others))
    }

    fn signed(&mut self) -> Parsed {
        if self.take(&Token::Arithmetic(Arithmetic::Add))? {
            let at = self.at;
            let inner = self.nested(Self::signed)?;
            must_be(&inner, Kind::Number, "+", at)?;
            return Ok(inner);
        }
        if !self.take(&Token::Arithmetic(Arithmetic::Subtract))? {
            return self.primary();
        }
        let at = self.at;
        if let Token::Int(magnitude) = self.token {
            let number = 0i64.checked_sub_unsigned(magnitude);
            let number = number.ok_or_else(|| self.wrong(Why::Number(format!("-{magnitude}"))))?;
            self.advance()?;
            return Ok(Expr::Int(number));
        }
        let inner = self.nested(Self::signed)?;
        must_be(&inner, Kind::Number, "-", at)?;
        if let Expr::Float(number) = inner {
            return Ok(Expr::Float(-number));
        }
        Ok(Expr::Negated(Box::new(inner)))
    }

    fn primary(&mut self) -> Parsed {
        let found = match &self.token {
            Token::Int(number) => match i64::try_from(*number) {
                Ok(number) => Expr::Int(number),
                Err(_) => return Err(self.wrong(Why::Number(number.to_string()))),
            },
            Token::Float(number) => Expr::Float(*number),
            Token::Text(text) => Expr::Text(text.clone()),
            Token::Identifier(name) => Expr::Identifier(name.clone()),
            Token::Word(Keyword::True) => Expr::Bool(true),
            Token::Word(Keyword::False) => Expr::Bool(false),
            Token::Open => return self.parenthesis(),
            Token::Word(_)
            | Token::Compare(_)
            | Token::Arithmetic(_)
            | Token::Close
            | Token::Comma
            | Token::End => {
                return Err(self.expected("a value"));
            }
        };
        self.advance()?;
        Ok(found)
    }

    fn parenthesis(&mut self) -> Parsed {
        self.advance()?;
        let inner = self.nested(Self::any_of)?;
        if !self.take(&Token::Close)? {
            return Err(self.expected(")"));
        }
        Ok(inner)
    }
}

fn identifier(expr: Expr, operator: &'static str, at: usize) -> Result<String, SelectorError> {
    if let Expr::Identifier(name) = expr {
        return Ok(name);
    }
    let why = Why::IdentifierNeeded { operator };
    Err(SelectorError { at, why })
}
