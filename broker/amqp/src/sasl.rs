//! SASL frames and credentials. Who may enter is the owner's decision; this module only reads and writes.

use crate::desc;
use crate::read::{DecodeError, Reader};
use crate::value::Symbol;
use crate::write::{ListWriter, put_binary, put_string, put_symbols, put_ubyte};
use bytes::Bytes;

type Result<T> = std::result::Result<T, DecodeError>;

/// Mechanism names.
pub mod mechanism {
    use crate::value::Symbol;
    /// No identity.
    pub const ANONYMOUS: Symbol = Symbol::from_static("ANONYMOUS");
    /// User and password in clear text.
    pub const PLAIN: Symbol = Symbol::from_static("PLAIN");
    /// The identity of the layer below, such as a TLS client certificate.
    pub const EXTERNAL: Symbol = Symbol::from_static("EXTERNAL");
    /// Salted challenge and response, RFC 7677.
    pub const SCRAM_SHA_256: Symbol = Symbol::from_static("SCRAM-SHA-256");
}

/// Whether and how a connection starts with SASL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sasl {
    /// No SASL layer.
    None,
    /// Server: offer these mechanisms.
    Server {
        /// Offered, best first.
        mechanisms: Vec<Symbol>,
        /// Turn away clients that begin without SASL. If false, one port serves both kinds.
        required: bool,
    },
    /// Client: no identity.
    Anonymous,
    /// Client: user and password in clear text; use it over TLS only.
    Plain {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// Client: the identity of the layer below.
    External,
    /// Client: another mechanism; the owner answers `Event::SaslChallenge`.
    Custom {
        /// Its name.
        mechanism: Symbol,
        /// The first response, if the mechanism has one.
        initial_response: Option<Bytes>,
    },
}

impl Sasl {
    /// The client's mechanism and first response.
    pub(crate) fn client_init(&self) -> Option<(Symbol, Option<Bytes>)> {
        match self {
            Self::None | Self::Server { .. } => None,
            Self::Anonymous => Some((mechanism::ANONYMOUS, None)),
            Self::External => Some((mechanism::EXTERNAL, Some(Bytes::new()))),
            Self::Plain { user, password } => Some((
                mechanism::PLAIN,
                Some(Bytes::from(format!("\0{user}\0{password}"))),
            )),
            Self::Custom {
                mechanism,
                initial_response,
            } => Some((mechanism.clone(), initial_response.clone())),
        }
    }
}

/// What a client presents.
#[derive(Clone, PartialEq, Eq)]
pub struct SaslInit {
    /// The mechanism it chose.
    pub mechanism: Symbol,
    /// The virtual host it wants.
    pub hostname: Option<String>,
    /// The rest, by mechanism.
    pub credentials: Credentials,
}

/// Credentials by mechanism.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// ANONYMOUS.
    Anonymous {
        /// A free text of the client.
        trace: Option<String>,
    },
    /// PLAIN.
    Plain {
        /// Whom to act as; empty for the user itself.
        authorization_id: String,
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// EXTERNAL.
    External {
        /// Whom to act as; none for the identity of the layer below.
        authorization_id: Option<String>,
    },
    /// Any other mechanism.
    Other {
        /// The first response.
        response: Option<Bytes>,
    },
}

impl std::fmt::Debug for SaslInit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SaslInit")
            .field("mechanism", &self.mechanism)
            .field("hostname", &self.hostname)
            .field("credentials", &self.credentials)
            .finish()
    }
}

impl std::fmt::Debug for Credentials {
    /// Passwords and responses stay out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous { trace } => f.debug_struct("Anonymous").field("trace", trace).finish(),
            Self::Plain { user, .. } => f
                .debug_struct("Plain")
                .field("user", user)
                .finish_non_exhaustive(),
            Self::External { authorization_id } => f
                .debug_struct("External")
                .field("authorization_id", authorization_id)
                .finish(),
            Self::Other { .. } => f.debug_struct("Other").finish_non_exhaustive(),
        }
    }
}

