//! SCRAM-SHA-256 (RFC 5802, RFC 7677): a password is proved without being sent, and the server proves that it
//! knows it too.
//!
//! Nonces come from the caller, as randomness is an input. Names and passwords are compared as given, without
//! SASLprep: that is exact for ASCII. Channel binding is not offered.

mod base64;
mod sha256;

use bytes::Bytes;
use sha256::{hmac, pbkdf2, sha256};
use std::fmt;

/// More iterations than this are refused by a client: a hostile server must not burn its time.
const MAX_ITERATIONS: u32 = 600_000;

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScramError {
    /// A message has not the form the mechanism demands.
    Malformed,
    /// The client demands channel binding or an extension.
    Unsupported,
    /// The nonce was changed on the way.
    Nonce,
    /// The proof is wrong: not the right password.
    Proof,
}

impl fmt::Display for ScramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed SCRAM message",
            Self::Unsupported => "channel binding or an extension is demanded",
            Self::Nonce => "the nonce does not match",
            Self::Proof => "the proof is wrong",
        })
    }
}

impl std::error::Error for ScramError {}

/// What a server keeps instead of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    /// Random bytes, of this user alone.
    pub salt: Vec<u8>,
    /// Rounds of stretching; RFC 7677 demands at least 4,096.
    pub iterations: u32,
    /// Checks the client's proof.
    pub stored_key: [u8; 32],
    /// Signs the server's proof.
    pub server_key: [u8; 32],
}

impl fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramCredential")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

impl ScramCredential {
    /// Derives the credential. Takes milliseconds: do it once per user, not per connection.
    #[must_use]
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = pbkdf2(password.as_bytes(), salt, iterations);
        Self {
            salt: salt.to_vec(),
            iterations,
            stored_key: sha256(&hmac(&salted, b"Client Key")),
            server_key: hmac(&salted, b"Server Key"),
        }
    }
}

/// The server's side of one exchange.
#[derive(Debug)]
pub struct ScramServer {
    user: String,
    authorization_id: Option<String>,
    /// The header of the client's first message, which its last must repeat.
    header: String,
    nonce: String,
    /// All that was said and is signed.
    transcript: String,
}

impl ScramServer {
    /// Reads the client's first message. `nonce` is the server's part: printable ASCII without comma, of at
    /// least 18 random characters.
    ///
    /// # Errors
    /// `Malformed`, or `Unsupported` if the client demands channel binding or an extension.
    pub fn begin(client_first: &[u8], nonce: &str) -> Result<Self, ScramError> {
        let text = std::str::from_utf8(client_first).map_err(|_| ScramError::Malformed)?;
        let (flag, rest) = text.split_once(',').ok_or(ScramError::Malformed)?;
        let (authorization_id, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        if !matches!(flag, "n" | "y") || bare.starts_with("m=") {
            return Err(ScramError::Unsupported);
        }
        let mut fields = bare.split(',');
        let user = unescape(field(fields.next(), "n=")?)?;
        let client_nonce = field(fields.next(), "r=")?;
        let authorization_id = match authorization_id {
            "" => None,
            _ => Some(unescape(field(Some(authorization_id), "a=")?)?),
        };
        if client_nonce.is_empty() {
            return Err(ScramError::Malformed);
        }
        Ok(Self {
            user,
            authorization_id,
            header: text.split_at(text.len() - bare.len()).0.to_owned(),
            nonce: format!("{client_nonce}{nonce}"),
            transcript: bare.to_owned(),
        })
    }

    /// Who wants to enter.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whom the user wants to act as, if not itself.
    #[must_use]
    pub fn authorization_id(&self) -> Option<&str> {
        self.authorization_id.as_deref()
    }

    /// The challenge. For a user that does not exist, give a credential of a made-up password, with a salt
    /// that stays the same for the name: the answer must not tell who exists.
    pub fn challenge(&mut self, credential: &ScramCredential) -> Bytes {
        let salt = base64::encode(&credential.salt);
        let challenge = format!("r={},s={salt},i={}", self.nonce, credential.iterations);
        self.transcript = format!("{},{challenge}", self.transcript);
        challenge.into()
    }

    /// Checks the client's last message; gives the server's proof, to be sent with the outcome.
    ///
    /// # Errors
    /// `Malformed`, `Nonce`, or `Proof`: the client is not who it says.
    pub fn finish(mut self, client_final: &[u8], credential: &ScramCredential) -> Result<Bytes, ScramError> {
        let text = std::str::from_utf8(client_final).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut fields = without_proof.split(',');
        let header = base64::decode(field(fields.next(), "c=")?).ok_or(ScramError::Malformed)?;
        if header != self.header.as_bytes() {
            return Err(ScramError::Malformed);
        }
        if field(fields.next(), "r=")? != self.nonce {
            return Err(ScramError::Nonce);
        }
        let proof = base64::decode(proof).ok_or(ScramError::Malformed)?;
        let proof = <[u8; 32]>::try_from(proof).map_err(|_| ScramError::Malformed)?;
        self.transcript = format!("{},{without_proof}", self.transcript);
        let signature = hmac(&credential.stored_key, self.transcript.as_bytes());
        if !same(&sha256(&xor(&proof, &signature)), &credential.stored_key) {
            return Err(ScramError::Proof);
        }
        let proof = hmac(&credential.server_key, self.transcript.as_bytes());
        Ok(format!("v={}", base64::encode(&proof)).into())
    }
}

/// The client's side of one exchange.
pub struct ScramClient {
    password: String,
    nonce: String,
    transcript: String,
    server_proof: [u8; 32],
}

impl fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramClient").finish_non_exhaustive()
    }
}

