//! Which endpoint a request path names. Pure.

/// What is below `/webhooks/receive`, as endpoints are looked up: one leading slash, a fixed alphabet, no empty and no
/// dot segments. `None` for any other path; two spellings of one path are never both served, save for the leading
/// slash that operators write in front of their paths.
pub(super) fn endpoint_path(path: &str) -> Option<&str> {
    let path = path.strip_prefix("/webhooks/receive")?;
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
        ] {
            assert_eq!(endpoint_path(path), endpoint, "{path}");
        }
    }
}
