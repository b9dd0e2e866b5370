//! The sessions that the documents show, typed again.
//!
//! A session is a block of ```` ```console ````: a line that begins with `$` is typed into a shell, the lines behind it are
//! what it prints. In them `…` stands for anything, also for lines.

use std::path::Path;
use std::process::{Command, Stdio};

use daymark_test_support::tool;

use crate::stage::program;

#[test]
fn the_sessions_of_the_directorys_page_go_as_it_shows_them() {
    if tool("redis-cli").is_none() || tool("curl").is_none() {
        return;
    }
    let program = program();
    let (_naming, address) = program.naming("naming");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/directory.md");
    let text = std::fs::read_to_string(&page).expect("the page");
    let typed = sessions(&text);
    assert!(typed.len() > 15, "only {} commands found", typed.len());
    let mut others = String::new();
    for (command, expected) in typed {
        let printed = type_in(&command, &address);
        if !matches(&printed, &expected) {
            others += &format!("$ {command}\nprinted:\n{printed}\nand not:\n{expected}\n");
        }
    }
    assert!(others.is_empty(), "{others}");
}

/// Each command with what it prints.
fn sessions(text: &str) -> Vec<(String, String)> {
    let mut sessions: Vec<(String, String)> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            line if inside => match line.strip_prefix("$ ") {
                Some(command) => sessions.push((command.to_owned(), String::new())),
                None => {
                    let (_, expected) = sessions.last_mut().expect("a command first");
                    expected.push_str(line);
                    expected.push('\n');
                }
            },
            _ => {}
        }
    }
    sessions
}

/// What a shell prints, errors included, where the server of the page listens at `address`.
fn type_in(command: &str, address: &str) -> String {
    let port = address.rsplit(':').next().expect("a port");
    let command = command
        .replace("127.0.0.1:9736", address)
        .replace("-p 9736", &format!("-p {port}"));
    let exe = Path::new(env!("CARGO_BIN_EXE_daymark"));
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("sh")
        .args(["-c", &format!("{{ {command}\n}} 2>&1")])
        .env(
            "PATH",
            format!("{}:{path}", exe.parent().expect("a directory").display()),
        )
        .env("DAYMARK_PROVIDER_URL", address)
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether `printed` is `expected`, in which `…` stands for anything. Blanks at the ends of lines do not count.
fn matches(printed: &str, expected: &str) -> bool {
    let trimmed = |text: &str| {
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n").trim_end().to_owned()
    };
    let (printed, expected) = (trimmed(printed), trimmed(expected));
    let mut parts = expected.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn a_session_that_prints_something_else_is_noticed() {
    assert!(matches("a 17 b\n", "a … b"));
    assert!(matches("a\nb\nc  \n", "a\n…\nc"));
    assert!(!matches("a 17 c", "a … b"));
    assert!(!matches("a", "a b"));
    assert!(!matches("x a 1", "a …"));
}