impl ScramClient {
    /// Starts; also gives the first message, the `initial_response` of [`crate::Sasl::Custom`]. `nonce` is
    /// printable ASCII without comma, of at least 18 random characters.
    #[must_use]
    pub fn begin(user: &str, password: &str, nonce: &str) -> (Self, Bytes) {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let transcript = format!("n={user},r={nonce}");
        let first = format!("n,,{transcript}").into();
        let client = Self {
            password: password.to_owned(),
            nonce: nonce.to_owned(),
            transcript,
            server_proof: [0; 32],
        };
        (client, first)
    }

    /// Answers the challenge.
    ///
    /// # Errors
    /// `Malformed`, `Nonce`, or `Unsupported` if it demands more work than is reasonable, or too little.
    pub fn respond(&mut self, challenge: &[u8]) -> Result<Bytes, ScramError> {
        let challenge = std::str::from_utf8(challenge).map_err(|_| ScramError::Malformed)?;
        let mut fields = challenge.split(',');
        let nonce = field(fields.next(), "r=")?;
        let salt = base64::decode(field(fields.next(), "s=")?).ok_or(ScramError::Malformed)?;
        let iterations = field(fields.next(), "i=")?
            .parse()
            .map_err(|_| ScramError::Malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        if !(4_096..=MAX_ITERATIONS).contains(&iterations) {
            return Err(ScramError::Unsupported);
        }
        let without_proof = format!("c={},r={nonce}", base64::encode(b"n,,"));
        self.transcript = format!("{},{challenge},{without_proof}", self.transcript);
        let salted = pbkdf2(self.password.as_bytes(), &salt, iterations);
        let client_key = hmac(&salted, b"Client Key");
        let signature = hmac(&sha256(&client_key), self.transcript.as_bytes());
        self.server_proof = hmac(&hmac(&salted, b"Server Key"), self.transcript.as_bytes());
        let proof = base64::encode(&xor(&client_key, &signature));
        Ok(format!("{without_proof},p={proof}").into())
    }

    /// Checks the server's proof, the additional data of the outcome.
    ///
    /// # Errors
    /// `Malformed`, or `Proof`: the server does not know the password.
    pub fn verify(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let text = std::str::from_utf8(server_final).map_err(|_| ScramError::Malformed)?;
        let proof = base64::decode(field(text.split(',').next(), "v=")?).ok_or(ScramError::Malformed)?;
        let answered = self.server_proof != [0; 32];
        if answered && same(&proof, &self.server_proof) {
            Ok(())
        } else {
            Err(ScramError::Proof)
        }
    }
}

fn field<'a>(field: Option<&'a str>, name: &str) -> Result<&'a str, ScramError> {
    field
        .and_then(|field| field.strip_prefix(name))
        .ok_or(ScramError::Malformed)
}