/// The result of authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslCode {
    /// Authenticated.
    Ok,
    /// Wrong credentials.
    Auth,
    /// The server failed.
    Sys,
    /// The server failed for good.
    SysPerm,
    /// The server failed for now.
    SysTemp,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SaslFrame {
    Mechanisms(Vec<Symbol>),
    Init {
        mechanism: Symbol,
        response: Option<Bytes>,
        hostname: Option<String>,
    },
    Challenge(Bytes),
    Response(Bytes),
    Outcome {
        code: SaslCode,
        additional: Option<Bytes>,
    },
}

impl SaslFrame {
    pub(crate) fn decode(body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let code = reader.descriptor()?;
        let mut list = reader.list()?;
        let bytes = |slice: Option<&[u8]>| slice.map(Bytes::copy_from_slice);
        Ok(match code {
            desc::SASL_MECHANISMS => Self::Mechanisms(list.symbols("sasl-server-mechanisms")?),
            desc::SASL_INIT => Self::Init {
                mechanism: list
                    .symbol("mechanism")?
                    .ok_or(DecodeError::Missing("mechanism"))?,
                response: bytes(list.binary("initial-response")?),
                hostname: list.string("hostname")?,
            },
            desc::SASL_CHALLENGE => Self::Challenge(bytes(list.binary("challenge")?).unwrap_or_default()),
            desc::SASL_RESPONSE => Self::Response(bytes(list.binary("response")?).unwrap_or_default()),
            desc::SASL_OUTCOME => Self::Outcome {
                code: match list.ubyte("code")?.ok_or(DecodeError::Missing("code"))? {
                    0 => SaslCode::Ok,
                    1 => SaslCode::Auth,
                    2 => SaslCode::Sys,
                    3 => SaslCode::SysPerm,
                    4 => SaslCode::SysTemp,
                    _ => return Err(DecodeError::Range("code")),
                },
                additional: bytes(list.binary("additional-data")?),
            },
            _ => return Err(DecodeError::Descriptor),
        })
    }

    pub(crate) fn encode(&self, buf: &mut Vec<u8>) {
        match self {
            Self::Mechanisms(mechanisms) => {
                let mut list = ListWriter::described(buf, desc::SASL_MECHANISMS);
                list.with(|buf| put_symbols(buf, mechanisms));
                list.finish();
            }
            Self::Init {
                mechanism,
                response,
                hostname,
            } => {
                let mut list = ListWriter::described(buf, desc::SASL_INIT);
                list.symbol(Some(mechanism));
                list.option(response.as_ref(), |buf, bytes| put_binary(buf, bytes));
                list.option(hostname.as_deref(), put_string);
                list.finish();
            }
            Self::Challenge(bytes) => put_one(buf, desc::SASL_CHALLENGE, bytes),
            Self::Response(bytes) => put_one(buf, desc::SASL_RESPONSE, bytes),
            Self::Outcome { code, additional } => {
                let mut list = ListWriter::described(buf, desc::SASL_OUTCOME);
                list.with(|buf| put_ubyte(buf, *code as u8));
                list.option(additional.as_ref(), |buf, bytes| put_binary(buf, bytes));
                list.finish();
            }
        }
    }
}

fn put_one(buf: &mut Vec<u8>, descriptor: u64, bytes: &[u8]) {
    let mut list = ListWriter::described(buf, descriptor);
    list.with(|buf| put_binary(buf, bytes));
    list.finish();
}

/// Splits the first response by mechanism; `None` if it has not the form the mechanism demands.
pub(crate) fn credentials(mechanism: &Symbol, response: Option<Bytes>) -> Option<Credentials> {
    let as_text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    if *mechanism == *"ANONYMOUS" {
        let trace = response
            .as_deref()
            .and_then(as_text)
            .filter(|text| !text.is_empty());
        return Some(Credentials::Anonymous { trace });
    }
    if *mechanism == *"EXTERNAL" {
        let id = response.as_deref().map_or(Some(String::new()), as_text)?;
        return Some(Credentials::External {
            authorization_id: (!id.is_empty()).then_some(id),
        });
    }
    if *mechanism == *"PLAIN" {
        let response = response?;
        let parts: Vec<&[u8]> = response.split(|byte| *byte == 0).collect();
        let [authorization_id, user, password] = parts[..] else {
            return None;
        };
        return Some(Credentials::Plain {
            authorization_id: as_text(authorization_id)?,
            user: as_text(user)?,
            password: as_text(password)?,
        });
    }
    Some(Credentials::Other { response })
}
