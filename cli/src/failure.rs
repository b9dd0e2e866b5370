//! How a command fails: a stable code, a sentence, a hint where there is one, and the exit code.
//!
//! Every failure of the program becomes a `Failure` before it is shown; nothing prints errors by itself.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io::Write;

use daymark_client::LookupError;
use daymark_client::proto::NamingError;
use serde_json::Value;

/// Exit codes. `docs/cli.md` documents them for users.
pub(crate) mod exit {
    /// The request was refused, or what was tried failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line or a configuration cannot be used.
    pub(crate) const USAGE: u8 = 2;
    /// The name, group or member does not exist.
    pub(crate) const NOT_FOUND: u8 = 3;
    /// It is known and cannot be had now, or the answer did not come in time.
    pub(crate) const UNAVAILABLE: u8 = 4;
    /// No naming server could be reached.
    pub(crate) const UNREACHABLE: u8 = 5;
}

/// A command that did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    code: Cow<'static, str>,
    message: String,
    hint: Option<String>,
    exit: u8,
    /// The naming server's error as it came, for `--json`.
    detail: Option<Value>,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(code: impl Into<Cow<'static, str>>, message: impl Display) -> Self {
        Self {
            code: code.into(),
            message: message.to_string(),
            hint: None,
            exit: exit::FAILED,
            detail: None,
        }
    }

    /// What was given on the command line or in a file cannot be used.
    pub(crate) fn usage(code: &'static str, message: impl Display) -> Self {
        Self::new(code, message).exiting(exit::USAGE)
    }

    /// The same with this hint.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether this is its code.
    pub(crate) fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// The same with this exit code.
    pub(crate) const fn exiting(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// The exit code.
    pub(crate) const fn exit_code(&self) -> u8 {
        self.exit
    }

    /// Writes it to standard error: `error: CODE: sentence` and a hint, or one JSON document.
    pub(crate) fn show(&self, as_json: bool) {
        let mut text = if as_json {
            // Texts and JSON values always have a JSON form.
            serde_json::to_string(&self.document()).unwrap_or_default()
        } else {
            format!("error: {self}")
        };
        if let (Some(hint), false) = (&self.hint, as_json) {
            text.push_str("\n hint: ");
            text.push_str(hint);
        }
        // There is nobody left to tell when standard error is gone.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn document(&self) -> Document<'_> {
        Document {
            error: &self.code,
            message: &self.message,
            hint: self.hint.as_deref(),
            exit: self.exit,
            detail: self.detail.as_ref(),
        }
    }
}

/// A failure for programs.
#[derive(serde::Serialize)]
struct Document<'a> {
    error: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    exit: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a Value>,
}

/// Code and sentence, as in a log.
impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(
            "OutputFailed",
            format!("cannot write to standard output: {error}"),
        )
    }
}

impl From<LookupError> for Failure {
    fn from(error: LookupError) -> Self {
        let message = error.to_string();
        match &error {
            LookupError::Refused(refused) => Self::from(refused.clone()),
            LookupError::Unreachable { .. } => Self {
                detail: error
                    .passed_over()
                    .and_then(|said| serde_json::to_value(said).ok()),
                ..Self::new("Unreachable", message).exiting(exit::UNREACHABLE).hint(
                    "`daymark naming` starts a server; --provider or DAYMARK_PROVIDER_URL says where to ask",
                )
            },
            LookupError::OutcomeUnknown { .. } => Self::new("OutcomeUnknown", message)
                .exiting(exit::UNAVAILABLE)
                .hint("the write may have happened: look before you repeat it"),
            LookupError::NotBoundInTime { .. } => Self::new("NotBoundInTime", message)
                .exiting(exit::UNAVAILABLE)
                .hint("`daymark groups` shows who should export it"),
            LookupError::AuthenticationFailed { .. } => Self::new("AuthenticationFailed", message),
            LookupError::WrongKind { .. } => Self::new("WrongKind", message),
        }
    }
}

impl From<NamingError> for Failure {
    fn from(error: NamingError) -> Self {
        Self {
            code: error.code().into(),
            message: error.to_string(),
            hint: naming_hint(&error),
            exit: naming_exit(&error),
            detail: serde_json::to_value(&error).ok(),
        }
    }
}

