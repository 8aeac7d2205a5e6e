//! Failures without an answer, in plain words: what the operator reads in the delivery's attempts.

use std::{error::Error, io, iter};

use hookmill_actors::ports::transport::{AttemptReport, Timings, Verdict};
use hyper_util::client::legacy;

use super::{
    super::{
        egress::connector::ConnectError,
        report::{RETRY, failed},
    },
    client::certificate_words,
};

/// The report of an attempt that got no answer because of `error`.
pub(super) fn report(error: &legacy::Error, timings: Timings) -> AttemptReport {
    let (verdict, words) = of(error);
    failed(verdict, words, timings)
}

/// What an error means, and its words.
pub(in crate::destinations) fn of(error: &(dyn Error + 'static)) -> (Verdict, String) {
    causes(error)
        .find_map(known)
        .unwrap_or_else(|| (RETRY, format!("the exchange failed: {}", causes(error).last().unwrap_or(error))))
}

/// An error and what caused it, outermost first. An `io::Error` that only wraps another error skips it in
/// `source`, so that one is asked by name.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// The verdict and the words for an error that explains itself; `None` for a mere wrapper.
fn known(error: &(dyn Error + 'static)) -> Option<(Verdict, String)> {
    if let Some(error) = error.downcast_ref::<ConnectError>() {
        let verdict = if error.is_final() { Verdict::Refused } else { RETRY };
        return match error {
            ConnectError::Io(error) => known(error),
            ConnectError::ProxyUnreached(error) => {
                Some((verdict, format!("the proxy cannot be reached: {}", of(&**error).1)))
            }
            _ => Some((verdict, error.to_string())),
        };
    }
    let words = if let Some(error) = error.downcast_ref::<rustls::Error>() {
        match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
                "certificate not trusted: its issuer is not known here; a destination's `ca` names private ones"
                    .to_owned()
            }
            rustls::Error::InvalidCertificate(why) => format!("certificate not trusted: {}", certificate_words(why)),
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => {
                "TLS failed: the other side does not speak TLS at this port".to_owned()
            }
            _ => format!("TLS failed: {error}"),
        }
    } else if let Some(error) = error.downcast_ref::<hyper::Error>() {
        if error.is_incomplete_message() {
            "the connection was closed before an answer came".to_owned()
        } else if error.is_parse_too_large() {
            "the answer's head is too large".to_owned()
        } else if error.is_parse() {
            format!("the answer is not HTTP: {error}")
        } else {
            return None;
        }
    } else {
        let error = error.downcast_ref::<io::Error>().filter(|error| error.get_ref().is_none())?;
        match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
            io::ErrorKind::UnexpectedEof => "the connection was closed before an answer came".to_owned(),
            _ => format!("connection failed: {error}"),
        }
    };
    Some((RETRY, words))
}
