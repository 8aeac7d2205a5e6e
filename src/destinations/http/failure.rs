//! Failures without an answer, in plain words: what the operator reads in the delivery's attempts.

use std::{error::Error, io, iter, time::Duration};

use hookmill_actors::ports::transport::{AttemptReport, Timings, Verdict};
use hyper_util::client::legacy;

use super::super::egress::connector::ConnectError;

/// Bytes of an error that are kept: twelve attempts make one stored record, which must stay small.
const ERROR_BYTES_MAX: usize = 200;

/// The report of an attempt that got no answer because of `error`.
pub(super) fn report(error: &legacy::Error) -> AttemptReport {
    let (verdict, words) = causes(error)
        .find_map(known)
        .unwrap_or_else(|| (RETRY, format!("the exchange failed: {}", causes(error).last().unwrap_or(error))));
    unanswered(verdict, words)
}

/// The report of an attempt whose total time ran out.
pub(super) fn timed_out(limit: Duration) -> AttemptReport {
    unanswered(RETRY, format!("no answer within {} ms", limit.as_millis()))
}

const RETRY: Verdict = Verdict::Retry { after: None };

fn unanswered(verdict: Verdict, mut words: String) -> AttemptReport {
    words.truncate(words.floor_char_boundary(ERROR_BYTES_MAX));
    AttemptReport { verdict, status: None, error: Some(words), reply: None, timings: Timings::default() }
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
            _ => Some((verdict, error.to_string())),
        };
    }
    let words = if let Some(error) = error.downcast_ref::<rustls::Error>() {
        match error {
            rustls::Error::InvalidCertificate(why) => format!("certificate not trusted: {why}"),
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
