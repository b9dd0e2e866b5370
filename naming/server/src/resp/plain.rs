//! The most frequent command, recognised without taking it apart.

/// A `LOOKUP` with a name and nothing else, as client libraries write it: the name and the length of the command.
/// `None` for everything else, also where the command is not whole.
pub(super) fn lookup(input: &[u8]) -> Option<(&[u8], usize)> {
    let rest = input.strip_prefix(b"*2\r\n$6\r\n")?;
    let (verb, rest) = rest.split_first_chunk::<6>()?;
    if !verb.eq_ignore_ascii_case(b"LOOKUP") {
        return None;
    }
    let rest = rest.strip_prefix(b"\r\n$")?;
    let (length, rest) = short_number(rest)?;
    let name = rest.get(..length)?;
    let after = rest[length..].strip_prefix(b"\r\n")?;
    Some((name, input.len() - after.len()))
}

/// A number of at most four digits, which is enough for any name, and what follows its line.
fn short_number(text: &[u8]) -> Option<(usize, &[u8])> {
    let end = text.iter().take(5).position(|&byte| byte == b'\r')?;
    let (digits, rest) = text.split_at(end);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0, |number, &digit| number * 10 + usize::from(digit - b'0'));
    Some((number, rest.strip_prefix(b"\r\n")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_naming_proto::resp::{Limits, parse_command};

    #[test]
    fn a_plain_lookup_is_read_as_the_command_it_is_and_only_when_it_is_whole() {
        for verb in ["LOOKUP", "lookup"] {
            for name in ["", "a", "billing/queue", &"x".repeat(2_000)] {
                let command = format!("*2\r\n$6\r\n{verb}\r\n${}\r\n{name}\r\n", name.len());
                let input = format!("{command}*1\r\n");
                let read = lookup(input.as_bytes());
                assert_eq!(read, Some((name.as_bytes(), command.len())));
                let mut arguments = Vec::new();
                let used = parse_command(input.as_bytes(), &mut arguments, &Limits::default());
                assert_eq!(used, Ok(Some(command.len())));
                assert_eq!(arguments[1].as_ref(), name.as_bytes());
                for cut in 0..command.len() {
                    assert_eq!(lookup(&input.as_bytes()[..cut]), None);
                }
            }
        }
    }

    #[test]
    fn everything_else_is_left_to_the_parser_of_commands() {
        for input in [
            "*2\r\n$6\r\nUNBIND\r\n$1\r\na\r\n",
            "*3\r\n$6\r\nLOOKUP\r\n$1\r\na\r\n$6\r\nSTRONG\r\n",
            "*2\r\n$6\r\nLOOKUP\r\n$-1\r\na\r\n",
            "*2\r\n$6\r\nLOOKUP\r\n$+1\r\na\r\n",
            "*2\r\n$6\r\nLOOKUP\r\n$\r\n\r\n",
            "*2\r\n$6\r\nLOOKUP\r\n$10000\r\na\r\n",
            "*2\r\n$6\r\nLOOKUP\r\n$1\r\nabc\r\n",
            "LOOKUP a\r\n",
        ] {
            assert_eq!(lookup(input.as_bytes()), None, "{input:?}");
        }
    }
}
