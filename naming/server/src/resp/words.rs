//! The verbs that belong to a RESP session and not to the directory.

use std::borrow::Cow;

use daymark_naming_proto::NamingError;

/// A verb of the session.
pub(super) enum Own<'a> {
    /// `HELLO [2|3 [SETNAME name]]`
    Hello { version: Option<u8> },
    /// `PING [message]`
    Ping { message: Option<&'a [u8]> },
    /// `ECHO message`
    Echo { message: &'a [u8] },
    /// `INFO [section …]`
    Info,
    /// `EXPLAIN name`
    Explain { name: &'a [u8] },
    /// `MEMBERS`
    Members,
    /// `LIMITS`
    Limits,
    /// `LEASE LIST`
    Leases,
    /// `QUIT`
    Quit,
    /// `HELP`
    Help,
    /// `COMMAND [COUNT|LIST|DOCS [verb …]|INFO [verb …]]`
    Command { sub: String, verbs: Vec<String> },
    /// `ERRORS JSON|TEXT`
    Errors { json: bool },
    /// `UNWATCH id`
    Unwatch { id: u64 },
    /// `CLIENT SETINFO|SETNAME …`, which client libraries say of themselves
    Client,
}

/// Whose verb a command is.
pub(super) enum Verb<'a> {
    /// The session's.
    Own(Own<'a>),
    /// The directory's.
    Request,
}

impl<'a> Own<'a> {
    /// Reads a verb of the session.
    ///
    /// # Errors
    /// `InvalidRequest` or `NotSupported`.
    pub(super) fn read(arguments: &'a [Cow<'a, [u8]>]) -> Result<Verb<'a>, NamingError> {
        let word = |at: usize| -> String {
            let word: &[u8] = arguments.get(at).map_or(&[], |word| &word[..word.len().min(64)]);
            String::from_utf8_lossy(word).to_ascii_uppercase()
        };
        let own = match (word(0).as_str(), arguments.len()) {
            ("HELLO", _) => hello(arguments)?,
            ("PING", 1 | 2) => Self::Ping {
                message: arguments.get(1).map(|message| &**message),
            },
            ("ECHO", 2) => Self::Echo {
                message: arguments.get(1).map_or(&[], |message| &**message),
            },
            ("INFO", _) => Self::Info,
            ("EXPLAIN", 1 | 2) => Self::Explain {
                name: arguments.get(1).map_or(&[], |name| &**name),
            },
            ("MEMBERS", 1) => Self::Members,
            ("LIMITS", 1) => Self::Limits,
            ("LEASE", 2) if word(1) == "LIST" => Self::Leases,
            ("QUIT", 1) => Self::Quit,
            ("HELP", _) => Self::Help,
            ("COMMAND", count) => Self::Command {
                sub: word(1),
                verbs: (2..count).map(word).collect(),
            },
            ("ERRORS", 2) if word(1) == "JSON" => Self::Errors { json: true },
            ("ERRORS", 2) if word(1) == "TEXT" => Self::Errors { json: false },
            ("ERRORS", _) => return Err(NamingError::invalid("ERRORS JSON or ERRORS TEXT")),
            ("UNWATCH", 2) => Self::Unwatch {
                id: word(1)
                    .parse()
                    .map_err(|_| NamingError::invalid("UNWATCH wants the number that WATCH answered"))?,
            },
            ("CLIENT", 3 | 4) if matches!(word(1).as_str(), "SETINFO" | "SETNAME") => Self::Client,
            ("AUTH", _) => return Err(no_users()),
            ("PING" | "ECHO" | "QUIT" | "UNWATCH" | "EXPLAIN" | "MEMBERS" | "LIMITS", count) => {
                return Err(NamingError::invalid(format!(
                    "{} with {} arguments",
                    word(0),
                    count - 1
                )));
            }
            _ => return Ok(Verb::Request),
        };
        Ok(Verb::Own(own))
    }
}

fn no_users() -> NamingError {
    NamingError::NotSupported {
        what: "AUTH: this server has no users".to_owned(),
    }
}

fn hello<'a>(arguments: &[Cow<'_, [u8]>]) -> Result<Own<'a>, NamingError> {
    let mut words = arguments.iter().skip(1);
    let version = match words.next().map(|word| &**word) {
        None => return Ok(Own::Hello { version: None }),
        Some(b"2") => 2,
        Some(b"3") => 3,
        Some(_) => {
            return Err(NamingError::NotSupported {
                what: "protocol versions other than 2 and 3".to_owned(),
            });
        }
    };
    while let Some(option) = words.next() {
        if option.eq_ignore_ascii_case(b"SETNAME") && words.next().is_some() {
            continue;
        }
        if option.eq_ignore_ascii_case(b"AUTH") {
            return Err(no_users());
        }
        return Err(NamingError::invalid("HELLO [2|3 [SETNAME name]]"));
    }
    Ok(Own::Hello {
        version: Some(version),
    })
}
