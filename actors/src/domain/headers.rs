//! Header lines as one flat block of bytes: built once at the socket, stored as it is, searched in place.

use bytes::{BufMut, Bytes, BytesMut};

/// The header lines of a request in the order they came, repeats kept, names in lower case.
///
/// Layout: for each line `name length: u16 BE, value length: u32 BE, name, value`. One allocation for the
/// whole block, because it is made between a sender and its reply.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HeaderBlock(Bytes);

const LENGTHS_BYTES: usize = 6;
/// What is stored in place of a header's value that must not be kept.
pub const REDACTED: &[u8] = b"***";

impl HeaderBlock {
    /// Packs header lines. Lines whose name does not fit 16 bits or whose value does not fit 32 are left out;
    /// the ingress' limits are far below both.
    pub fn from_lines<'a>(lines: impl IntoIterator<Item = (&'a str, &'a [u8])> + Clone) -> Self {
        let total = lines.clone().into_iter().map(|(name, value)| LENGTHS_BYTES + name.len() + value.len()).sum();
        let mut block = BytesMut::with_capacity(total);
        for (name, value) in lines {
            let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
                continue;
            };
            block.put_u16(name_len);
            block.put_u32(value_len);
            let start = block.len();
            block.put_slice(name.as_bytes());
            block[start..].make_ascii_lowercase();
            block.put_slice(value);
        }
        Self(block.freeze())
    }

    /// Takes a stored block back; `None` when the bytes are not one.
    pub fn from_bytes(bytes: Bytes) -> Option<Self> {
        let block = Self(bytes);
        let mut lines = block.iter();
        while lines.next().is_some() {}
        lines.rest.is_empty().then_some(block)
    }

    /// The same lines, with another value in place of those whose name is to be redacted.
    #[must_use]
    pub fn redacted(&self, is_redacted: impl Fn(&str) -> bool + Copy) -> Self {
        if !self.iter().any(|(name, _)| is_redacted(name)) {
            return self.clone();
        }
        let shown = move |(name, value)| if is_redacted(name) { (name, REDACTED) } else { (name, value) };
        Self::from_lines(self.iter().map(shown))
    }

    /// The block as stored.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Every line, in order.
    pub fn iter(&self) -> Lines<'_> {
        Lines { rest: &self.0 }
    }

    /// Every value of a header; `name` in lower case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.iter().filter(move |(line, _)| *line == name).map(|(_, value)| value)
    }

    /// The value of a header that may occur once; `name` in lower case.
    pub fn single<'a>(&'a self, name: &'a str) -> Single<'a> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (None, _) => Single::Absent,
            (Some(value), None) => Single::Value(value),
            (Some(_), Some(_)) => Single::Repeated,
        }
    }
}

impl<'a> IntoIterator for &'a HeaderBlock {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = Lines<'a>;

    fn into_iter(self) -> Lines<'a> {
        self.iter()
    }
}

impl std::fmt::Debug for HeaderBlock {
    /// Names only: values hold signatures and tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// What was found of a header that must not be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Single<'a> {
    /// No such line.
    Absent,
    /// Exactly one.
    Value(&'a [u8]),
    /// Two or more: ambiguous, never guess.
    Repeated,
}

/// Iterator over the lines of a [`HeaderBlock`].
#[derive(Clone)]
pub struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (lengths, rest) = self.rest.split_at_checked(LENGTHS_BYTES)?;
        let name_len = usize::from(u16::from_be_bytes([lengths[0], lengths[1]]));
        let value_len = u32::from_be_bytes([lengths[2], lengths[3], lengths[4], lengths[5]]) as usize;
        let (name, rest) = rest.split_at_checked(name_len)?;
        let (value, rest) = rest.split_at_checked(value_len)?;
        let name = std::str::from_utf8(name).ok()?;
        self.rest = rest;
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_survive(lines in proptest::collection::vec(("[A-Za-z-]{1,20}", proptest::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let block = HeaderBlock::from_lines(lines.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
            let back: Vec<(String, Vec<u8>)> = block.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            let want: Vec<(String, Vec<u8>)> = lines.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
            prop_assert_eq!(back, want);
            prop_assert_eq!(HeaderBlock::from_bytes(block.as_bytes().clone()), Some(block));
        }

        #[test]
        fn any_bytes_are_a_block_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = HeaderBlock::from_bytes(Bytes::from(bytes));
        }
    }

    #[test]
    fn a_repeated_header_is_told_from_one() {
        let block = HeaderBlock::from_lines([("X-A", b"1".as_slice()), ("x-a", b"2"), ("X-B", b"3")]);
        assert_eq!(block.single("x-a"), Single::Repeated);
        assert_eq!(block.single("x-b"), Single::Value(b"3"));
        assert_eq!(block.single("x-c"), Single::Absent);
    }
}
