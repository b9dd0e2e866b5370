//! Client and server talk to each other.

mod common;

use bytes::Bytes;
use common::*;
use daymark_amqp::message::{Body, MessageView};
use daymark_amqp::*;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn a_message_goes_from_client_to_server_and_its_acceptance_comes_back() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let (here, there) = pair.sending_link(session, "l");
    assert_eq!(
        pair.client.send(here, Outgoing::new(text("x"))),
        Err(CommandError::NoCredit)
    );
    pair.credit_to_client(there, 10);
    let sent = pair
        .client
        .send(
            here,
            Outgoing {
                context: 77,
                ..Outgoing::new(text("hello"))
            },
        )
        .unwrap();
    let got = messages(pair.at_server());
    assert_eq!(got.len(), 1);
    assert!(!got[0].settled);
    let view = MessageView::parse(&got[0].payload).unwrap();
    assert_eq!(view.body().unwrap(), Body::Value(ValueRef::String("hello")));
    pair.server
        .settle(there, got[0].delivery, DeliveryState::ACCEPTED, true)
        .unwrap();
    let state = Some(DeliveryState::ACCEPTED);
    let expected = Event::Disposition {
        link: here,
        delivery: sent,
        context: 77,
        state,
        settled: true,
    };
    assert_eq!(pair.at_client(), [expected]);
    assert_eq!(
        (pair.client.unsettled(here), pair.server.unsettled(there)),
        (0, 0)
    );
    assert_eq!(pair.server.credit(there), 9);
}

#[test]
fn the_payload_of_one_frame_is_a_slice_of_what_came_in() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let (here, there) = pair.sending_link(session, "l");
    pair.credit_to_client(there, 1);
    let body = message::MessageBuilder::new().data(&[7; 3_000]);
    pair.client.send(here, Outgoing::new(body.clone())).unwrap();
    let bytes = pair.client.take_output(pair.now);
    let buffer = pair.server.read_buf(bytes.len());
    buffer.extend_from_slice(&bytes);
    let range = buffer.as_ptr_range();
    pair.server.input_received(pair.now);
    let got = messages(poll(&mut pair.server));
    assert_eq!(got[0].payload, body);
    assert!(range.contains(&got[0].payload.as_ptr()));
}

#[test]
fn acceptances_in_a_row_leave_as_one_frame() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let (here, there) = pair.sending_link(session, "l");
    pair.credit_to_client(there, 100);
    for n in 0..100 {
        pair.client
            .send(
                here,
                Outgoing {
                    context: n,
                    ..Outgoing::new(text("x"))
                },
            )
            .unwrap();
    }
    for message in messages(pair.at_server()) {
        pair.server
            .settle(there, message.delivery, DeliveryState::ACCEPTED, true)
            .unwrap();
    }
    let bytes = pair.server.take_output(pair.now);
    assert!(bytes.len() < 32, "{} bytes", bytes.len());
    pair.client.input(&bytes, pair.now);
    let contexts: Vec<u64> = poll(&mut pair.client)
        .into_iter()
        .filter_map(|e| {
            if let Event::Disposition { context, .. } = e {
                Some(context)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(contexts, (0..100).collect::<Vec<u64>>());
}

#[test]
fn a_large_message_crosses_in_frames_of_512_bytes_whatever_the_reads_cut() {
    let small = || Config {
        max_frame_size: 512,
        ..Config::default()
    };
    for chunk in [usize::MAX, 1, 7, 511] {
        let mut pair = Pair::open_with(small(), small());
        pair.chunk = chunk;
        let (session, _) = pair.session();
        let (here, there) = pair.sending_link(session, "l");
        pair.credit_to_client(there, 2);
        let body: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let payload = Bytes::from(body.clone());
        pair.client
            .send(
                here,
                Outgoing {
                    head: b"head",
                    ..Outgoing::new(payload.clone())
                },
            )
            .unwrap();
        pair.client
            .send(
                here,
                Outgoing {
                    settled: true,
                    ..Outgoing::new(payload)
                },
            )
            .unwrap();
        let got = messages(pair.at_server());
        assert_eq!(got.len(), 2);
        assert_eq!(got[0].payload[..4], *b"head");
        assert_eq!(got[0].payload[4..], body);
        assert!(got[1].settled);
        assert_eq!(got[1].payload, body);
    }
}

#[test]
fn sixteen_mebibytes_cross_in_the_smallest_frames_and_leave_nothing_behind() {
    let smallest = Config {
        max_frame_size: 512,
        ..Config::default()
    };
    let mut pair = Pair::open_with(Config::default(), smallest);
    let (session, _) = pair.session();
    let (here, there) = pair.sending_link(session, "l");
    pair.credit_to_client(there, 1);
    let body = Bytes::from(vec![16; 16 << 20]);
    pair.client.send(here, Outgoing::new(body.clone())).unwrap();
    let mut got = Vec::new();
    while got.is_empty() {
        // The session window lets so many frames through at a time.
        assert!(pair.client.output_len() > 0, "neither side has anything to say");
        assert!(pair.client.output_len() <= 2_048 * 512);
        got = messages(pair.at_server());
        pair.at_client();
    }
    assert_eq!(got[0].payload, body);
    assert_eq!((pair.client.output_len(), pair.server.input_len()), (0, 0));
}

#[test]
fn a_shut_session_window_holds_frames_back_and_opening_it_lets_them_go() {
    let tiny = Config {
        max_frame_size: 512,
        incoming_window: 4,
        ..Config::default()
    };
    let mut pair = Pair::open_with(Config::default(), tiny);
    let (session, _) = pair.session();
    let (here, there) = pair.sending_link(session, "l");
    pair.credit_to_client(there, 10);
    let body = Bytes::from(vec![9; 5_000]);
    pair.client.send(here, Outgoing::new(body.clone())).unwrap();
    assert_eq!(pair.client.sendable(here), 0);
    assert_eq!(
        pair.client.send(here, Outgoing::new(text("y"))),
        Err(CommandError::WindowShut)
    );
    let mut got = Vec::new();
    let mut reopened = false;
    for _ in 0..10 {
        got.extend(messages(pair.at_server()));
        reopened |= pair
            .at_client()
            .iter()
            .any(|e| matches!(e, Event::Credit { credit: 9, .. }));
    }
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].payload, body);
    assert!(reopened, "the owner hears that it may go on");
    assert_eq!(pair.client.sendable(here), 4);
}

