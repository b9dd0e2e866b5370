//! What Prometheus is told: counts of the data plane, and whether there is one.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use daymark_client::proto::MemberState;

use super::Admin;
use crate::messaging::{MessagingStats, QueueStats};

pub(super) async fn metrics(State(admin): State<Admin>) -> Response {
    let status = admin.board.status();
    let mut text = String::new();
    let active = u8::from(status.state == MemberState::Active);
    gauge(
        &mut text,
        "daymark_broker_active",
        "1 while this broker is active",
        active,
    );
    gauge(
        &mut text,
        "daymark_broker_epoch",
        "The epoch this broker knows",
        status.epoch.0,
    );
    if let Some(messaging) = admin.board.messaging() {
        of_messaging(&mut text, &messaging.stats());
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, text).into_response()
}

fn of_messaging(text: &mut String, stats: &MessagingStats) {
    gauge(
        text,
        "daymark_connections",
        "Open AMQP connections",
        stats.connections,
    );
    gauge(text, "daymark_messages", "Messages in all queues", stats.messages);
    gauge(
        text,
        "daymark_message_bytes",
        "Bytes of all messages",
        stats.bytes,
    );
    let help = "Bytes of records that are not yet durable";
    gauge(text, "daymark_pending_bytes", help, stats.pending_bytes);
    let help = "Bytes of memory that remembered duplicate ids take";
    gauge(text, "daymark_duplicate_bytes", help, stats.duplicate_bytes);
    for (name, kind, help, value) in OF_QUEUES {
        head(text, name, kind, help);
        for queue in &stats.queues {
            let value = value(queue);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}{{queue=\"{}\"}} {value}", escaped(&queue.name));
        }
    }
}

type OfQueue = (&'static str, &'static str, &'static str, fn(&QueueStats) -> u64);

const OF_QUEUES: [OfQueue; 13] = [
    (
        "daymark_queue_messages",
        "gauge",
        "Messages in the queue",
        |queue| queue.messages,
    ),
    ("daymark_queue_bytes", "gauge", "Their bytes", |queue| queue.bytes),
    (
        "daymark_queue_unsettled",
        "gauge",
        "Messages out for delivery",
        |queue| queue.unsettled,
    ),
    (
        "daymark_queue_consumers",
        "gauge",
        "Consumers attached",
        |queue| queue.consumers,
    ),
    (
        "daymark_queue_producers",
        "gauge",
        "Producers attached",
        |queue| queue.producers,
    ),
    (
        "daymark_queue_received_total",
        "counter",
        "Messages that came in",
        |queue| queue.received,
    ),
    (
        "daymark_queue_duplicates_total",
        "counter",
        "Messages that were there before",
        |queue| queue.duplicates,
    ),
    (
        "daymark_queue_accepted_total",
        "counter",
        "Messages accepted",
        |queue| queue.accepted,
    ),
    (
        "daymark_queue_rejected_total",
        "counter",
        "Messages rejected",
        |queue| queue.rejected,
    ),
    (
        "daymark_queue_requeued_total",
        "counter",
        "Deliveries that came back",
        |queue| queue.requeued,
    ),
    (
        "daymark_queue_expired_total",
        "counter",
        "Messages whose time was over",
        |queue| queue.expired,
    ),
    (
        "daymark_queue_dead_lettered_total",
        "counter",
        "Messages moved to the dead letters",
        |queue| queue.dead_lettered,
    ),
    (
        "daymark_queue_dropped_total",
        "counter",
        "Messages dropped",
        |queue| queue.dropped,
    ),
];

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl std::fmt::Display) {
    head(text, name, "gauge", help);
    let _ = writeln!(text, "{name} {value}");
}

/// A label's value as the text format wants it.
fn escaped(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
