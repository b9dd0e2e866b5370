//! Frames that break other engines: each ends what it must, with the condition AMQP names, and nothing else.

mod common;

use common::*;
use daymark_amqp::*;

fn started(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut all = HEADER.to_vec();
    all.append(&mut bytes);
    all
}

/// A transfer on handle 0: delivery-id, settled and more flags, then the payload.
fn transfer(id: Option<u8>, settled: bool, more: bool, payload: &[u8]) -> Vec<u8> {
    let flag = |set| if set { 0x41 } else { 0x42 };
    let mut list = vec![0x43];
    match id {
        Some(id) => list.extend([0x52, id, 0xa0, 1, id]),
        None => list.extend([0x40, 0x40]),
    }
    list.extend([0x43, flag(settled), flag(more)]);
    let mut body = vec![0, 0x53, 0x14, 0xc0, u8::try_from(list.len() + 1).unwrap(), 6];
    body.extend(list);
    body.extend(payload);
    frame(0, 0, &body)
}

fn disposition(first: u32, last: u32, settled: bool) -> Vec<u8> {
    let mut list = vec![0x41, 0x70];
    list.extend(first.to_be_bytes());
    list.push(0x70);
    list.extend(last.to_be_bytes());
    list.extend([if settled { 0x41 } else { 0x42 }, 0, 0x53, 0x24, 0x45]);
    let mut body = vec![0, 0x53, 0x15, 0xc0, u8::try_from(list.len() + 1).unwrap(), 5];
    body.extend(list);
    frame(0, 0, &body)
}

/// An attach whose properties are lists nested this deep.
fn nested_attach(depth: usize) -> Vec<u8> {
    let mut value = vec![0x45];
    for _ in 0..depth {
        let size = u32::try_from(value.len() + 4).unwrap().to_be_bytes();
        let mut outer = vec![0xd0];
        outer.extend(size);
        outer.extend([0, 0, 0, 1]);
        outer.append(&mut value);
        value = outer;
    }
    let mut map = vec![0xa3, 1, b'p'];
    map.append(&mut value);
    let mut fields = vec![0xa1, 1, b'l', 0x43, 0x42];
    fields.extend([0x40; 8]); // modes to max-message-size
    fields.extend([0x40; 2]);
    fields.push(0xd1);
    fields.extend(u32::try_from(map.len() + 4).unwrap().to_be_bytes());
    fields.extend([0, 0, 0, 2]);
    fields.append(&mut map);
    let mut body = vec![0, 0x53, 0x12, 0xd0];
    body.extend(u32::try_from(fields.len() + 4).unwrap().to_be_bytes());
    body.extend([0, 0, 0, 14]);
    body.append(&mut fields);
    frame(0, 0, &body)
}

#[test]
fn deep_nesting_ends_the_connection_and_not_the_process() {
    let fine = nested_attach(20);
    let mut victim = Victim::begun(Config::default());
    assert!(matches!(victim.say(&fine)[..], [Event::LinkRequested { .. }]));
    let deep = nested_attach(6_900);
    assert!(deep.len() < 65_536);
    let mut victim = Victim::begun(Config::default());
    assert_eq!(victim.closed_with(&deep), condition::DECODE_ERROR);
}

#[test]
fn a_giant_disposition_range_costs_only_what_is_outstanding() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let (here, there) = pair.receiving_link(session, "l");
    pair.client.grant_credit(here, 3, false).unwrap();
    pair.at_server();
    for context in 0..3 {
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
    pair.at_client();
    // Many of them, not settling: each reports three deliveries and no more.
    for _ in 0..99 {
        pair.server
            .input(&disposition(0, i32::MAX.cast_unsigned(), false), pair.now);
        assert_eq!(poll(&mut pair.server).len(), 3);
    }
    pair.server
        .input(&disposition(0, i32::MAX.cast_unsigned(), true), pair.now);
    assert_eq!(poll(&mut pair.server).len(), 3);
    pair.server
        .input(&disposition(0, i32::MAX.cast_unsigned(), true), pair.now);
    assert_eq!(poll(&mut pair.server), []);
}

#[test]
fn changing_the_state_of_deliveries_over_and_over_ends_the_session() {
    let mut victim = Victim::attached(Config::default(), 9);
    assert_eq!(victim.say(&transfer(Some(0), false, false, b"x")).len(), 1);
    let mut update = disposition(0, 1_000, false);
    update[14] = 0x42; // role: sender
    for _ in 0..100 {
        assert_eq!(victim.say(&update).len(), 1);
    }
    assert_eq!(victim.ended_with(&update), condition::NOT_ALLOWED);
}

