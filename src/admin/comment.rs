//! The header `Hookmill-Comment`: what the author of a change says of it. It stays with the version that the change makes.

use axum::{
    extract::Request,
    http::HeaderMap,
    middleware::Next,
    response::{IntoResponse, Response},
};
use hookmill_actors::domain::version::Origin;

use super::problem::{Code, Problem};

const HEADER: &str = "hookmill-comment";
/// Comment, characters.
const CHARS_MAX: usize = 500;

tokio::task_local! {
    /// Of the request that is being handled: any of its writes carries it.
    static COMMENT: Option<String>;
}

/// The middleware that reads it for all routes.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    match read(request.headers()) {
        Ok(comment) => COMMENT.scope(comment, next.run(request)).await,
        Err(problem) => problem.into_response(),
    }
}

/// Who makes the change that the request being handled asks for, and why.
pub(super) fn origin(author: &str) -> Origin {
    Origin { comment: COMMENT.try_with(Clone::clone).ok().flatten(), ..Origin::of(author) }
}

fn read(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refused = |detail: &str| Problem::new(Code::InvalidRequest, format!("the header `Hookmill-Comment` {detail}"));
    let mut lines = headers.get_all(HEADER).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(refused("occurs more than once"));
    }
    let text = std::str::from_utf8(line.as_bytes()).map_err(|_| refused("must be UTF-8"))?.trim();
    if text.is_empty() {
        return Err(refused("is empty; leave it out"));
    }
    if text.chars().count() > CHARS_MAX {
        return Err(refused(&format!("must be at most {CHARS_MAX} characters long")));
    }
    // What turns text around is not printable either: a comment is shown beside others.
    let unprintable = |char: char| {
        char.is_control()
            || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    if text.chars().any(unprintable) {
        return Err(refused("must be printable text"));
    }
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn comment(lines: &[&[u8]]) -> Result<Option<String>, String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(HEADER, HeaderValue::from_bytes(line).expect("it is a header's value"));
        }
        read(&headers).map_err(|problem| problem.detail)
    }

    #[test]
    fn a_comment_is_one_bounded_printable_line() {
        assert_eq!(comment(&[]), Ok(None));
        assert_eq!(comment(&[b" new key, HK-12 "]), Ok(Some("new key, HK-12".to_owned())));
        assert_eq!(comment(&["größer".as_bytes()]), Ok(Some("größer".to_owned())));
        let most = "ä".repeat(CHARS_MAX);
        assert_eq!(comment(&[most.as_bytes()]), Ok(Some(most.clone())));
        for (wrong, says) in [
            (vec![b"".as_slice()], "is empty"),
            (vec![b"a", b"b"], "more than once"),
            (vec![b"\xff"], "UTF-8"),
            (vec![b"a\tb"], "printable"),
            (vec!["a\u{202e}b".as_bytes()], "printable"),
            (vec![format!("{most}a").as_bytes()], "at most 500"),
        ] {
            let refused = comment(&wrong).expect_err(says);
            assert!(refused.contains(says), "{refused}");
        }
    }
}
