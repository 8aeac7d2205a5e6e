//! What a panic says in the server's log: where it was, and its words where the program alone wrote them. Formatted ones may
//! hold anything that a request or a credential held, and are never told.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    thread,
};

const NOT_TOLD: &str = "(not told: formatted words may hold anything)";

/// From now on panics go to the log, each as one entry; with their backtrace where `RUST_BACKTRACE` asks for it.
pub(super) fn go_to_the_log() {
    panic::set_hook(Box::new(log));
}

fn log(info: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let words = words(info.payload());
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!(thread, at, words, %backtrace, "a panic; this is a fault of hookmill");
    } else {
        tracing::error!(thread, at, words, "a panic; this is a fault of hookmill");
    }
}

fn words(payload: &dyn Any) -> &'static str {
    payload.downcast_ref::<&'static str>().copied().unwrap_or(NOT_TOLD)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        panic::catch_unwind,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn words_of_the_program_are_told_and_those_with_data_are_not() {
        let secret = "whsec_planted";
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        let former = panic::take_hook();
        go_to_the_log();
        tracing::subscriber::with_default(subscriber, || {
            let _ = catch_unwind(|| panic!("the program's own words"));
            let _ = catch_unwind(|| panic!("the key is {secret}"));
            let _ = catch_unwind(|| secret.parse::<u64>().map_err(|error| format!("{secret}: {error}")).unwrap());
        });
        panic::set_hook(former);
        let log = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let own: Vec<&str> = log.lines().filter(|line| line.contains(file!())).collect();
        assert_eq!(own.len(), 3, "{log}");
        assert!(own[0].contains("the program's own words"));
        assert!(own[1..].iter().all(|line| line.contains(NOT_TOLD)), "{log}");
        assert!(!log.contains("planted"), "{log}");
    }
}
