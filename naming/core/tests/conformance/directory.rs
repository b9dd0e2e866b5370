//! Runs a case against a directory of its own.

use daymark_naming_core::{Command, Directory, Limits};
use daymark_naming_proto::{
    Attributes, NamingError, OpId, ReadOptions, Request, Revision, Write, WriteRequest,
};
use serde::Serialize;
use serde_json::Value;

use crate::case::{Case, Scope, Step, compare};
use crate::words;

const CORNER: &str = "corner";

struct Runner {
    directory: Directory,
    scope: Scope,
    next_op: u128,
}

/// Runs a case, or says what went otherwise.
pub(crate) fn run(case: &Case) -> Result<(), String> {
    let mut runner = Runner {
        directory: Directory::new(Limits::default()),
        scope: Scope::new(CORNER),
        next_op: 1 << 64,
    };
    let corner = Write::CreateSubcontext {
        name: CORNER.parse().expect("a name"),
        attributes: Attributes::new(),
    };
    let op = runner.new_op();
    runner
        .write(WriteRequest { op, write: corner })
        .expect("a corner");
    for (at, step) in case.steps.iter().enumerate() {
        runner
            .step(step)
            .map_err(|failure| format!("step {at}, {}: {failure}", step.verb))?;
    }
    Ok(())
}

impl Runner {
    fn new_op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let args = self.scope.filled(&Value::Object(step.args.clone()));
        let words = words::of(&step.verb, args.as_object().expect("arguments"));
        let new_op = self.new_op();
        let before = self.directory.to_snapshot();
        let answer = Request::from_arguments(&words, || new_op).and_then(|request| self.ask(request));
        match (answer, &step.expect, &step.error) {
            (Ok(answer), Some(expected), None) => {
                compare(&answer, &self.scope.filled(expected), "")?;
                for (name, pointer) in &step.save {
                    let value = answer
                        .pointer(pointer)
                        .ok_or_else(|| format!("no {pointer} in {answer}"))?;
                    self.scope.saved.insert(name.clone(), value.clone());
                }
                Ok(())
            }
            (Err(error), None, Some(expected)) => {
                assert!(
                    self.directory.to_snapshot() == before,
                    "refused, and changed: {error}"
                );
                let document = document(&error)?;
                compare(&document, &self.scope.filled(expected), "error")
            }
            (Ok(answer), None, Some(_)) => Err(format!("answered instead of refused: {answer}")),
            (Err(error), Some(_), None) => Err(format!("refused: {error}")),
            (_, Some(_), Some(_)) | (_, None, None) => Err("wants either an answer or an error".to_owned()),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Value, NamingError> {
        let directory = &self.directory;
        let refuse_lag = |options: &ReadOptions| {
            let want = options.min_revision.unwrap_or(Revision(0));
            let have = directory.revision();
            if have < want {
                Err(NamingError::Lagging { have, want })
            } else {
                Ok(())
            }
        };
        match request {
            Request::Lookup { name, options } => {
                refuse_lag(&options)?;
                answer(&*directory.lookup(&name)?)
            }
            Request::LookupLink { name, .. } => answer(&*directory.lookup_link(&name)?),
            Request::List { name, .. } => answer(&directory.list(&name, false)?),
            Request::ListBindings { name, .. } => answer(&directory.list(&name, true)?),
            Request::Attributes { name, ids, .. } => answer(&directory.attributes(&name, ids.as_deref())?),
            Request::Search { name, search, .. } => {
                let mut run = directory.search(&name, &search)?;
                while run.advance(1) {}
                answer(&run.finish())
            }
            Request::Groups => answer(&directory.groups()),
            Request::Group { group } => answer(&directory.group(&group)?),
            Request::Timeline { group } => answer(&directory.timeline(&group)?),
            Request::Renew { group, member, lease } => answer(&directory.renewal(&group, &member, lease)?),
            Request::Write(request) => self.write(request),
            Request::Status | Request::Watch { .. } => Err(NamingError::NotSupported {
                what: "status and watches: they belong to a server".to_owned(),
            }),
        }
    }

    fn write(&mut self, request: WriteRequest) -> Result<Value, NamingError> {
        let written = self.directory.apply(&Command {
            op: request.op,
            at_unix_ms: 1_000_000,
            write: request.write,
        })?;
        answer(&written)
    }
}

fn answer<T: Serialize>(value: &T) -> Result<Value, NamingError> {
    serde_json::to_value(value).map_err(|error| NamingError::invalid(error.to_string()))
}

fn document(error: &NamingError) -> Result<Value, String> {
    serde_json::to_value(error).map_err(|error| error.to_string())
}
