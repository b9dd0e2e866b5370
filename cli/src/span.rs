//! Lengths of time as people write them: `500ms`, `10s`, `2m`, `1h`.

use std::time::Duration;

/// Reads a length of time: a whole number and one of `ms`, `s`, `m`, `h`.
///
/// # Errors
/// A sentence that says what a length of time looks like.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let refuse = || format!("{text:?} is not a length of time such as 500ms, 10s, 2m or 1h");
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refuse()),
    };
    match number.checked_mul(unit_ms) {
        Some(ms) if ms <= LONGEST_MS => Ok(Duration::from_millis(ms)),
        Some(_) | None => Err(format!("{text:?} is longer than a day")),
    }
}

/// Every wait has an end; nobody waits longer than a day for a command.
const LONGEST_MS: u64 = 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read() {
        for (text, ms) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("2m", 120_000),
            ("24h", 86_400_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_length_of_time_is_refused_with_an_example() {
        for text in [
            "",
            "10",
            "s",
            "1.5s",
            "-1s",
            "10 s",
            "10S",
            "10sec",
            "99999999999999999999s",
        ] {
            let refused = parse(text).expect_err(text);
            assert!(refused.contains("such as 500ms"), "{refused}");
        }
        assert!(parse("25h").expect_err("too long").contains("longer than a day"));
    }
}
