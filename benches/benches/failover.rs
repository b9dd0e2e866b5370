//! How long it takes from SIGKILL of the active broker to the first message the next one acknowledges.
//!
//! `cargo bench -p daymark-benches --bench failover`: 20 kills in one run, real processes on loopback, a producer
//! and a consumer streaming all the while. It is the demo, so it also fails when a message is lost or doubled.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use daymark_benches::Measurements;
use daymark_cli::demo::{FIRST_ACKNOWLEDGED, Launch, Plan, Progress, Report, STEPS, run};

/// With this first argument the process is `daymark` itself: the demo starts it again as its servers.
const AS_DAYMARK: &str = "as-daymark";
const KILLS: u32 = 20;
const MESSAGES: u64 = 42_000;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == AS_DAYMARK) {
        return daymark_cli::main_with(arguments);
    }
    match measure() {
        Ok(report) if report.is_kept() => {
            println!("{}", summary(&report));
            ExitCode::SUCCESS
        }
        Ok(report) => {
            eprintln!("the promise was broken:\n{}", report.to_text());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("no measurement: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<Report, Box<dyn std::error::Error>> {
    let plan = Plan {
        messages: MESSAGES,
        kills: KILLS,
        window: 256,
        deadline: Duration::from_secs(300),
        launch: Launch {
            exe: std::env::current_exe()?,
            prefix: vec![OsString::from(AS_DAYMARK)],
        },
        keep: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(run(plan, &Progress::silent(), std::future::pending()))?)
}

/// One line for each step, in the order in which they are done, and what each adds to the one before.
fn summary(report: &Report) -> String {
    let mut steps: Vec<(&str, Measurements)> = STEPS
        .iter()
        .map(|step| {
            let times = report
                .failovers
                .iter()
                .filter_map(|failover| failover.after_kill_ms(step));
            (*step, times.collect())
        })
        .collect();
    steps.sort_by(|(_, a), (_, b)| {
        a.median()
            .unwrap_or(f64::MAX)
            .total_cmp(&b.median().unwrap_or(f64::MAX))
    });
    let mut text = format!(
        "{} failovers under load, milliseconds from SIGKILL\n{:<20} {:>8} {:>8} {:>8} {:>8}",
        report.failovers.len(),
        "",
        "best",
        "median",
        "worst",
        "share"
    );
    let mut before = 0.0;
    for (step, times) in &steps {
        let (Some(best), Some(median), Some(worst)) = (times.best(), times.median(), times.worst()) else {
            continue;
        };
        let share = median - before;
        before = median;
        text.push_str(&format!(
            "\n{step:<20} {best:>8.1} {median:>8.1} {worst:>8.1} {share:>+8.1}"
        ));
        if *step == FIRST_ACKNOWLEDGED {
            text.push_str("   <- the figure");
        }
    }
    text
}
