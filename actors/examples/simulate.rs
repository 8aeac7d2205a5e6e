//! Runs seeds of the simulation: `cargo run --release -p hookmill-actors --example simulate -- --seeds N [--seed S]
//! [--start K] [--threads T] [--all] [--lines L]`. Ends with 1 at the first seed in which an invariant does not hold,
//! and prints it with the last lines of its course; with `--all` it goes on and prints a line for each.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]
#![expect(clippy::disallowed_methods, reason = "how long it took is told in real time; the runs have their own")]

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use hookmill_actors::testkit::sim::{self, Broken, Features};

struct Args {
    start: u64,
    seeds: u64,
    threads: u64,
    whole: bool,
    all: bool,
    lines: usize,
}

fn args() -> Result<Args, String> {
    let mut args = Args { start: 0, seeds: 500, threads: 2, whole: false, all: false, lines: 200 };
    let mut given = std::env::args().skip(1);
    while let Some(flag) = given.next() {
        let mut number = || {
            let text = given.next().ok_or(format!("`{flag}` needs a number"))?;
            text.parse::<u64>().map_err(|_| format!("`{flag}` needs a number; it has `{text}`"))
        };
        match flag.as_str() {
            "--seeds" => args.seeds = number()?,
            "--start" => args.start = number()?,
            "--threads" => args.threads = number()?.max(1),
            "--all" => args.all = true,
            "--lines" => args.lines = usize::try_from(number()?).unwrap_or(usize::MAX),
            "--seed" => (args.start, args.seeds, args.whole) = (number()?, 1, true),
            _ => {
                let known = "--seeds, --start, --seed, --threads, --all and --lines";
                return Err(format!("`{flag}` is unknown; there are {known}"));
            }
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match args() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("simulate: {error}");
            return ExitCode::from(2);
        }
    };
    let (next, done, attempts) = (AtomicU64::new(args.start), AtomicU64::new(0), AtomicU64::new(0));
    let (stop, broken) = (AtomicBool::new(false), Mutex::new(None::<Broken>));
    let (began, terminal) = (Instant::now(), std::io::stdout().is_terminal());
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= args.start + args.seeds {
                        break;
                    }
                    match sim::run(seed, Features::ALL) {
                        Ok(outcome) => {
                            attempts.fetch_add(outcome.attempts, Relaxed);
                            let done = done.fetch_add(1, Relaxed) + 1;
                            if args.whole {
                                println!("{outcome:?}");
                            }
                            if terminal && done.is_multiple_of(20) {
                                print!("\r{done} of {} seeds, {:.0} /s", args.seeds, rate(done, began));
                                let _ = std::io::stdout().flush();
                            }
                        }
                        Err(found) => {
                            if args.all {
                                println!("{found}");
                            } else {
                                stop.store(true, Relaxed);
                            }
                            let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                            if broken.as_ref().is_none_or(|known| found.seed < known.seed) {
                                *broken = Some(found);
                            }
                        }
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    let done = done.into_inner();
    if let Some(Broken { seed, broken, course }) = broken {
        if args.all {
            return ExitCode::FAILURE;
        }
        let from = course.len().saturating_sub(args.lines);
        println!("\n{}", course[from..].join("\n"));
        println!("\nseed {seed} breaks an invariant: {broken}\nrun it again with `--seed {seed}`");
        return ExitCode::FAILURE;
    }
    println!(
        "{}{done} seeds held, {} attempts, {:.0} seeds /s",
        if terminal { "\r" } else { "" },
        attempts.into_inner(),
        rate(done, began)
    );
    ExitCode::SUCCESS
}

#[expect(clippy::cast_precision_loss, reason = "nobody runs 2^52 seeds")]
fn rate(done: u64, began: Instant) -> f64 {
    done as f64 / began.elapsed().as_secs_f64().max(0.001)
}