#[test]
fn what_can_be_sent_ends_with_the_session_window_and_grows_with_it() {
    let tiny = Config {
        incoming_window: 4,
        ..Config::default()
    };
    let mut pair = Pair::open_with(Config::default(), tiny);
    let (session, _) = pair.session();
    let (here, there) = pair.sending_link(session, "l");
    pair.credit_to_client(there, 10);
    let mut allowed = pair.client.sendable(here);
    assert_eq!(allowed, 4);
    let mut received = 0;
    for _ in 0..10 {
        assert!(
            allowed > 0,
            "nothing said that the window grew; {received} received"
        );
        pair.client.send(here, Outgoing::new(text("x"))).unwrap();
        allowed -= 1;
        // The receiver says that its window has grown before it is shut.
        received += messages(pair.at_server()).len();
        if pair
            .at_client()
            .iter()
            .any(|event| matches!(event, Event::Credit { .. }))
        {
            allowed = pair.client.sendable(here);
        }
    }
    assert_eq!((received, pair.client.sendable(here)), (10, 0));
}

#[test]
fn every_outcome_reaches_the_other_side() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let (here, there) = pair.receiving_link(session, "l");
    pair.client.grant_credit(here, 10, false).unwrap();
    pair.at_server();
    let annotations = Fields::new().with(Symbol::from_static("x-opt-a"), 5_u32);
    let outcomes = [
        Outcome::Accepted,
        Outcome::Rejected(None),
        Outcome::rejected(
            AmqpError::new(condition::NOT_ALLOWED, "no").with_info(Symbol::from_static("k"), true),
        ),
        Outcome::Released,
        Outcome::Modified {
            delivery_failed: true,
            undeliverable_here: false,
            annotations: None,
        },
        Outcome::Modified {
            delivery_failed: false,
            undeliverable_here: true,
            annotations: Some(Arc::new(annotations)),
        },
    ];
    for outcome in outcomes {
        pair.server
            .send(
                there,
                Outgoing {
                    context: 3,
                    ..Outgoing::new(text("x"))
                },
            )
            .unwrap();
        let got = messages(pair.at_client());
        pair.client
            .settle(here, got[0].delivery, outcome.clone().into(), true)
            .unwrap();
        let events = pair.at_server();
        let [
            Event::Disposition {
                context: 3,
                state: Some(state),
                settled: true,
                ..
            },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(state.outcome(), Some(&outcome));
    }
}

