//! `postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME`: read, checked, and shown without its password.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;

/// Bytes PostgreSQL keeps of an identifier.
const NAME_BYTES_MAX: usize = 63;

/// Where a PostgreSQL store is, and as whom to connect.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl {
    config: Box<Config>,
    schema: Option<String>,
    shown: String,
}

/// A text that is no usable PostgreSQL URL. Never holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPostgresUrl {
    /// It could not be read.
    #[error("{url}: {why}")]
    Syntax {
        /// What was given, without its password.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// It asks for an encrypted connection.
    #[error(
        "{url}: sslmode={mode} asks for TLS to PostgreSQL, which is not built in this version: use a Unix socket, a tunnel, or sslmode=disable on a network you trust"
    )]
    NeedsTls {
        /// What was given, without its password.
        url: String,
        /// The value of `sslmode`.
        mode: String,
    },
    /// The schema cannot be a name.
    #[error("{url}: schema must have 1 to 63 bytes")]
    Schema {
        /// What was given, without its password.
        url: String,
    },
}

impl PostgresUrl {
    /// The schema it names.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// How to connect. A password that the URL does not hold is taken from `PGPASSWORD`.
    pub(super) fn config(&self, connect_timeout: Duration) -> Config {
        let mut config = (*self.config).clone();
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(connect_timeout);
        }
        if config.get_application_name().is_none() {
            config.application_name("daymark broker");
        }
        if config.get_password().is_none()
            && let Some(password) = std::env::var_os("PGPASSWORD").and_then(|word| word.into_string().ok())
        {
            config.password(password);
        }
        config
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl FromStr for PostgresUrl {
    type Err = InvalidPostgresUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = without_password(text);
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let mut schema = None;
        let mut rest = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            match parameter.split_once('=') {
                Some(("schema", name)) => schema = Some(name.to_owned()),
                Some(("sslmode", mode)) if !["disable", "allow", "prefer"].contains(&mode) => {
                    let mode = mode.to_owned();
                    return Err(InvalidPostgresUrl::NeedsTls { url: shown, mode });
                }
                Some(("sslmode", _)) => {}
                Some(_) | None => rest.push(parameter),
            }
        }
        let is_name = |name: &String| (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains('\0');
        if schema.as_ref().is_some_and(|name| !is_name(name)) {
            return Err(InvalidPostgresUrl::Schema { url: shown });
        }
        let mut plain = place.to_owned();
        if !rest.is_empty() {
            plain = format!("{place}?{}", rest.join("&"));
        }
        let wrong = |why: String| InvalidPostgresUrl::Syntax {
            url: shown.clone(),
            why,
        };
        let mut config: Config = plain
            .parse()
            .map_err(|error: tokio_postgres::Error| wrong(chain(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(wrong("it names no host".to_owned()));
        }
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        Ok(Self {
            config: Box::new(config),
            schema,
            shown,
        })
    }
}

fn chain(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The text with every password replaced.
fn without_password(text: &str) -> String {
    let (place, query) = match text.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (text, None),
    };
    let mut shown = match (place.split_once("://"), place.rsplit_once('@')) {
        (Some((scheme, rest)), Some((_, host))) => {
            let login = rest.strip_suffix(host).unwrap_or_default();
            let user = login.split([':', '@']).next().unwrap_or_default();
            if login.contains(':') {
                format!("{scheme}://{user}:***@{host}")
            } else {
                place.to_owned()
            }
        }
        (Some(_) | None, _) => place.to_owned(),
    };
    for (at, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if at == 0 { '?' } else { '&' });
        shown.push_str(if parameter.starts_with("password=") {
            "password=***"
        } else {
            parameter
        });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (text, shown) in [
            ("postgres://db/orders", "postgres://db/orders"),
            (
                "postgres://ann:s3cret@db:5432/orders",
                "postgres://ann:***@db:5432/orders",
            ),
            (
                "postgres://ann@db/orders?schema=x",
                "postgres://ann@db/orders?schema=x",
            ),
            (
                "postgresql://db/orders?user=ann&password=s3cret",
                "postgresql://db/orders?user=ann&password=***",
            ),
            ("postgres://ann:p%40ss@db/orders", "postgres://ann:***@db/orders"),
        ] {
            let url: PostgresUrl = text.parse().expect(text);
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), shown);
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_says_why_and_keeps_the_password_to_itself() {
        for (text, part) in [
            ("postgres://ann:s3cret@db/orders?sslmode=require", "TLS"),
            ("postgres://ann:s3cret@db/orders?sslmode=verify-full", "not built"),
            ("postgres://ann:s3cret@db/orders?schema=", "schema"),
            ("postgres://ann:s3cret@db:port/orders", "port"),
            ("postgres://ann:s3cret@db/orders?colour=red", "colour"),
            ("postgres:///orders", "no host"),
        ] {
            let error = text.parse::<PostgresUrl>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn the_schema_is_taken_from_the_url() {
        let url: PostgresUrl = "postgres://db/orders?connect_timeout=2&schema=shop"
            .parse()
            .expect("a URL");
        assert_eq!(url.schema(), Some("shop"));
        let config = url.config(Duration::from_secs(5));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(2)));
    }
}