#[test]
fn deep_nesting_inside_a_message_is_carried_and_not_followed() {
    let mut value = vec![0x45];
    for _ in 0..5_000 {
        let size = u32::try_from(value.len() + 4).unwrap().to_be_bytes();
        value.splice(0..0, [0xd0, size[0], size[1], size[2], size[3], 0, 0, 0, 1]);
    }
    let mut annotations = vec![0, 0x53, 0x72, 0xd1];
    annotations.extend(u32::try_from(value.len() + 7).unwrap().to_be_bytes());
    annotations.extend([0, 0, 0, 2, 0xa3, 1, b'k']);
    annotations.extend(value);
    annotations.extend([0, 0x53, 0x77, 0xa1, 1, b'x']);
    let mut victim = Victim::attached(Config::default(), 9);
    let got = messages(victim.say(&transfer(Some(0), false, false, &annotations)));
    assert_eq!(*got[0].payload, annotations);
    let view = message::MessageView::parse(&got[0].payload).unwrap();
    assert_eq!(view.body().unwrap(), message::Body::Value(ValueRef::String("x")));
    let nested = view.message_annotation("k").unwrap();
    assert_eq!(nested.to_value(), Err(DecodeError::TooDeep));
}

#[test]
fn a_disposition_range_that_runs_backwards_ends_the_session() {
    let mut victim = Victim::attached(Config::default(), 1);
    assert_eq!(
        victim.ended_with(&disposition(0, u32::MAX - 1, true)),
        condition::INVALID_FIELD
    );
}

#[test]
fn a_frame_smaller_than_its_head_is_a_framing_error() {
    for size in 0..8 {
        let mut victim = Victim::fresh(Config::default());
        assert_eq!(
            victim.closed_with(&started(vec![0, 0, 0, size, 2, 0, 0, 0])),
            condition::FRAMING_ERROR
        );
    }
    for doff in [0, 1, 3] {
        let mut victim = Victim::fresh(Config::default());
        assert_eq!(
            victim.closed_with(&started(vec![0, 0, 0, 8, doff, 0, 0, 0])),
            condition::FRAMING_ERROR
        );
    }
}

#[test]
fn a_frame_larger_than_agreed_is_refused_by_its_head_alone() {
    let mut victim = Victim::opened(Config {
        max_frame_size: 1_000,
        ..Config::default()
    });
    assert_eq!(
        victim.closed_with(&[0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0]),
        condition::FRAMING_ERROR
    );
    let mut victim = Victim::opened(Config {
        max_frame_size: 1_000,
        ..Config::default()
    });
    assert_eq!(
        victim.closed_with(&[0, 0, 3, 233, 2, 0, 0, 0]),
        condition::FRAMING_ERROR
    );
    let mut victim = Victim::opened(Config {
        max_frame_size: 1_000,
        ..Config::default()
    });
    assert_eq!(
        victim.say(&[0, 0, 3, 232, 2, 0, 0, 0]),
        [],
        "one byte less is waited for"
    );
}

#[test]
fn any_frame_before_open_is_not_allowed() {
    for body in [BEGIN, ATTACH] {
        let mut victim = Victim::fresh(Config::default());
        assert_eq!(
            victim.closed_with(&started(frame(0, 0, body))),
            condition::NOT_ALLOWED
        );
        let said = victim.server.take_output(victim.now);
        assert!(
            said.starts_with(HEADER) && said.windows(3).any(|w| w == [0, 0x53, 0x18]),
            "Close is said"
        );
        assert!(victim.server.is_finished());
    }
}

#[test]
fn a_second_open_is_not_allowed() {
    let mut victim = Victim::opened(Config::default());
    assert_eq!(victim.closed_with(&frame(0, 0, OPEN)), condition::NOT_ALLOWED);
}

