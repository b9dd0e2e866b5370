//! Whether a message matches.

use std::cmp::Ordering;

use super::{Arithmetic, Comparison, Expr, Properties, Value};

/// The value of a condition; `None`: unknown.
pub(super) fn truth(expr: &Expr, of: &dyn Properties) -> Option<bool> {
    match expr {
        Expr::Not(inner) => truth(inner, of).map(|known| !known),
        Expr::And(all) => joined(all, of, false),
        Expr::Or(any) => joined(any, of, true),
        Expr::Compare(left, comparison, right) => compare(value(left, of), *comparison, value(right, of)),
        Expr::Between {
            value: middle,
            low,
            high,
            negated,
        } => between(value(middle, of), value(low, of), value(high, of), *negated),
        Expr::In { name, texts, negated } => on_text(of.value(name), *negated, |text| {
            texts.iter().any(|other| other == text)
        }),
        Expr::Like {
            name,
            pattern,
            negated,
        } => on_text(of.value(name), *negated, |text| pattern.matches(text)),
        Expr::IsNull { name, negated } => Some((of.value(name) == Value::Null) != *negated),
        Expr::Bool(known) => Some(*known),
        Expr::Identifier(name) => match of.value(name) {
            Value::Bool(known) => Some(known),
            Value::Null | Value::Int(_) | Value::Float(_) | Value::Text(_) => None,
        },
        // The parser takes none of these for a condition.
        Expr::Text(_) | Expr::Int(_) | Expr::Float(_) | Expr::Negated(_) | Expr::Chain(..) => None,
    }
}

/// `decisive` decides alone: false for AND, true for OR.
fn joined(parts: &[Expr], of: &dyn Properties, decisive: bool) -> Option<bool> {
    let mut result = Some(!decisive);
    for part in parts {
        match truth(part, of) {
            Some(known) if known == decisive => return Some(decisive),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

fn value<'a>(expr: &'a Expr, of: &'a dyn Properties) -> Value<'a> {
    match expr {
        Expr::Identifier(name) => of.value(name),
        Expr::Text(text) => Value::Text(text),
        Expr::Int(number) => Value::Int(*number),
        Expr::Float(number) => Value::Float(*number),
        Expr::Negated(inner) => match value(inner, of) {
            Value::Int(number) => Value::Int(number.wrapping_neg()),
            Value::Float(number) => Value::Float(-number),
            Value::Null | Value::Bool(_) | Value::Text(_) => Value::Null,
        },
        Expr::Chain(first, others) => {
            let first = value(first, of);
            others.iter().fold(first, |left, (sign, right)| {
                calculate(left, *sign, value(right, of))
            })
        }
        Expr::Bool(_)
        | Expr::Compare(..)
        | Expr::Between { .. }
        | Expr::In { .. }
        | Expr::Like { .. }
        | Expr::IsNull { .. }
        | Expr::Not(_)
        | Expr::And(_)
        | Expr::Or(_) => truth(expr, of).map_or(Value::Null, Value::Bool),
    }
}

fn calculate(left: Value<'_>, sign: Arithmetic, right: Value<'_>) -> Value<'static> {
    if let (Value::Int(left), Value::Int(right)) = (left, right) {
        return match sign {
            Arithmetic::Add => Value::Int(left.wrapping_add(right)),
            Arithmetic::Subtract => Value::Int(left.wrapping_sub(right)),
            Arithmetic::Multiply => Value::Int(left.wrapping_mul(right)),
            Arithmetic::Divide if right == 0 => Value::Null,
            Arithmetic::Divide => Value::Int(left.wrapping_div(right)),
        };
    }
    let (Some(left), Some(right)) = (number(left), number(right)) else {
        return Value::Null;
    };
    Value::Float(match sign {
        Arithmetic::Add => left + right,
        Arithmetic::Subtract => left - right,
        Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a whole number beside a fraction counts as one, as in Java"
)]
fn number(value: Value<'_>) -> Option<f64> {
    match value {
        Value::Int(number) => Some(number as f64),
        Value::Float(number) => Some(number),
        Value::Null | Value::Bool(_) | Value::Text(_) => None,
    }
}

fn compare(left: Value<'_>, comparison: Comparison, right: Value<'_>) -> Option<bool> {
    if left == Value::Null || right == Value::Null {
        return None;
    }
    let order = match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(left.cmp(&right)),
        (Value::Text(left), Value::Text(right)) => return Some(same(left == right, comparison)),
        (Value::Bool(left), Value::Bool(right)) => return Some(same(left == right, comparison)),
        _ => match (number(left), number(right)) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => return Some(false),
        },
    };
    // What has no order, as NaN, differs from everything.
    Some(order.map_or(comparison == Comparison::NotEqual, |order| {
        holds(order, comparison)
    }))
}

fn same(equal: bool, comparison: Comparison) -> bool {
    match comparison {
        Comparison::Equal => equal,
        Comparison::NotEqual => !equal,
        Comparison::Less | Comparison::LessOrEqual | Comparison::Greater | Comparison::GreaterOrEqual => {
            false
        }
    }
}

fn holds(order: Ordering, comparison: Comparison) -> bool {
    match comparison {
        Comparison::Equal => order.is_eq(),
        Comparison::NotEqual => order.is_ne(),
        Comparison::Less => order.is_lt(),
        Comparison::LessOrEqual => order.is_le(),
        Comparison::Greater => order.is_gt(),
        Comparison::GreaterOrEqual => order.is_ge(),
    }
}

fn between(middle: Value<'_>, low: Value<'_>, high: Value<'_>, negated: bool) -> Option<bool> {
    let unlike = |value| value != Value::Null && number(value).is_none();
    if unlike(middle) || unlike(low) || unlike(high) {
        return Some(false);
    }
    // The same as two comparisons, so that one bound that is known to fail decides.
    let above = compare(low, Comparison::LessOrEqual, middle);
    let below = compare(middle, Comparison::LessOrEqual, high);
    let inside = match (above, below) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    inside.map(|inside| inside != negated)
}

fn on_text(value: Value<'_>, negated: bool, test: impl FnOnce(&str) -> bool) -> Option<bool> {
    match value {
        Value::Null => None,
        Value::Text(text) => Some(test(text) != negated),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => Some(false),
    }
}
