//! Which endpoint a request path names. Pure.

/// Where webhooks are received.
const RECEIVE: &str = "/webhooks/receive";
/// The same where the module that hookmill replaces had it: its senders go on posting there.
const RECEIVE_ORIGINAL: &str = "/integration-management/webhooks/receive";

/// What is below `/webhooks/receive`, as endpoints are looked up: one leading slash, a fixed alphabet, no empty and no
/// dot segments. `None` for any other path; two spellings of one path are never both served, save for the leading
/// slash that operators write in front of their paths, and the original's prefix.
pub(super) fn endpoint_path(path: &str) -> Option<&str> {
    let path = path.strip_prefix(RECEIVE).or_else(|| path.strip_prefix(RECEIVE_ORIGINAL))?;
    let path = if path.starts_with("//") { &path[1..] } else { path };
    let segments = path.strip_prefix('/')?;
    let is_fine = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    segments.split('/').all(is_fine).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_paths_have_one_spelling() {
        for (path, endpoint) in [
            ("/webhooks/receive/a", Some("/a")),
            ("/webhooks/receive//a", Some("/a")),
            ("/webhooks/receive/a/b-c._~D9", Some("/a/b-c._~D9")),
            ("/webhooks/receive///a", None),
            ("/webhooks/receive", None),
            ("/webhooks/receive/", None),
            ("/webhooks/receive//", None),
            ("/webhooks/received", None),
            ("/webhooks/receive/a/", None),
            ("/webhooks/receive/a//b", None),
            ("/webhooks/receive/./a", None),
            ("/webhooks/receive/a/..", None),
            ("/webhooks/receive/..a", Some("/..a")),
            ("/webhooks/receive/%61", None),
            ("/webhooks/receive/a;b", None),
            ("/a", None),
            ("/integration-management/webhooks/receive/a/b", Some("/a/b")),
            ("/integration-management/webhooks/receive//a", Some("/a")),
            ("/integration-management/webhooks/receive", None),
            ("/integration-management/webhooks/receive/a/..", None),
            ("/integration-management/a", None),
            ("/integration-management/integration-management/webhooks/receive/a", None),
            (
                "/webhooks/receive/integration-management/webhooks/receive/a",
                Some("/integration-management/webhooks/receive/a"),
            ),
        ] {
            assert_eq!(endpoint_path(path), endpoint, "{path}");
        }
    }
}
