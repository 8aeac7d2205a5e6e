//! The text that is signed: literals and the parts of a request, put together without copying.

use hookmill_actors::ports::provider::InboundRequest;

/// A longer template is a mistake, and every part costs each request.
const TEMPLATE_BYTES_MAX: usize = 512;
const PARTS_MAX: usize = 16;

/// A compiled template; holds `{body}` exactly once.
pub(crate) struct Template {
    parts: Vec<Part>,
}

/// One piece of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(Box<[u8]>),
    Body,
    Timestamp,
    Id,
    /// The configured public URL and the request's target.
    Url,
    Method,
    /// The target without its query.
    Path,
}

/// What a request puts into a template.
#[derive(Clone, Copy)]
pub(crate) struct Fill<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) timestamp: &'a [u8],
    pub(crate) id: &'a [u8],
    pub(crate) public_url: &'a [u8],
    pub(crate) target: &'a [u8],
    pub(crate) method: &'a [u8],
}

impl<'a> Fill<'a> {
    /// What a request holds itself; timestamp and id are in headers that settings name.
    pub(crate) fn of_request(request: &InboundRequest<'a>, public_url: &'a [u8]) -> Self {
        Self {
            public_url,
            target: request.target.as_bytes(),
            method: request.method.as_bytes(),
            ..Self::of_post(request.body)
        }
    }

    /// A `POST` that is yet to be sent, so that its target is unknown.
    pub(crate) fn of_post(body: &'a [u8]) -> Self {
        Self { body, timestamp: b"", id: b"", public_url: b"", target: b"", method: b"POST" }
    }

    /// A part's bytes, in two pieces because a URL has two.
    fn pieces(&self, part: &'a Part) -> [&'a [u8]; 2] {
        let piece = match part {
            Part::Literal(bytes) => bytes,
            Part::Body => self.body,
            Part::Timestamp => self.timestamp,
            Part::Id => self.id,
            Part::Url => return [self.public_url, self.target],
            Part::Method => self.method,
            Part::Path => self.target.split(|byte| *byte == b'?').next().unwrap_or_default(),
        };
        [piece, b""]
    }
}

impl Template {
    /// Compiles a template, or says what is wrong with it. A brace that opens no name is itself.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("is {} bytes long; at most {TEMPLATE_BYTES_MAX} may be", text.len()));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let Some(name) = placeholder(rest) else {
                literal.push(first);
                rest = &rest[first.len_utf8()..];
                continue;
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into_bytes().into()));
            }
            parts.push(match name {
                "body" => Part::Body,
                "timestamp" => Part::Timestamp,
                "id" => Part::Id,
                "url" => Part::Url,
                "method" => Part::Method,
                "path" => Part::Path,
                _ => {
                    let known = "{body}, {timestamp}, {id}, {url}, {method} and {path}";
                    return Err(format!("holds {{{name}}}, which is unknown; there are {known}"));
                }
            });
            rest = &rest[name.len() + 2..];
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into_bytes().into()));
        }
        if parts.len() > PARTS_MAX {
            return Err(format!("has {} parts; at most {PARTS_MAX} may be", parts.len()));
        }
        if parts.iter().filter(|part| **part == Part::Body).count() != 1 {
            return Err("must hold {body} exactly once: what is not signed may be anyone's".into());
        }
        Ok(Self { parts })
    }

    /// Whether the part is in it.
    pub(crate) fn has(&self, part: &Part) -> bool {
        self.parts.contains(part)
    }

    /// Whether an id holds the punctuation that ends it here. `a.1` at time `2` and `a` at time `1` would be
    /// signed alike, so such an id proves nothing. Letters, digits, `-` and `_` are taken for parts of ids.
    pub(crate) fn splits_id(&self, id: &[u8]) -> bool {
        self.parts.windows(2).any(|pair| match pair {
            [Part::Id, Part::Literal(end)] => {
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
                !end.first().is_some_and(plain) && id.windows(end.len()).any(|window| window == &**end)
            }
            _ => false,
        })
    }

    /// The signed text, piece by piece.
    pub(crate) fn slices<'a>(&'a self, fill: Fill<'a>) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.parts.iter().flat_map(move |part| fill.pieces(part))
    }
}

/// The name at the start of a text that begins with `{name}`.
fn placeholder(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILL: Fill<'static> = Fill {
        body: b"B",
        timestamp: b"17",
        id: b"i1",
        public_url: b"https://h.example",
        target: b"/p/q?k=v&z=1",
        method: b"POST",
    };

    #[test]
    fn puts_the_parts_together() {
        let table = [
            ("{body}", "B"),
            ("{timestamp}.{body}", "17.B"),
            ("{body}{timestamp}", "B17"),
            ("v2:{id}|{timestamp}:{body}!", "v2:i1|17:B!"),
            ("{method}\n{path}\n{body}", "POST\n/p/q\nB"),
            ("{url}{body}", "https://h.example/p/q?k=v&z=1B"),
            ("{\"d\":{body}}", "{\"d\":B}"),
            ("{{body}}é{}", "{B}é{}"),
        ];
        for (template, want) in table {
            let template_parts = Template::parse(template).expect("parses");
            let text: Vec<u8> = template_parts.slices(FILL).flatten().copied().collect();
            assert_eq!(String::from_utf8_lossy(&text), want, "{template}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let fault = |text: &str| Template::parse(text).err().expect("refused");
        assert!(fault("{bdy}").contains("{bdy}"));
        for text in ["", "{timestamp}", "{body}{body}"] {
            assert!(fault(text).contains("{body} exactly once"), "{text}");
        }
        assert!(fault(&format!("{{body}}{}", "{id}".repeat(16))).contains("17 parts"));
        assert!(fault(&"x".repeat(513)).contains("513 bytes"));
    }

    #[test]
    fn an_id_must_not_hold_its_own_end() {
        let splits = |template: &str, id: &[u8]| Template::parse(template).expect("parses").splits_id(id);
        assert!(splits("{id}.{timestamp}.{body}", b"a.1"));
        assert!(!splits("{id}.{timestamp}.{body}", b"a-1"));
        assert!(splits("{id}::{body}", b"a::b"));
        assert!(!splits("{id}::{body}", b"a:b"));
        assert!(!splits("{id}-{body}", b"5ccbd78b-df99"));
        assert!(!splits("{body}.{id}", b"a.1"));
    }

    proptest! {
        #[test]
        fn any_text_parses_or_not(text in "[{}a-z_ .é]{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                let filled: Vec<u8> = template.slices(FILL).flatten().copied().collect();
                prop_assert!(filled.contains(&b'B'));
            }
        }
    }
}
