//! Reads Java properties text, as far as `jndi.properties` needs it.
//!
//! It knows comments, continued lines, the separators `=`, `:` and blank, and the escapes of
//! `java.util.Properties`. It never reads files and never keeps what it read.

/// The value of `key` in properties text. The last one counts where a key stands twice.
pub(crate) fn property(text: &str, key: &str) -> Option<String> {
    let mut found = None;
    let mut lines = text.lines();
    while let Some(line) = next_logical_line(&mut lines) {
        let (name, value) = split(&line);
        if unescape(name) == key {
            found = Some(unescape(value));
        }
    }
    found
}

/// The next line that is neither blank nor a comment, joined with the lines that continue it.
fn next_logical_line<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Option<String> {
    let first = lines
        .map(str::trim_start)
        .find(|line| !line.is_empty() && !line.starts_with(['#', '!']))?;
    let mut whole = String::new();
    let mut part = first;
    loop {
        let Some(continued) = without_continuation(part) else {
            whole.push_str(part);
            return Some(whole);
        };
        whole.push_str(continued);
        part = lines.next().map_or("", str::trim_start);
    }
}

/// The line without its final `\`, when an odd number of them ends it.
fn without_continuation(line: &str) -> Option<&str> {
    let slashes = line.len() - line.trim_end_matches('\\').len();
    (slashes % 2 == 1).then(|| &line[..line.len() - 1])
}

/// Splits at the first separator that is not escaped.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let separates = !escaped && (matches!(c, '=' | ':') || c.is_whitespace());
        escaped = !escaped && c == '\\';
        separates
    });
    let Some(end) = end else {
        return (line, "");
    };
    let value = line[end..].trim_start();
    let value = value.strip_prefix(['=', ':']).unwrap_or(value);
    (&line[..end], value.trim_start())
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok();
                plain.push(code.and_then(char::from_u32).unwrap_or('\u{fffd}'));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_as_java_finds_it() {
        let text = "# comment\n! comment\n\n  a.b = kkam:9736, \\\n     kkm-PC:9736\nc:d\ne f\ng\nx\\=y=1\n\
                    u=\\u0041\\tB\nlast=1\nlast=2\nc\\:\\\\d=z\\\\\n";
        for (key, value) in [
            ("a.b", Some("kkam:9736, kkm-PC:9736")),
            ("c", Some("d")),
            ("e", Some("f")),
            ("g", Some("")),
            ("x=y", Some("1")),
            ("u", Some("A\tB")),
            ("last", Some("2")),
            ("c:\\d", Some("z\\")),
            ("absent", None),
        ] {
            assert_eq!(property(text, key).as_deref(), value, "{key}");
        }
    }

    #[test]
    fn a_text_that_ends_within_a_line_is_read_to_its_end() {
        assert_eq!(property("k=v\\", "k").as_deref(), Some("v"));
        assert_eq!(property("k=\\u12", "k").as_deref(), Some("\u{12}"));
        assert_eq!(property("", "k"), None);
    }
}
