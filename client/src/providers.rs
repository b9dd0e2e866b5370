//! The list of naming servers: from code, from the environment or from a `jndi.properties` file.
//!
//! It decides what a provider list is. It resolves no host names: that is done afresh at every attempt.
//! A list is never empty.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use daymark_naming_proto::{DEFAULT_PORT, Endpoint, InvalidEndpoint};

use crate::properties::property;

/// The naming servers of one directory, in the order in which they are tried first.
///
/// Text form: `kkam:9736,kkm-PC:9736`, separated by commas, blanks or `;`. A port that is not given is 9736.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Providers(Box<[Endpoint]>);

/// A provider list that cannot be one, or cannot be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProviders {
    /// There is no server in the list.
    #[error("the provider list is empty: give host:port of at least one naming server")]
    Empty,
    /// Neither an argument, nor the environment, nor a file says where the naming servers are.
    #[error(
        "no naming server is known: give a provider list, set {} or put {} into jndi.properties",
        Providers::ENV,
        Providers::PROPERTY
    )]
    NotGiven,
    /// An entry is not `host:port`.
    #[error("in the provider list: {0}")]
    Endpoint(#[from] InvalidEndpoint),
    /// Too many servers.
    #[error("{given} naming servers: at most {} are allowed", Providers::MAX)]
    TooMany {
        /// How many there are.
        given: usize,
    },
    /// The environment variable is not UTF-8.
    #[error("{} is not UTF-8", Providers::ENV)]
    NotUtf8,
    /// The properties file is there and cannot be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
}

impl Providers {
    /// The most servers of one list.
    pub const MAX: usize = 64;
    /// The environment variable that holds a list.
    pub const ENV: &'static str = "DAYMARK_PROVIDER_URL";
    /// The key of a list in a properties file.
    pub const PROPERTY: &'static str = "java.naming.provider.url";
    /// The largest properties file that is read, in bytes.
    const FILE_BYTES_MAX: u64 = 1 << 20;

    /// A list of these servers. One that stands twice is kept once.
    ///
    /// # Errors
    /// `Empty` and `TooMany`.
    pub fn new(servers: impl IntoIterator<Item = Endpoint>) -> Result<Self, InvalidProviders> {
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for server in servers {
            if !endpoints.contains(&server) {
                endpoints.push(server);
            }
        }
        match endpoints.len() {
            0 => Err(InvalidProviders::Empty),
            1..=Self::MAX => Ok(Self(endpoints.into())),
            given => Err(InvalidProviders::TooMany { given }),
        }
    }

    /// The list in the environment variable `DAYMARK_PROVIDER_URL`; `None` where it is not set.
    ///
    /// # Errors
    /// `NotUtf8`, or whatever is wrong with the list.
    pub fn from_env() -> Result<Option<Self>, InvalidProviders> {
        match std::env::var(Self::ENV) {
            Ok(text) => text.parse().map(Some),
            Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => Err(InvalidProviders::NotUtf8),
        }
    }

    /// The list under `java.naming.provider.url` in a properties file; `None` where there is no such file
    /// or no such key. A file that is not UTF-8 is read as ISO-8859-1, as Java does.
    ///
    /// # Errors
    /// `File` where it cannot be read or has more than 1 MiB, or whatever is wrong with the list.
    pub fn from_jndi_properties(path: &Path) -> Result<Option<Self>, InvalidProviders> {
        match read_properties(path)? {
            Some(text) => property(&text, Self::PROPERTY)
                .map(|list| list.parse())
                .transpose(),
            None => Ok(None),
        }
    }

    /// The list that applies: the one given, else the environment's, else the properties file's.
    ///
    /// # Errors
    /// `NotGiven` where there is none, or whatever is wrong with the first one found.
    pub fn discover(given: Option<&str>, jndi_properties: Option<&Path>) -> Result<Self, InvalidProviders> {
        if let Some(given) = given {
            return given.parse();
        }
        if let Some(found) = Self::from_env()? {
            return Ok(found);
        }
        let found = jndi_properties.map(Self::from_jndi_properties).transpose()?;
        found.flatten().ok_or(InvalidProviders::NotGiven)
    }

    /// The servers. There is at least one.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.0
    }
}

fn read_properties(path: &Path) -> Result<Option<String>, InvalidProviders> {
    let refuse = |reason: String| InvalidProviders::File {
        path: path.to_owned(),
        reason,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(Providers::FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(error.to_string()))?;
    if bytes.len() as u64 > Providers::FILE_BYTES_MAX {
        return Err(refuse(format!("more than {} bytes", Providers::FILE_BYTES_MAX)));
    }
    Ok(Some(String::from_utf8(bytes).unwrap_or_else(|error| {
        error.into_bytes().into_iter().map(char::from).collect()
    })))
}

impl FromStr for Providers {
    type Err = InvalidProviders;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | ';'))
            .filter(|entry| !entry.is_empty())
            .map(|entry| Endpoint::parse_or(entry, Some(DEFAULT_PORT)));
        Self::new(entries.collect::<Result<Vec<_>, _>>()?)
    }
}

impl fmt::Display for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            server.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, InvalidProviders> {
        text.parse::<Providers>().map(|list| list.to_string())
    }

    #[test]
    fn commas_blanks_and_semicolons_separate_and_the_port_has_a_default() {
        for text in [
            "kkam:9736,kkm-PC:9736",
            "kkam, kkm-PC",
            " kkam;kkm-PC ",
            "kkam kkm-PC:9736,,",
        ] {
            assert_eq!(parse(text), Ok("kkam:9736,kkm-PC:9736".into()), "{text:?}");
        }
        assert_eq!(parse("[::1] kkam:1"), Ok("[::1]:9736,kkam:1".into()));
    }

    #[test]
    fn an_empty_or_malformed_list_is_refused_by_name() {
        assert_eq!(parse(""), Err(InvalidProviders::Empty));
        assert_eq!(parse(" ,; "), Err(InvalidProviders::Empty));
        let error = parse("kkam:9736,kkm:port").expect_err("no port");
        assert!(error.to_string().contains("\"kkm:port\""), "{error}");
        let many: Vec<String> = (0..65).map(|n| format!("h{n}")).collect();
        assert_eq!(
            parse(&many.join(",")),
            Err(InvalidProviders::TooMany { given: 65 })
        );
    }

    #[test]
    fn a_properties_file_gives_the_list_and_its_absence_is_no_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("jndi.properties");
        assert_eq!(Providers::from_jndi_properties(&path), Ok(None));
        std::fs::write(&path, "java.naming.provider.url = kkam:9736, kkm-PC\n").expect("written");
        let found = Providers::from_jndi_properties(&path).map(|list| list.map(|l| l.to_string()));
        assert_eq!(found, Ok(Some("kkam:9736,kkm-PC:9736".into())));
        std::fs::write(&path, b"x=\xe4\njava.naming.provider.url=\n").expect("written");
        assert_eq!(
            Providers::from_jndi_properties(&path),
            Err(InvalidProviders::Empty)
        );
        assert!(matches!(
            Providers::from_jndi_properties(dir.path()),
            Err(InvalidProviders::File { .. })
        ));
    }

    #[test]
    fn a_given_list_outranks_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("jndi.properties");
        std::fs::write(&path, "java.naming.provider.url=file\n").expect("written");
        let given = Providers::discover(Some("given"), Some(&path)).map(|list| list.to_string());
        assert_eq!(given, Ok("given:9736".into()));
    }
}
