//! The clients whose service is measured: a Java program on Apache Qpid JMS, and one on our own library. Both do the same
//! and print the same lines: `at HOST:PORT` where the producer's connection stands, `ack NANOSECONDS` for each
//! acknowledgement.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daymark_client::{ConnectionEvent, Destination, Message, Naming, NamingConfig};
use daymark_test_support::java::Java;

use super::{end, monotonic_ns};
use crate::peer::ending_with_us;
use crate::{Outcome, other};

/// How often a wait looks whether the bench was interrupted.
const LOOK: Duration = Duration::from_millis(100);

/// Between an acknowledgement and the next message.
const PACE: Duration = Duration::from_millis(1);

/// The queue of this name is sent to.
const QUEUE: &str = "bench";

/// A running client.
#[derive(Debug)]
pub struct Client {
    child: Child,
    seen: Arc<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    book: Mutex<Book>,
    more: Condvar,
}

/// What the client said.
#[derive(Debug, Default)]
struct Book {
    place: String,
    acknowledged: Vec<Acknowledged>,
    is_over: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Acknowledged {
    at_ns: u64,
    place: String,
}

/// Where the client was, and when.
#[derive(Clone, Debug)]
pub struct Mark {
    at_ns: u64,
    place: String,
}

/// A time without service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last acknowledgement before, on the monotonic clock.
    pub from_ns: u64,
    /// The first after.
    pub to_ns: u64,
}

impl Gap {
    /// Its length in milliseconds.
    #[must_use]
    pub fn ms(&self) -> f64 {
        (self.to_ns - self.from_ns) as f64 / 1e6
    }
}

/// The Java program, compiled. `None` after saying why, where Java or Maven is missing.
///
/// # Panics
/// When it does not compile.
#[must_use]
pub fn java() -> Option<Java> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("java");
    Java::project("benches", &directory)
}

impl Client {
    /// Qpid JMS with this URI.
    ///
    /// # Errors
    /// That the system cannot start it.
    pub fn jms(java: &Java, uri: &str) -> Outcome<Self> {
        Self::start(&java.command("daymark.benches.Acknowledged", &[uri, QUEUE]))
    }