#[test]
fn a_receiver_that_settles_second_waits_for_the_sender() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let (here, there) = pair.receiving_link(session, "l");
    pair.client.grant_credit(here, 1, false).unwrap();
    pair.at_server();
    let sent = pair.server.send(there, Outgoing::new(text("x"))).unwrap();
    let got = messages(pair.at_client());
    pair.client
        .settle(here, got[0].delivery, DeliveryState::ACCEPTED, false)
        .unwrap();
    assert!(matches!(
        pair.at_server()[..],
        [Event::Disposition { settled: false, .. }]
    ));
    pair.server
        .settle(there, sent, DeliveryState::ACCEPTED, true)
        .unwrap();
    let events = pair.at_client();
    assert!(
        matches!(events[..], [Event::Disposition { link, settled: true, .. }] if link == here),
        "{events:?}"
    );
    let again = pair
        .client
        .settle(here, got[0].delivery, DeliveryState::ACCEPTED, true);
    assert_eq!(again, Err(CommandError::UnknownDelivery));
}

#[test]
fn drain_is_answered_only_after_what_was_available_was_sent() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let (here, there) = pair.receiving_link(session, "l");
    assert!(!pair.server.is_draining(there));
    pair.client.grant_credit(here, 10, true).unwrap();
    let events = pair.at_server();
    assert!(pair.server.is_draining(there));
    assert_eq!(
        events,
        [Event::Credit {
            link: there,
            credit: 10,
            drain: true
        }]
    );
    for _ in 0..3 {
        pair.server.send(there, Outgoing::new(text("x"))).unwrap();
    }
    let events = pair.at_client();
    assert_eq!(events.len(), 3, "nothing is said of drain yet: {events:?}");
    pair.server.drained(there).unwrap();
    assert!(!pair.server.is_draining(there));
    assert_eq!(pair.at_client(), [Event::Drained { link: here }]);
    assert_eq!((pair.client.credit(here), pair.server.credit(there)), (0, 0));
    pair.client.grant_credit(here, 2, false).unwrap();
    assert_eq!(
        pair.at_server(),
        [Event::Credit {
            link: there,
            credit: 2,
            drain: false
        }]
    );
}

