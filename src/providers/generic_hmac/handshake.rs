//! The three ways in which providers ask whether an endpoint is ours: `hub.challenge` (`WebSub`, Meta),
//! `echo_json` (Slack) and `crc` (X, Zoom). What is sent back came from outside, so it is short plain text.

use hookmill_actors::ports::provider::{InboundRequest, Reply, SettingsError};
use serde::Deserialize;
use subtle::ConstantTimeEq;

use super::{
    super::{
        payload,
        signature::{Encoding, Key},
    },
    HANDSHAKE_FIELD_DEFAULT,
};

/// Bytes of a challenge that are sent back.
const CHALLENGE_BYTES_MAX: usize = 1_024;
/// A larger body is an event: it is not parsed to find out.
const ECHO_BODY_BYTES_MAX: usize = 4_096;

/// The setting `handshake`.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    None,
    #[serde(rename = "hub.challenge")]
    HubChallenge,
    EchoJson,
    Crc,
}

/// A handshake with what it needs.
pub(super) enum Handshake {
    None,
    HubChallenge { verify_token: String },
    EchoJson { field: String },
    Crc,
}

impl Handshake {
    /// Takes the settings together; a member of another kind of handshake is a mistake.
    pub(super) fn new(kind: Kind, field: Option<String>, verify_token: Option<String>) -> Result<Self, SettingsError> {
        if field.is_some() && kind != Kind::EchoJson {
            return Err(SettingsError::new("handshake_field", "belongs to the handshake `echo_json`"));
        }
        if verify_token.is_some() && kind != Kind::HubChallenge {
            return Err(SettingsError::new("verify_token", "belongs to the handshake `hub.challenge`"));
        }
        Ok(match kind {
            Kind::None => Self::None,
            Kind::HubChallenge => match verify_token.filter(|token| !token.is_empty()) {
                Some(verify_token) => Self::HubChallenge { verify_token },
                None => {
                    return Err(SettingsError::new("verify_token", "must be set for the handshake `hub.challenge`"));
                }
            },
            Kind::EchoJson => Self::EchoJson { field: field.unwrap_or_else(|| HANDSHAKE_FIELD_DEFAULT.into()) },
            Kind::Crc => Self::Crc,
        })
    }

    pub(super) fn answers_get(&self) -> bool {
        matches!(self, Self::HubChallenge { .. } | Self::Crc)
    }

    /// The reply, where the request is such a handshake and all of it is right.
    pub(super) fn answer(&self, request: &InboundRequest<'_>, key: &Key) -> Option<Reply> {
        match (self, request.method) {
            (Self::HubChallenge { verify_token }, "GET") => {
                let mode = parameter(request.target, "hub.mode")?;
                let token = parameter(request.target, "hub.verify_token")?;
                let challenge = parameter(request.target, "hub.challenge")?;
                let is_ours = mode == b"subscribe" && bool::from(token.ct_eq(verify_token.as_bytes()));
                is_ours.then(|| echo(challenge)).flatten()
            }
            (Self::EchoJson { field }, "POST") => echo(challenge_of(request.body, field)?),
            (Self::Crc, "GET") => crc(&parameter(request.target, "crc_token")?, key),
            _ => None,
        }
    }
}

fn echo(challenge: Vec<u8>) -> Option<Reply> {
    let fits = (1..=CHALLENGE_BYTES_MAX).contains(&challenge.len());
    fits.then_some(Reply { status: 200, content_type: "text/plain", body: challenge })
}

/// The challenge of a body that is a handshake: it says `"type":"url_verification"`, or holds nothing else. An
/// event that happens to have a member of that name is none, and must not be swallowed.
fn challenge_of(body: &[u8], field: &str) -> Option<Vec<u8>> {
    if body.len() > ECHO_BODY_BYTES_MAX {
        return None;
    }
    let ([challenge, kind], count) = payload::read(body, [field, "type"])?;
    let is_handshake = kind.as_deref() == Some("url_verification") || count == 1;
    challenge.filter(|_| is_handshake).map(|text| text.into_owned().into_bytes())
}

/// Proves that we know the secret. The same key signs events, so only tokens are answered: whoever could have any
/// text hashed here could sign an event with the answer.
fn crc(token: &[u8], key: &Key) -> Option<Reply> {
    let is_token = (1..=256).contains(&token.len())
        && token.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte));
    is_token.then(|| {
        let digest = Encoding::Base64.encode(key.digest([token]).as_bytes());
        let body = format!(r#"{{"response_token":"sha256={digest}"}}"#).into_bytes();
        Reply { status: 200, content_type: "application/json", body }
    })
}

/// A query parameter that occurs once, decoded.
fn parameter(target: &str, name: &str) -> Option<Vec<u8>> {
    let (_, query) = target.split_once('?')?;
    let mut values = query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decoded(key) == name.as_bytes()).then_some(value)
    });
    let value = values.next()?;
    values.next().is_none().then(|| percent_decoded(value))
}

/// As forms do it: `+` is a space, and an escape that is none stands for itself.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let mut escaped = [0];
        if *first == b'%' && after.len() >= 2 && hex::decode_to_slice(&after[..2], &mut escaped).is_ok() {
            decoded.push(escaped[0]);
            rest = &after[2..];
        } else {
            decoded.push(if *first == b'+' { b' ' } else { *first });
            rest = after;
        }
    }
    decoded
}
