//! What a broker's admin endpoint offers about its data plane: each command is one request to the active
//! broker of a group, and a way to show the answer.
//!
//! It decides nothing: the directory says who is active and where its endpoint is, the broker does the rest.

mod args;
mod request;

use serde_json::{Map, Value};

use crate::admin;
use crate::directory::active_admin;
use crate::failure::{Failure, exit};
use crate::output::{Output, facts, table};
use crate::provider;
pub(crate) use args::{ConnectionVerb, FactoryVerb, LinkVerb, QueueVerb, SubscriptionVerb, TopicVerb};
pub(crate) use request::{Request, View};

/// Asks the active broker, and shows what it answered.
///
/// # Errors
/// That there is no such group, that nobody is active in it, or what the broker answered.
pub(crate) async fn perform(request: Request<'_>) -> Result<(), Failure> {
    let asking = &request.of.asking;
    let group = provider::naming(asking)?.group(&request.of.group).await?;
    let endpoint = active_admin(&group)?;
    let answer = admin::ask(&endpoint, request.ask, &request.path, asking.timeout).await;
    let answer = answer.map_err(|failure| explained(failure, &request.of.group))?;
    Output::new(asking.json).show(&answer, |answer| shown(&request.view, answer))
}

/// A refusal with its exit code, and what to do about it.
fn explained(failure: Failure, group: &daymark_client::proto::GroupName) -> Failure {
    let look = format!("`daymark groups {group}` shows who is active");
    if failure.is("NotFound") {
        failure.exiting(exit::NOT_FOUND)
    } else if failure.is("NotActive") || failure.is("Ending") {
        failure.exiting(exit::UNAVAILABLE).hint(look)
    } else if failure.is("AdminUnreachable") {
        failure.hint(look)
    } else {
        failure
    }
}

fn shown(view: &View, answer: &Value) -> String {
    match view {
        View::Table { of, columns } => {
            let header: Vec<String> = columns.iter().map(|key| spoken(key)).collect();
            let header: Vec<&str> = header.iter().map(String::as_str).collect();
            let row = |item: &Value| columns.iter().map(|key| cell(&item[key])).collect::<Vec<_>>();
            table(&header, items(answer, of).map(row))
        }
        View::Facts => every_fact(answer),
        View::FactsOfEach(of) => {
            let each: Vec<String> = items(answer, of).map(every_fact).collect();
            each.join("\n\n")
        }
        View::Dropped => {
            let count = cell(&answer["messages_dropped"]);
            with_detail(format!("{count} messages dropped"), answer)
        }
        View::Done(sentence) => with_detail(sentence.clone(), answer),
    }
}

/// What else there is to know of something done.
fn with_detail(sentence: String, answer: &Value) -> String {
    match answer["detail"].as_str() {
        Some(detail) => format!("{sentence}: {detail}"),
        None => sentence,
    }
}

fn items<'a>(answer: &'a Value, of: &str) -> impl Iterator<Item = &'a Value> {
    answer[of].as_array().into_iter().flatten()
}

/// Every member of an object, those of an object in it after the others.
fn every_fact(object: &Value) -> String {
    let members = object.as_object().into_iter().flat_map(Map::iter);
    let (inner, own): (Vec<_>, Vec<_>) = members.partition(|(_, value)| value.is_object());
    let inner = inner
        .into_iter()
        .filter_map(|(_, value)| value.as_object())
        .flat_map(Map::iter);
    facts(
        own.into_iter()
            .chain(inner)
            .map(|(key, value)| (spoken(key), Some(cell(value)))),
    )
}

fn spoken(key: &str) -> String {
    key.replace('_', " ")
}

/// A value on one line. What a peer chose may hold control characters, which a terminal would obey.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() > CELL {
        text.chars().take(CELL - 3).chain("...".chars()).collect()
    } else {
        text
    }
}

/// Characters of a cell at most.
const CELL: usize = 80;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_a_table_of_its_columns() {
        let view = View::Table {
            of: "queues",
            columns: &["name", "dead_lettered"],
        };
        let answer = json!({"queues": [{"name": "a", "dead_lettered": 3, "more": 1}, {"name": "b"}]});
        assert_eq!(shown(&view, &answer), "name  dead lettered\na     3\nb     -");
    }

    #[test]
    fn what_is_not_done_yet_is_told() {
        let done = View::Done("queue a is set".to_owned());
        assert_eq!(shown(&done, &json!({})), "queue a is set");
        let answer = json!({"detail": "it is stored"});
        assert_eq!(shown(&done, &answer), "queue a is set: it is stored");
    }

    #[test]
    fn settings_follow_the_counts_of_what_is_shown() {
        let answer = json!({"settings": {"when_full": "block", "max_bytes": null}, "messages": 2});
        assert_eq!(
            shown(&View::Facts, &answer),
            "messages   2\nmax bytes  -\nwhen full  block"
        );
    }

    #[test]
    fn what_a_peer_chose_cannot_command_a_terminal_or_flood_it() {
        assert_eq!(cell(&json!("a\u{1b}[2J\nb")), "a [2J b");
        assert_eq!(cell(&json!("x".repeat(1_000))).len(), CELL);
    }
}