#[test]
fn counts_larger_than_their_bytes_are_decode_errors() {
    for body in [
        &[0, 0x53, 0x10, 0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff][..],
        &[
            0, 0x53, 0x10, 0xd0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
        &[0, 0x53, 0x10, 0xc0, 1, 255],
        // offered-capabilities: 2^32-1 symbols of no bytes
        &[
            0, 0x53, 0x10, 0xc0, 20, 8, 0xa1, 0, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0xf0, 0, 0, 0, 5, 0xff,
            0xff, 0xff, 0xff, 0x40,
        ],
    ] {
        let mut victim = Victim::fresh(Config::default());
        assert_eq!(
            victim.closed_with(&started(frame(0, 0, body))),
            condition::DECODE_ERROR,
            "{body:?}"
        );
    }
}

#[test]
fn what_is_no_performative_is_a_decode_error() {
    for body in [
        &[0, 0x53, 0x99, 0x45][..],                  // unknown descriptor
        &[0, 0xa3, 3, b'f', b'o', b'o', 0x45],       // unknown name
        &[0x45],                                     // not described
        &[0, 0x53, 0x10],                            // cut off
        &[0, 0x53, 0x10, 0xc1, 1, 0],                // a map
        &[0, 0x53, 0x10, 0xc0, 2, 1, 0x44],          // container-id is a number
        &[0, 0x53, 0x10, 0x45],                      // no container-id
        &[0, 0x53, 0x10, 0xc0, 4, 1, 0xa1, 1, 0xff], // not UTF-8
    ] {
        let mut victim = Victim::fresh(Config::default());
        assert_eq!(
            victim.closed_with(&started(frame(0, 0, body))),
            condition::DECODE_ERROR,
            "{body:?}"
        );
    }
}

#[test]
fn names_are_as_good_as_numbers_for_descriptors() {
    let mut body = vec![0, 0xa3, 14];
    body.extend(b"amqp:open:list");
    body.extend(&OPEN[3..]);
    let mut victim = Victim::fresh(Config::default());
    assert!(matches!(
        victim.say(&started(frame(0, 0, &body)))[..],
        [Event::RemoteOpen(_)]
    ));
}

#[test]
fn a_tiny_max_frame_size_is_an_invalid_field() {
    let body = [0, 0x53, 0x10, 0xc0, 7, 3, 0xa1, 1, b'x', 0x40, 0x52, 100];
    let mut victim = Victim::fresh(Config::default());
    assert_eq!(
        victim.closed_with(&started(frame(0, 0, &body))),
        condition::INVALID_FIELD
    );
}

#[test]
fn another_protocol_is_answered_with_ours_and_dropped() {
    for hello in [
        *b"GET / HT",
        *b"AMQP\x00\x00\x09\x01",
        *b"AMQP\x02\x01\x00\x00",
        *b"AMQP\x03\x01\x00\x00",
    ] {
        let mut victim = Victim::fresh(Config::default());
        assert_eq!(
            victim.say(&hello),
            [Event::Closed(CloseReason::UnsupportedProtocol(hello))]
        );
        assert_eq!(victim.server.take_output(victim.now), HEADER);
        assert!(victim.server.is_finished());
    }
}

#[test]
fn channels_and_handles_have_a_highest_number() {
    let config = || Config {
        max_sessions: 4,
        max_links: 4,
        ..Config::default()
    };
    assert_eq!(
        Victim::opened(config()).closed_with(&frame(0, 4, BEGIN)),
        condition::FRAMING_ERROR
    );
    assert_eq!(
        Victim::opened(config()).closed_with(&frame(0, 0xffff, BEGIN)),
        condition::FRAMING_ERROR
    );
    assert_eq!(
        Victim::begun(config()).closed_with(&frame(0, 0, BEGIN)),
        condition::NOT_ALLOWED
    );
    assert_eq!(
        Victim::begun(config()).closed_with(&frame(0, 1, ATTACH)),
        condition::NOT_ALLOWED
    );
    let mut attach = ATTACH.to_vec();
    attach.splice(8..9, [b'l']);
    attach.splice(9..10, [0x52, 4]);
    attach[4] += 1;
    assert_eq!(
        Victim::begun(config()).closed_with(&frame(0, 0, &attach)),
        condition::FRAMING_ERROR
    );
    assert_eq!(
        Victim::attached(config(), 1).ended_with(&frame(0, 0, ATTACH)),
        condition::HANDLE_IN_USE
    );
}

#[test]
fn a_begin_that_answers_nothing_is_an_invalid_field() {
    let mut begin = BEGIN.to_vec();
    begin.splice(6..7, [0x60, 0, 7]);
    begin[4] += 2;
    assert_eq!(
        Victim::opened(Config::default()).closed_with(&frame(0, 0, &begin)),
        condition::INVALID_FIELD
    );
}

#[test]
fn transfers_without_link_credit_or_id_end_what_they_belong_to() {
    let fresh = |credit| Victim::attached(Config::default(), credit);
    let mut begun = Victim::begun(Config::default());
    assert_eq!(
        begun.ended_with(&transfer(Some(0), false, false, b"x")),
        condition::UNATTACHED_HANDLE
    );
    assert_eq!(
        fresh(0).detached_with(&transfer(Some(0), false, false, b"x")),
        condition::TRANSFER_LIMIT_EXCEEDED
    );
    assert_eq!(
        fresh(1).ended_with(&transfer(None, false, false, b"x")),
        condition::INVALID_FIELD
    );
    let mut twice = fresh(5);
    assert_eq!(twice.say(&transfer(Some(7), false, false, b"x")).len(), 1);
    assert_eq!(
        twice.ended_with(&transfer(Some(7), false, false, b"x")),
        condition::INVALID_FIELD
    );
    let mut inside = fresh(5);
    assert_eq!(inside.say(&transfer(Some(7), false, true, b"x")), []);
    assert_eq!(
        inside.ended_with(&transfer(Some(8), false, false, b"x")),
        condition::INVALID_FIELD
    );
}

#[test]
fn frames_after_a_session_failed_are_ignored_until_its_end() {
    let mut victim = Victim::attached(Config::default(), 5);
    victim.ended_with(&transfer(None, false, false, b"x"));
    assert_eq!(victim.say(&transfer(Some(1), false, false, b"x")), []);
    assert_eq!(victim.say(&frame(0, 0, ATTACH)), []);
    assert_eq!(victim.say(&frame(0, 0, &[0, 0x53, 0x17, 0x45])), []);
    assert!(
        matches!(victim.say(&frame(0, 0, BEGIN))[..], [Event::SessionBegun { .. }]),
        "the channel is free"
    );
}

#[test]
fn frames_after_a_link_failed_are_ignored_and_the_session_lives() {
    let mut victim = Victim::attached(Config::default(), 0);
    victim.detached_with(&transfer(Some(0), false, true, b"x"));
    assert_eq!(victim.say(&transfer(None, false, false, b"x")), []);
    assert_eq!(victim.say(&transfer(Some(1), false, false, b"x")), []);
    assert_eq!(
        victim.say(&frame(0, 0, &[0, 0x53, 0x16, 0xc0, 3, 2, 0x43, 0x41])),
        []
    );
    assert!(
        matches!(
            victim.say(&frame(0, 0, ATTACH))[..],
            [Event::LinkRequested { .. }]
        ),
        "the handle is free"
    );
}

#[test]
fn more_transfers_than_the_window_end_the_session() {
    let mut victim = Victim::attached(
        Config {
            incoming_window: 3,
            ..Config::default()
        },
        100,
    );
    for id in 0..3 {
        assert_eq!(victim.say(&transfer(Some(id), true, false, b"x")).len(), 1);
    }
    assert_eq!(
        victim.ended_with(&transfer(Some(3), true, false, b"x")),
        condition::WINDOW_VIOLATION
    );
}

#[test]
fn messages_larger_than_allowed_end_the_link_whether_in_one_frame_or_many() {
    let config = || Config {
        max_message_size: 100,
        ..Config::default()
    };
    let mut whole = Victim::attached(config(), 5);
    assert_eq!(
        whole.detached_with(&transfer(Some(0), false, false, &[0; 101])),
        condition::MESSAGE_SIZE_EXCEEDED
    );
    let mut parts = Victim::attached(config(), 5);
    assert_eq!(parts.say(&transfer(Some(0), false, true, &[0; 60])), []);
    assert_eq!(
        parts.detached_with(&transfer(None, false, true, &[0; 60])),
        condition::MESSAGE_SIZE_EXCEEDED
    );
}

#[test]
fn half_sent_messages_have_a_limit_together() {
    let config = Config {
        max_partial: 100,
        ..Config::default()
    };
    let mut victim = Victim::attached(config, 5);
    assert_eq!(victim.say(&transfer(Some(0), false, true, &[0; 60])), []);
    assert_eq!(
        victim.closed_with(&transfer(None, false, true, &[0; 60])),
        condition::RESOURCE_LIMIT_EXCEEDED
    );
}

#[test]
fn unsettled_deliveries_have_a_limit_whatever_credit_was_granted() {
    let mut victim = Victim::attached(
        Config {
            max_unsettled: 2,
            ..Config::default()
        },
        100,
    );
    for id in 0..2 {
        assert_eq!(victim.say(&transfer(Some(id), false, false, b"x")).len(), 1);
    }
    assert_eq!(
        victim.detached_with(&transfer(Some(2), false, false, b"x")),
        condition::RESOURCE_LIMIT_EXCEEDED
    );
}

#[test]
fn an_aborted_delivery_leaves_nothing_behind() {
    let mut victim = Victim::attached(Config::default(), 5);
    assert_eq!(victim.say(&transfer(Some(0), false, true, b"half")), []);
    // handle 0, then only the last field, aborted, set.
    let abort = [
        0, 0x53, 0x14, 0xc0, 11, 10, 0x43, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x40, 0x41,
    ];
    let link = victim.link.unwrap();
    assert_eq!(victim.say(&frame(0, 0, &abort)), [Event::Aborted { link }]);
    assert_eq!(
        (victim.server.unsettled(link), victim.server.credit(link)),
        (0, 4)
    );
    let events = victim.say(&transfer(Some(1), false, false, b"whole"));
    assert!(
        matches!(&events[..], [Event::Message(m)] if *m.payload == *b"whole"),
        "{events:?}"
    );
}

#[test]
fn a_delivery_settled_before_it_is_whole_comes_settled_and_counts_once() {
    let by_sender = |settled| {
        let mut frame = disposition(0, 0, settled);
        frame[14] = 0x42; // The role: sender.
        frame
    };
    for last in [true, false] {
        let mut victim = Victim::attached(Config::default(), 5);
        assert_eq!(victim.say(&transfer(Some(0), false, true, b"ha")), []);
        assert_eq!(victim.say(&transfer(Some(0), false, true, b"l")), []);
        assert_eq!(victim.say(&by_sender(false)), []);
        assert_eq!(victim.say(&by_sender(true)), []);
        let link = victim.link.unwrap();
        assert_eq!(victim.server.unsettled(link), 0);
        if last {
            let events = victim.say(&transfer(None, false, false, b"f"));
            assert!(
                matches!(&events[..], [Event::Message(m)] if m.settled && *m.payload == *b"half"),
                "{events:?}"
            );
        }
        assert_eq!(victim.server.unsettled(link), 0);
    }
}

#[test]
fn a_peer_that_asks_and_never_reads_is_not_parsed_for_ever() {
    let mut victim = Victim::attached(
        Config {
            output_limit: 10_000,
            ..Config::default()
        },
        0,
    );
    // Flow with echo: every one wants an answer.
    let flow = [
        0, 0x53, 0x13, 0xc0, 13, 10, 0x43, 0x52, 9, 0x43, 0x52, 9, 0x40, 0x40, 0x40, 0x40, 0x42, 0x41,
    ];
    let many = frame(0, 0, &flow).repeat(20_000);
    victim.server.input(&many, victim.now);
    assert_eq!(poll(&mut victim.server), []);
    assert!(victim.server.output_len() < 11_000);
    assert!(!victim.server.wants_input());
    while victim.server.input_len() > 0 {
        assert!(!victim.server.take_output(victim.now).is_empty());
        poll(&mut victim.server);
    }
    assert!(victim.server.wants_input());
}

#[test]
fn an_owner_that_does_not_poll_is_not_fed_without_limit() {
    let mut victim = Victim::attached(
        Config {
            input_limit: 1_000,
            ..Config::default()
        },
        100,
    );
    assert!(victim.server.wants_input());
    victim.server.input(&frame(0, 0, &[]).repeat(10_000), victim.now);
    assert!(!victim.server.wants_input());
    poll(&mut victim.server);
    assert!(victim.server.wants_input());
}

#[test]
fn nothing_is_heard_after_the_end() {
    let mut victim = Victim::attached(Config::default(), 5);
    victim.closed_with(&[0, 0, 0, 4, 2, 0, 0, 0]);
    assert_eq!(victim.say(&transfer(Some(0), false, false, b"x")), []);
    assert_eq!(victim.server.input_len(), 0);
    assert_eq!(victim.server.begin(), Err(CommandError::NotOpen));
}