fn unescape(name: &str) -> Result<String, ScramError> {
    let rest = name.replace("=2C", "").replace("=3D", "");
    if rest.contains('=') {
        return Err(ScramError::Malformed);
    }
    Ok(name.replace("=2C", ",").replace("=3D", "="))
}

fn xor(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut out = *a;
    out.iter_mut().zip(b).for_each(|(out, b)| *out ^= b);
    out
}

/// Compares without telling by its time how far two secrets agree.
fn same(a: &[u8], b: &[u8; 32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

    fn credential(password: &str) -> ScramCredential {
        ScramCredential::derive(
            password,
            &base64::decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
            4_096,
        )
    }

    #[test]
    fn the_exchange_published_in_rfc_7677_is_reproduced_on_both_sides() {
        let (mut client, first) = ScramClient::begin("user", "pencil", CLIENT_NONCE);
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let mut server = ScramServer::begin(&first, SERVER_NONCE).unwrap();
        assert_eq!((server.user(), server.authorization_id()), ("user", None));
        let credential = credential("pencil");
        let challenge = server.challenge(&credential);
        let published =
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(challenge, published);
        let response = client.respond(&challenge).unwrap();
        let published = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(response, published);
        let proof = server.finish(&response, &credential).unwrap();
        assert_eq!(proof, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(client.verify(&proof), Ok(()));
        assert_eq!(client.verify(b"v=AAAA"), Err(ScramError::Proof));
    }

    #[test]
    fn a_wrong_password_and_a_changed_nonce_are_refused() {
        let credential = credential("pencil");
        for (password, tamper, error) in [
            ("pen", false, ScramError::Proof),
            ("pencil", true, ScramError::Nonce),
        ] {
            let (mut client, first) = ScramClient::begin("user", password, CLIENT_NONCE);
            let mut server = ScramServer::begin(&first, SERVER_NONCE).unwrap();
            let mut challenge = server.challenge(&credential).to_vec();
            if tamper {
                challenge[25] ^= 1;
            }
            let response = client.respond(&challenge).unwrap();
            assert_eq!(server.finish(&response, &credential), Err(error));
        }
    }

    #[test]
    fn names_with_commas_and_equals_signs_survive() {
        let (_, first) = ScramClient::begin("a=b,c", "x", "nonce");
        assert_eq!(ScramServer::begin(&first, "s").unwrap().user(), "a=b,c");
        let server = ScramServer::begin(b"n,a=boss,n=me,r=abc", "s").unwrap();
        assert_eq!(server.authorization_id(), Some("boss"));
    }

    #[test]
    fn malformed_messages_are_refused() {
        let cases: [&[u8]; 7] = [
            b"",
            b"n,,",
            b"n,,n=user",
            b"n,,r=x,n=user",
            b"n,,n=u=ser,r=x",
            b"n,,n=user,r=",
            b"\xff,,n=user,r=x",
        ];
        for first in cases {
            assert!(
                matches!(ScramServer::begin(first, "s"), Err(ScramError::Malformed)),
                "{first:?}"
            );
        }
        let binding = ScramServer::begin(b"p=tls-unique,,n=user,r=x", "s");
        assert!(matches!(binding, Err(ScramError::Unsupported)));
        let (mut client, _) = ScramClient::begin("u", "p", "nonce");
        assert_eq!(
            client.respond(b"r=nonce1,s=AAAA,i=4294967295"),
            Err(ScramError::Unsupported)
        );
        assert_eq!(
            client.respond(b"r=nonce1,s=AAAA,i=1"),
            Err(ScramError::Unsupported)
        );
        assert_eq!(client.respond(b"r=nonce,s=AAAA,i=4096"), Err(ScramError::Nonce));
        assert_eq!(client.respond(b"r=other,s=AAAA,i=4096"), Err(ScramError::Nonce));
        assert_eq!(
            client.verify(b"v=AAAA"),
            Err(ScramError::Proof),
            "nothing was answered yet"
        );
    }
}