    /// Our own library, with the factory it finds in naming.
    ///
    /// # Errors
    /// That the system cannot start it.
    pub fn own(naming: &str, factory: &str) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["as-client", naming, factory]);
        Self::start(&command)
    }

    fn start(command: &Command) -> Outcome<Self> {
        let mut child = ending_with_us(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log()?)
            .spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| other("no standard output"))?;
        let seen = Arc::new(Seen::default());
        let book = Arc::clone(&seen);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                book.note(&line);
            }
            book.book().is_over = true;
            book.more.notify_all();
        });
        Ok(Self { child, seen })
    }

    /// Waits until it was acknowledged something, again and again, for so long.
    ///
    /// # Errors
    /// That it was not, within `limit`.
    pub fn served_for(&self, time: Duration, limit: Duration) -> Outcome<()> {
        /// Longer without an acknowledgement is not served.
        const STEADY_NS: u64 = 100_000_000;
        let begun_ns = monotonic_ns();
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let served = self.seen.wait(limit, |book| {
            let since = book.acknowledged.partition_point(|one| one.at_ns < begun_ns);
            let all = &book.acknowledged[since..];
            let steady = all
                .windows(2)
                .rposition(|two| two[1].at_ns - two[0].at_ns > STEADY_NS);
            let first = all.get(steady.map_or(0, |at| at + 1))?;
            (all.last()?.at_ns - first.at_ns >= time_ns).then_some(())
        })?;
        served.ok_or_else(|| other(format!("the client was not served for {time:?}")).into())
    }

    /// From here on a gap counts.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let place = self.seen.book().place.clone();
        Mark {
            at_ns: monotonic_ns(),
            place,
        }
    }

    /// The longest gap since then, up to the first acknowledgement that came from elsewhere; `None` where there was none
    /// within `limit`.
    ///
    /// # Errors
    /// That the client ended.
    pub fn gap_since(&self, from: &Mark, limit: Duration) -> Outcome<Option<Gap>> {
        self.seen.wait(limit, |book| gap(&book.acknowledged, from))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Seen {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, line: &str) {
        let mut book = self.book();
        match line.split_once(' ') {
            Some(("at", place)) => place.clone_into(&mut book.place),
            Some(("ack", at)) => {
                let place = book.place.clone();
                let acknowledged = at.parse().map(|at_ns| Acknowledged { at_ns, place });
                book.acknowledged.extend(acknowledged);
            }
            _ => {}
        }
        drop(book);
        self.more.notify_all();
    }

    fn wait<T>(&self, limit: Duration, found: impl Fn(&Book) -> Option<T>) -> Outcome<Option<T>> {
        let until = Instant::now() + limit;
        let mut book = self.book();
        loop {
            if let Some(found) = found(&book) {
                return Ok(Some(found));
            }
            if book.is_over {
                return Err(
                    other("the client ended; its last words are in benches/failover-client.log").into(),
                );
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            end::go_on()?;
            let woken = self.more.wait_timeout(book, left.min(LOOK));
            book = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The longest time between two acknowledgements that ended after the mark, up to the first from elsewhere.
fn gap(acknowledged: &[Acknowledged], from: &Mark) -> Option<Gap> {
    let since = acknowledged.partition_point(|one| one.at_ns <= from.at_ns);
    let elsewhere = acknowledged[since..]
        .iter()
        .position(|one| one.place != from.place)?;
    let within = &acknowledged[since.saturating_sub(1)..=since + elsewhere];
    let gaps = within.windows(2).map(|two| Gap {
        from_ns: two[0].at_ns,
        to_ns: two[1].at_ns,
    });
    gaps.max_by_key(|gap| gap.to_ns - gap.from_ns)
}

/// Where the clients complain.
fn log() -> Outcome<std::fs::File> {
    let directory: PathBuf = crate::table::target()?.join("benches");
    std::fs::create_dir_all(&directory)?;
    let mut options = std::fs::OpenOptions::new();
    let options = options.create(true).append(true);
    Ok(options.open(directory.join("failover-client.log"))?)
}

/// This process as a client on our own library, for ever.
///
/// # Errors
/// What the library says.
pub async fn run(naming: &str, factory: &str) -> Outcome<()> {
    let naming = Naming::new(naming.parse()?, NamingConfig::default());
    let factory = naming.connection_factory(&factory.parse()?).await?;
    tokio::try_join!(send(&factory), receive(&factory))?;
    Ok(())
}

async fn send(factory: &daymark_client::ConnectionFactory) -> Outcome<()> {
    let connection = factory.connect().await?;
    let mut events = connection.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let ConnectionEvent::Connected { address, .. } | ConnectionEvent::FailedOver { address, .. } =
                event
            {
                say(&format!("at {address}"));
            }
        }
    });
    let session = connection.session().await?;
    let producer = session.producer(&Destination::queue(QUEUE)).await?;
    loop {
        producer
            .send(Message::text("a message of the failover bench"))
            .await?;
        say(&format!("ack {}", monotonic_ns()));
        tokio::time::sleep(PACE).await;
    }
}

async fn receive(factory: &daymark_client::ConnectionFactory) -> Outcome<()> {
    let connection = factory.connect().await?;
    let session = connection.session().await?;
    let consumer = session.consumer(&Destination::queue(QUEUE)).await?;
    loop {
        if let Some(delivery) = consumer.receive(Duration::from_secs(1)).await? {
            // One that could not be settled comes again.
            let _ = delivery.accept().await;
        }
    }
}

/// Nobody listens any more only when the bench has ended.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_the_longest_one_from_the_cause_to_the_first_acknowledgement_from_elsewhere() {
        let book: Vec<Acknowledged> = [
            (10, "a"),
            (500, "a"),
            (510, "a"),
            (515, "a"),
            (600, "b"),
            (900, "b"),
        ]
        .map(|(at_ns, place)| Acknowledged {
            at_ns,
            place: place.to_owned(),
        })
        .to_vec();
        let from = Mark {
            at_ns: 512,
            place: "a".to_owned(),
        };
        let expected = Gap {
            from_ns: 515,
            to_ns: 600,
        };
        assert_eq!(gap(&book, &from), Some(expected));
        assert_eq!(gap(&book[..4], &from), None);
        // One whose service stopped for longer before it moved has the longer gap.
        let earlier = Mark {
            at_ns: 11,
            place: "a".to_owned(),
        };
        let expected = Gap {
            from_ns: 10,
            to_ns: 500,
        };
        assert_eq!(gap(&book, &earlier), Some(expected));
    }
}
