//! Writes on their way into the log: what waits together becomes one entry.
//!
//! Few entries are under way at a time, so that writes gather while the disk is busy. Each write keeps its own
//! answer and its own revision. Invariant: writes enter the log in the order in which they were put in.

use std::sync::Arc;

use daymark_naming_core::Command;
use daymark_naming_proto::{NamingError, Written};
use openraft::Raft;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::machine::Machine;
use super::types::{Answering, ClientAnswer, Outcome, Proposal, TypeConfig};

/// Entries that may be under way: one at the disk, one that gathers behind it.
const UNDER_WAY_MAX: usize = 2;
/// Writes of one entry.
const WRITES_MAX: usize = 512;
/// Bytes of one entry, beyond which no further write joins it.
const BYTES_MAX: usize = 1 << 20;
/// Writes that may wait to be gathered.
const WAITING_MAX: usize = 4_096;

/// What became of a write.
pub(super) type Answer = Result<Written, NamingError>;

/// A write that waits for its entry.
pub(super) struct Waiting {
    pub(super) command: Command,
    /// Its size, about.
    pub(super) bytes: usize,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// Starts the task that makes entries. It ends when nobody can put a write in any more.
pub(super) fn start(raft: Raft<TypeConfig, Machine>) -> mpsc::Sender<Waiting> {
    let (sender, waiting) = mpsc::channel(WAITING_MAX);
    tokio::spawn(propose(waiting, raft));
    sender
}

async fn propose(mut waiting: mpsc::Receiver<Waiting>, raft: Raft<TypeConfig, Machine>) {
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    while let Ok(turn) = under_way.clone().acquire_owned().await {
        let Some(first) = waiting.recv().await else {
            return;
        };
        let (proposal, answers) = gather(first, &mut waiting);
        let answering = answering(answers, turn);
        if let Err(fatal) = raft.client_write_ff(proposal, Some(answering)).await {
            // Whoever waits notices that nobody is left to answer.
            tracing::debug!(%fatal, "the log takes no writes any more");
        }
    }
}

/// The first write and what waits behind it.
fn gather(first: Waiting, waiting: &mut mpsc::Receiver<Waiting>) -> (Proposal, Vec<oneshot::Sender<Answer>>) {
    let mut bytes = first.bytes;
    let (mut commands, mut answers) = (vec![first.command], vec![first.answer]);
    while commands.len() < WRITES_MAX && bytes < BYTES_MAX {
        let Ok(next) = waiting.try_recv() else {
            break;
        };
        bytes += next.bytes;
        commands.push(next.command);
        answers.push(next.answer);
    }
    (Proposal(commands.into()), answers)
}

/// Hands each write of an entry its answer, and the turn to the next entry.
fn answering(answers: Vec<oneshot::Sender<Answer>>, turn: OwnedSemaphorePermit) -> Answering<ClientAnswer> {
    Answering::new(move |answered: ClientAnswer| {
        drop(turn);
        let outcomes = match answered {
            Ok(response) => match response.data {
                Outcome::Commands(outcomes) => outcomes,
                Outcome::Internal => Vec::new(),
            },
            Err(refused) => {
                let refused = super::unavailable(&refused.to_string());
                answers.iter().map(|_| Err(refused.clone())).collect()
            }
        };
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // A writer that has gone needs no answer.
            let _ = answer.send(outcome);
        }
    })
}
