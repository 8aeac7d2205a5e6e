//! What is sent of a consignment, whichever way it goes: the body and its type, and the names that tell what it is.
//! A subscription's transformation takes the arrival's place here, once for all kinds of destinations. Pure.

use bytes::Bytes;
use hookmill_actors::{
    domain::headers::{HeaderBlock, Single},
    ports::transport::Consignment,
};
use hyper::header::HeaderValue;
use serde_json::{Map, Value};

use super::trace::Trace;

/// What an arrival without a content type is.
const UNKNOWN: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// See the module.
pub(super) struct Parcel<'a> {
    pub(super) consignment: &'a Consignment,
    /// The rendered body, or the arrival's, byte for byte.
    pub(super) body: &'a Bytes,
    /// Header lines that the subscription adds.
    pub(super) headers: &'a [(String, String)],
}

impl<'a> Parcel<'a> {
    pub(super) fn new(consignment: &'a Consignment) -> Self {
        match &consignment.rendered {
            Some(rendered) => Self { consignment, body: &rendered.body, headers: &rendered.headers },
            None => Self { consignment, body: &consignment.event.arrival.body, headers: &[] },
        }
    }

    /// The rendered one's, or the arrival's as it came, where it came once.
    pub(super) fn content_type(&self) -> HeaderValue {
        let rendered = self.consignment.rendered.as_ref().and_then(|rendered| rendered.content_type.as_deref());
        match rendered {
            Some(rendered) => HeaderValue::from_str(rendered).unwrap_or(UNKNOWN),
            None => arrived(&self.consignment.event.arrival.headers),
        }
    }

    /// The same as text, for where no header is.
    pub(super) fn content_type_text(&self) -> String {
        String::from_utf8_lossy(self.content_type().as_bytes()).into_owned()
    }

    /// The trace that the delivery belongs to.
    pub(super) fn trace(&self) -> Trace {
        Trace::of(self.consignment.event.id, &self.consignment.event.arrival.headers)
    }

    /// The subscription's headers as an object, where there are any. Of a repeated name the last counts.
    pub(super) fn headers_object(&self) -> Option<Map<String, Value>> {
        let object = || self.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str().into()));
        (!self.headers.is_empty()).then(|| object().collect())
    }
}

fn arrived(headers: &HeaderBlock) -> HeaderValue {
    match headers.single("content-type") {
        // Nearly all of them: spares a copy.
        Single::Value(b"application/json") => HeaderValue::from_static("application/json"),
        Single::Value(value) => HeaderValue::from_bytes(value).unwrap_or(UNKNOWN),
        Single::Absent | Single::Repeated => UNKNOWN,
    }
}