/// The exit code of a naming error. No wildcard arm: a new variant has to choose.
fn naming_exit(error: &NamingError) -> u8 {
    match error {
        NamingError::InvalidName { .. }
        | NamingError::InvalidSearchFilter { .. }
        | NamingError::InvalidAttributeIdentifier { .. }
        | NamingError::InvalidAttributeValue { .. } => exit::USAGE,
        NamingError::NameNotFound { .. }
        | NamingError::GroupNotFound { .. }
        | NamingError::MemberNotFound { .. } => exit::NOT_FOUND,
        NamingError::NameUnavailable { .. }
        | NamingError::Lagging { .. }
        | NamingError::TimedOut { .. }
        | NamingError::ServiceUnavailable { .. } => exit::UNAVAILABLE,
        NamingError::InvalidRequest { .. }
        | NamingError::NotSupported { .. }
        | NamingError::NameAlreadyBound { .. }
        | NamingError::NameConflict { .. }
        | NamingError::NotContext { .. }
        | NamingError::ContextNotEmpty { .. }
        | NamingError::LinkLoop { .. }
        | NamingError::LeaseEnded { .. }
        | NamingError::ActiveExists { .. }
        | NamingError::StaleEpoch { .. }
        | NamingError::RevisionMismatch { .. }
        | NamingError::Compacted { .. }
        | NamingError::LimitExceeded { .. }
        | NamingError::SizeLimitExceeded { .. }
        | NamingError::TimeLimitExceeded { .. }
        | NamingError::MalformedLink { .. } => exit::FAILED,
        NamingError::TransactFailed { cause, .. } => naming_exit(cause),
    }
}

/// What to do next, where there is something to do.
fn naming_hint(error: &NamingError) -> Option<String> {
    let hint = match error {
        NamingError::NameNotFound { resolved, .. } if resolved.is_root() => {
            "`daymark list` shows what is bound; --wait 10s waits for a name".to_owned()
        }
        NamingError::NameNotFound { resolved, .. } => {
            format!("`daymark list {resolved}` shows what is bound there; --wait 10s waits for a name")
        }
        NamingError::NameUnavailable { group, .. } => {
            format!("`daymark groups {group}` shows its brokers; --wait 10s waits for the next active one")
        }
        NamingError::NameAlreadyBound { name } => format!("`daymark rebind {name} ...` replaces it"),
        NamingError::GroupNotFound { .. } => "`daymark groups` shows the groups".to_owned(),
        NamingError::MemberNotFound { group, .. } => format!("`daymark groups {group}` shows its members"),
        NamingError::ContextNotEmpty { name } => format!("`daymark list {name}` shows what is in it"),
        NamingError::ActiveExists { group, .. } => format!("`daymark groups {group}` shows it"),
        NamingError::RevisionMismatch { name, .. } => {
            format!("`daymark lookup {name}` shows it as it is now")
        }
        NamingError::NameConflict { .. } => "exports are changed by the broker that owns them".to_owned(),
        NamingError::InvalidName { .. }
        | NamingError::InvalidRequest { .. }
        | NamingError::NotSupported { .. }
        | NamingError::NotContext { .. }
        | NamingError::LinkLoop { .. }
        | NamingError::LeaseEnded { .. }
        | NamingError::StaleEpoch { .. }
        | NamingError::Lagging { .. }
        | NamingError::Compacted { .. }
        | NamingError::LimitExceeded { .. }
        | NamingError::TimedOut { .. }
        | NamingError::ServiceUnavailable { .. }
        | NamingError::InvalidSearchFilter { .. }
        | NamingError::InvalidAttributeIdentifier { .. }
        | NamingError::InvalidAttributeValue { .. }
        | NamingError::SizeLimitExceeded { .. }
        | NamingError::TimeLimitExceeded { .. }
        | NamingError::MalformedLink { .. }
        | NamingError::TransactFailed { .. } => return None,
    };
    Some(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_and_chooses_an_exit_code() {
        let failure = Failure::from(NamingError::GroupNotFound {
            group: "orders".parse().expect("a label"),
        });
        assert_eq!(failure.exit_code(), exit::NOT_FOUND);
        let json = serde_json::to_value(failure.document()).expect("JSON");
        assert_eq!(json["error"], "GroupNotFound");
        assert_eq!(json["detail"]["group"], "orders");
        assert!(
            json["hint"]
                .as_str()
                .is_some_and(|hint| hint.contains("daymark groups"))
        );
    }
}
