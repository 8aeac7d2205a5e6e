//! On real files, with crashes made by hand.

use std::{fs, os::unix::fs::symlink, path::Path};

use tempfile::TempDir;

use super::*;

const POLICY: Policy = Policy { rotate_bytes: None, rotate_every_ms: None, keep: 3, sync: Sync::Always };
const NOW_MS: u64 = 1_767_225_600_123;

fn appender(root: &Path, path: &str) -> Appender {
    Appender::new(Place::new(root, path).unwrap())
}

fn line(text: &str) -> Vec<u8> {
    format!("{{\"id\":\"{text}\"}}\n").into_bytes()
}

fn read(root: &TempDir, path: &str) -> String {
    fs::read_to_string(root.path().join(path)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_at_once_are_all_there_and_whole() {
    let root = TempDir::new().unwrap();
    let appender = Arc::new(appender(root.path(), "a/b/events.jsonl"));
    let tasks: Vec<_> = (0..500)
        .map(|number| {
            let appender = appender.clone();
            tokio::spawn(async move { appender.append(line(&number.to_string()), POLICY, NOW_MS).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let text = read(&root, "a/b/events.jsonl");
    let ids: std::collections::BTreeSet<u32> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!((ids.len(), text.lines().count()), (500, 500));
}

#[tokio::test]
async fn a_line_torn_by_a_crash_is_taken_off_before_the_next() {
    let root = TempDir::new().unwrap();
    for torn in ["{", "{\"id\":\"01", "{\"id\":\"01\",\"body\":\"x"] {
        let path = root.path().join("events.jsonl");
        fs::write(&path, [line("1"), torn.as_bytes().to_vec()].concat()).unwrap();
        appender(root.path(), "events.jsonl").append(line("2"), POLICY, NOW_MS).await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), [line("1"), line("2")].concat(), "{torn}");
    }
    // The only line of a file, and one longer than what is read at once.
    let long = format!("{{\"id\":\"{}", "x".repeat(3 * CHUNK_BYTES));
    fs::write(root.path().join("one.jsonl"), long).unwrap();
    appender(root.path(), "one.jsonl").append(line("2"), POLICY, NOW_MS).await.unwrap();
    assert_eq!(read(&root, "one.jsonl").as_bytes(), line("2"));
}

#[tokio::test]
async fn a_file_of_somebody_else_is_left_as_it_is() {
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("notes.txt"), "dear diary").unwrap();
    let refused = appender(root.path(), "notes.txt").append(line("1"), POLICY, NOW_MS).await.unwrap_err();
    assert!(refused.contains("not hookmill's"), "{refused}");
    assert_eq!(read(&root, "notes.txt"), "dear diary");

    let first = appender(root.path(), "shared.jsonl");
    first.append(line("1"), POLICY, NOW_MS).await.unwrap();
    let refused = appender(root.path(), "shared.jsonl").append(line("2"), POLICY, NOW_MS).await.unwrap_err();
    assert!(refused.contains("another process"), "{refused}");
}

#[tokio::test]
async fn no_link_leads_out() {
    let (root, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(outside.path().join("target"), "").unwrap();
    symlink(outside.path(), root.path().join("folder")).unwrap();
    symlink(outside.path().join("target"), root.path().join("file")).unwrap();
    for path in ["folder/x", "file"] {
        let refused = appender(root.path(), path).append(line("1"), POLICY, NOW_MS).await.unwrap_err();
        assert_eq!(refused, LINK, "{path}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.path().join("target")).unwrap(), "");
    let missing = root.path().join("not-mounted");
    let refused = appender(&missing, "x").append(line("1"), POLICY, NOW_MS).await.unwrap_err();
    assert!(refused.contains("destinations.file_directory") && !missing.exists(), "{refused}");
}

#[tokio::test]
async fn a_full_file_is_rotated_and_so_many_are_kept() {
    let root = TempDir::new().unwrap();
    let policy = Policy { rotate_bytes: Some(2 * line("0").len() as u64), keep: 2, ..POLICY };
    let appender = appender(root.path(), "e.jsonl");
    for number in 0..9 {
        appender.append(line(&number.to_string()), policy, NOW_MS).await.unwrap();
    }
    let ids = |name: &str| read(&root, name).matches(char::is_numeric).collect::<String>();
    assert_eq!([ids("e.jsonl"), ids("e.jsonl.1"), ids("e.jsonl.2")], ["8", "67", "45"]);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
}

#[tokio::test]
async fn a_new_file_begins_with_each_period() {
    let root = TempDir::new().unwrap();
    let hour = 3_600_000;
    let policy = Policy { rotate_every_ms: Some(hour), ..POLICY };
    let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    let begin = now_ms - now_ms % hour;
    let appended = async |appender: &Appender, id: &str, at| appender.append(line(id), policy, at).await.unwrap();
    let first = appender(root.path(), "e.jsonl");
    appended(&first, "1", begin).await;
    appended(&first, "2", begin + hour - 1).await;
    appended(&first, "3", begin + hour).await;
    // A clock that goes back rotates nothing.
    appended(&first, "4", begin).await;
    assert_eq!(read(&root, "e.jsonl.1").lines().count(), 2);
    drop(first);
    // After a restart the file's own time counts.
    appended(&appender(root.path(), "e.jsonl"), "5", begin + 2 * hour).await;
    assert_eq!(read(&root, "e.jsonl").as_bytes(), line("5"));
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_begun_anew() {
    let root = TempDir::new().unwrap();
    let appender = appender(root.path(), "e.jsonl");
    appender.append(line("1"), POLICY, NOW_MS).await.unwrap();
    fs::rename(root.path().join("e.jsonl"), root.path().join("taken")).unwrap();
    appender.append(line("2"), POLICY, NOW_MS).await.unwrap();
    assert_eq!(read(&root, "taken").as_bytes(), line("1"));
    assert_eq!(read(&root, "e.jsonl").as_bytes(), line("2"));
}

#[test]
fn a_full_disk_is_said_in_words() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let error = (&full).write_all(b"x").unwrap_err();
    assert_eq!(words(&error), "the disk is full");
}

proptest::proptest! {
    #[test]
    fn mending_leaves_whole_lines_only(lines in proptest::collection::vec("[a-z]{0,30}", 0..5), cut in 0usize..400) {
        let root = TempDir::new().unwrap();
        let whole: Vec<u8> = lines.iter().flat_map(|text| line(text)).collect();
        let kept = &whole[..whole.len() - cut.min(whole.len())];
        let path = root.path().join("e.jsonl");
        fs::write(&path, kept).unwrap();
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let length = mended(&file).unwrap();
        let after = fs::read(&path).unwrap();
        proptest::prop_assert_eq!(length, after.len() as u64);
        proptest::prop_assert!(kept.starts_with(&after) && (after.is_empty() || after.ends_with(b"\n")));
        proptest::prop_assert!(!kept[after.len()..].contains(&b'\n'));
    }
}