#[test]
fn a_refused_link_is_answered_without_terminus_and_then_detached() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let here = pair
        .client
        .attach_sender(session, AttachOptions::to("l", "nowhere"))
        .unwrap();
    let events = pair.at_server();
    let [Event::LinkRequested { link: there, .. }] = events[..] else {
        panic!("{events:?}")
    };
    pair.server
        .refuse_link(there, AmqpError::new(condition::NOT_FOUND, "no such queue"))
        .unwrap();
    let events = pair.at_client();
    let [
        Event::LinkAttached { attach, .. },
        Event::LinkDetached {
            error: Some(error),
            by_peer: true,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(attach.is_refused());
    assert_eq!(error.condition, condition::NOT_FOUND);
    pair.client.detach(here, true, None).unwrap();
    assert_eq!(pair.at_server(), []);
    assert_eq!(pair.server.role(there), None, "nothing is left of it");
    pair.sending_link(session, "l");
}

#[test]
fn one_name_serves_both_directions_and_a_second_attach_steals() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    pair.sending_link(session, "same");
    pair.receiving_link(session, "same");
    let taken = pair.client.attach_sender(session, AttachOptions::to("same", "q"));
    assert_eq!(taken, Err(CommandError::NameInUse));
    // Only a raw peer can attach a name twice.
    let mut victim = Victim::attached(Config::default(), 1);
    let mut again = ATTACH.to_vec();
    again[9] = 0x52; // handle 5
    again.insert(10, 5);
    again[4] += 1;
    let events = victim.say(&frame(0, 0, &again));
    let [
        Event::LinkDetached {
            link,
            error: Some(error),
            by_peer: false,
            ..
        },
        Event::LinkRequested { .. },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(Some(*link), victim.link);
    assert_eq!(error.condition, condition::LINK_STOLEN);
}

#[test]
fn what_was_sent_and_never_settled_comes_back_when_the_link_ends() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let (here, there) = pair.receiving_link(session, "l");
    pair.client.grant_credit(here, 10, false).unwrap();
    pair.at_server();
    for context in 1..=4 {
        pair.server
            .send(
                there,
                Outgoing {
                    context,
                    ..Outgoing::new(text("x"))
                },
            )
            .unwrap();
    }
    let got = messages(pair.at_client());
    pair.client
        .settle(here, got[1].delivery, DeliveryState::ACCEPTED, true)
        .unwrap();
    pair.client.detach(here, false, None).unwrap();
    let events = pair.at_server();
    let [
        Event::Disposition { context: 2, .. },
        Event::LinkDetached {
            closed: false,
            unsettled,
            by_peer: true,
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(unsettled.iter().map(|u| u.context).collect::<Vec<_>>(), [1, 3, 4]);
    pair.server.detach(there, false, None).unwrap();
    let events = pair.at_client();
    assert!(
        matches!(events[..], [Event::LinkDetached { by_peer: false, .. }]),
        "{events:?}"
    );
}

#[test]
fn ending_a_session_ends_its_links_first_and_frees_the_channel() {
    let mut pair = Pair::open();
    for _ in 0..600 {
        let (here, there) = pair.session();
        let (_, link) = pair.sending_link(here, "l");
        pair.client.end(here, None).unwrap();
        let events = pair.at_server();
        let [
            Event::LinkDetached {
                link: gone,
                by_peer: false,
                ..
            },
            Event::SessionEnded { session, .. },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((*gone, *session), (link, there));
        let events = pair.at_client();
        assert!(
            matches!(
                events[..],
                [Event::LinkDetached { .. }, Event::SessionEnded { .. }]
            ),
            "{events:?}"
        );
    }
}

#[test]
fn close_with_an_error_reaches_the_peer_and_is_answered() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    pair.sending_link(session, "l");
    pair.server
        .close(Some(AmqpError::new(condition::CONNECTION_FORCED, "going down")));
    let events = pair.at_client();
    let [
        Event::LinkDetached { .. },
        Event::SessionEnded { .. },
        Event::Closed(CloseReason::Remote(Some(error))),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(error.condition, condition::CONNECTION_FORCED);
    let events = pair.at_server();
    assert_eq!(events.last(), Some(&Event::Closed(CloseReason::Local)));
    assert!(pair.server.is_finished() && pair.client.is_finished());
}

#[test]
fn a_lost_transport_ends_links_sessions_and_connection_in_this_order() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    pair.sending_link(session, "l");
    pair.server.input_closed();
    let events = poll(&mut pair.server);
    assert!(
        matches!(
            events[..],
            [
                Event::LinkDetached { .. },
                Event::SessionEnded { .. },
                Event::Closed(CloseReason::TransportLost)
            ]
        ),
        "{events:?}"
    );
}

#[test]
fn delivery_ids_and_transfer_ids_wrap() {
    let config = || Config {
        first_delivery_id: u32::MAX - 50,
        incoming_window: 8,
        ..Config::default()
    };
    let mut pair = Pair::open_with(config(), config());
    let (session, _) = pair.session();
    let (here, there) = pair.sending_link(session, "l");
    let mut accepted = 0;
    for round in 0..30_u64 {
        pair.server.grant_credit(there, 5, false).unwrap();
        pair.at_client();
        for context in round * 5..round * 5 + 5 {
            pair.client
                .send(
                    here,
                    Outgoing {
                        context,
                        ..Outgoing::new(text("x"))
                    },
                )
                .unwrap();
        }
        for message in messages(pair.at_server()) {
            pair.server
                .settle(there, message.delivery, DeliveryState::ACCEPTED, true)
                .unwrap();
        }
        for event in pair.at_client() {
            if let Event::Disposition { context, .. } = event {
                assert_eq!(context, accepted);
                accepted += 1;
            }
        }
    }
    assert_eq!(accepted, 150);
}

#[test]
fn a_silent_peer_is_closed_and_an_idle_one_is_kept_company() {
    let idle = |ms| Config {
        idle_timeout: Some(Duration::from_millis(ms)),
        ..Config::default()
    };
    let mut pair = Pair::open_with(idle(10_000), idle(4_000));
    // The server closes after 4 s and says 2 s, so the client speaks up every second.
    let mut last = pair.now;
    for _ in 0..20 {
        let next = pair.client.poll_timeout().unwrap();
        assert_eq!((next - last).as_millis(), 1_000);
        (pair.now, last) = (next, next);
        pair.client.handle_timeout(pair.now);
        pair.server.handle_timeout(pair.now);
        assert_eq!(pair.at_server(), []);
        assert_eq!(pair.at_client(), []);
    }
    pair.pass(Duration::from_millis(3_999));
    pair.server.handle_timeout(pair.now);
    assert_eq!(poll(&mut pair.server), []);
    pair.pass(Duration::from_millis(1));
    pair.server.handle_timeout(pair.now);
    assert_eq!(poll(&mut pair.server), [Event::Closed(CloseReason::IdleTimeout)]);
    let events = pair.at_client();
    assert!(
        matches!(&events[..], [Event::Closed(CloseReason::Remote(Some(_)))]),
        "{events:?}"
    );
}

#[test]
fn a_peer_that_never_opens_is_dropped() {
    let mut victim = Victim::fresh(Config::default());
    assert_eq!(victim.say(b"AMQP"), []);
    let at = victim.server.poll_timeout().unwrap();
    assert_eq!(at - victim.now, Config::default().handshake_timeout);
    victim.server.handle_timeout(at);
    assert_eq!(
        poll(&mut victim.server),
        [Event::Closed(CloseReason::HandshakeTimeout)]
    );
}

#[test]
fn a_close_that_is_never_answered_has_an_end() {
    let mut pair = Pair::open();
    pair.server.close(None);
    pair.server.take_output(pair.now);
    let at = pair.server.poll_timeout().unwrap();
    pair.server.handle_timeout(at);
    assert_eq!(poll(&mut pair.server), [Event::Closed(CloseReason::Local)]);
}

#[test]
fn a_peer_that_never_reads_has_an_end_and_a_slow_one_has_not() {
    let config = || Config {
        idle_timeout: None,
        write_timeout: Some(Duration::from_secs(7)),
        ..Config::default()
    };
    let mut pair = Pair::open_with(config(), config());
    let (session, _) = pair.session();
    let (here, there) = pair.sending_link(session, "l");
    pair.credit_to_client(there, 10);
    pair.pass(Duration::from_secs(1_000));
    assert_eq!(pair.client.poll_timeout(), None);
    pair.client.send(here, Outgoing::new(text("x"))).unwrap();
    for _ in 0..20 {
        let at = pair.client.poll_timeout().unwrap();
        pair.now = pair.now.max(at);
        pair.client.handle_timeout(pair.now);
        assert_eq!(poll(&mut pair.client), [], "a byte now and then is enough");
        pair.client.output_written(1, pair.now);
    }
    let from = pair.now;
    while poll(&mut pair.client).is_empty() {
        let at = pair.client.poll_timeout().unwrap();
        pair.now = pair.now.max(at);
        pair.client.handle_timeout(pair.now);
    }
    assert_eq!((pair.now - from).as_secs(), 7);
}

#[test]
fn a_peer_we_do_not_read_is_not_called_silent() {
    let server = Config {
        idle_timeout: Some(Duration::from_secs(4)),
        input_limit: 0,
        ..Config::default()
    };
    let mut pair = Pair::open_with(Config::default(), server);
    let unread = frame(0, 0, &[]).repeat(10_000);
    pair.server.input(&unread, pair.now);
    assert!(!pair.server.wants_input());
    pair.pass(Duration::from_secs(9));
    pair.server.handle_timeout(pair.now);
    assert_eq!(poll(&mut pair.server), []);
}

#[test]
fn two_peers_that_send_large_messages_at_once_both_go_on_reading() {
    let small = || Config {
        output_limit: 1_000,
        input_limit: 0,
        max_frame_size: 4_096,
        ..Config::default()
    };
    let mut pair = Pair::open_with(small(), small());
    let (session, _) = pair.session();
    let (out, server_in) = pair.sending_link(session, "out");
    let (client_in, server_out) = pair.receiving_link(session, "in");
    pair.credit_to_client(server_in, 1);
    pair.client.grant_credit(client_in, 1, false).unwrap();
    pair.at_server();
    let large = Bytes::from(vec![1; 500_000]);
    pair.client.send(out, Outgoing::new(large.clone())).unwrap();
    pair.server
        .send(server_out, Outgoing::new(large.clone()))
        .unwrap();
    assert!(pair.client.output_len() > 400_000 && !pair.client.is_writable());
    let (mut at_client, mut at_server) = (Vec::new(), Vec::new());
    while pair.client.output_len() + pair.server.output_len() > 0 {
        assert!(pair.server.wants_input() && pair.client.wants_input());
        let there = take_some(&mut pair.client, 1_000, pair.now);
        let back = take_some(&mut pair.server, 1_000, pair.now);
        pair.server.input(&there, pair.now);
        pair.client.input(&back, pair.now);
        at_server.extend(poll(&mut pair.server));
        at_client.extend(poll(&mut pair.client));
    }
    assert_eq!((messages(at_server).len(), messages(at_client).len()), (1, 1));
}

/// Writes a little, as a full socket would allow.
fn take_some(connection: &mut Connection, limit: usize, now: Instant) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[])];
    let filled = connection.output_slices(&mut slices);
    let bytes: Vec<u8> = slices[..filled]
        .iter()
        .flat_map(|slice| slice.iter().copied())
        .take(limit)
        .collect();
    connection.output_written(bytes.len(), now);
    bytes
}
