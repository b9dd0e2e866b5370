//! The coordinator asks its owner and waits; transactional work carries its transaction.

mod common;

use common::*;
use daymark_amqp::*;

/// A flow on handle 0 that gives credit for five messages, with these properties.
fn flow_with(properties: &[u8]) -> Vec<u8> {
    let mut fields = vec![
        0x43, 0x52, 9, 0x43, 0x52, 9, 0x43, 0x43, 0x52, 5, 0x40, 0x42, 0x42,
    ];
    fields.extend(properties);
    let mut body = vec![0, 0x53, 0x13, 0xc0, u8::try_from(fields.len() + 1).unwrap(), 11];
    body.extend(fields);
    frame(0, 0, &body)
}

#[test]
fn acquiring_by_a_transaction_is_refused_and_other_properties_of_a_flow_are_not() {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let (here, there) = pair.receiving_link(session, "l");
    let harmless = [&[0xc1, 8, 2, 0xa3, 3][..], b"foo", &[0x52, 1]].concat();
    pair.server.input(&flow_with(&harmless), pair.now);
    let credited = Event::Credit {
        link: there,
        credit: 5,
        drain: false,
    };
    assert_eq!(poll(&mut pair.server), [credited]);
    let acquiring = [&[0xc1, 12, 2, 0xa3, 6][..], b"txn-id", &[0xa0, 1, 7]].concat();
    pair.server.input(&flow_with(&acquiring), pair.now);
    assert_eq!(poll(&mut pair.server), []);
    let told = pair.at_client();
    let [
        Event::LinkDetached {
            link,
            closed: true,
            error: Some(error),
            by_peer: true,
            ..
        },
    ] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((*link, &error.condition), (here, &condition::NOT_IMPLEMENTED));
    pair.client.detach(here, true, None).unwrap();
    let ended = pair.at_server();
    assert!(
        matches!(&ended[..], [Event::LinkDetached { link, by_peer: false, .. }] if *link == there),
        "{ended:?}"
    );
}

struct Transacted {
    pair: Pair,
    session: SessionId,
    /// The coordinator's link: the client's and the server's id.
    here: LinkId,
    there: LinkId,
}

fn transacted() -> Transacted {
    let mut pair = Pair::open();
    let (session, _) = pair.session();
    let attach = AttachOptions {
        name: "txn".into(),
        source: Some(Source::default()),
        target: Some(Target::Coordinator {
            capabilities: vec![txn::LOCAL_TRANSACTIONS],
        }),
        ..AttachOptions::default()
    };
    let here = pair.client.attach_sender(session, attach).unwrap();
    let events = pair.at_server();
    let [
        Event::LinkRequested {
            link: there, attach, ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(matches!(attach.target, Some(Target::Coordinator { .. })));
    pair.server
        .accept_link(*there, AcceptOptions::echo(attach))
        .unwrap();
    pair.server.grant_credit(*there, 10, false).unwrap();
    pair.at_client();
    Transacted {
        here,
        there: *there,
        session,
        pair,
    }
}

impl Transacted {
    fn declare(&mut self) -> TxnId {
        self.pair
            .client
            .send(self.here, Outgoing::new(txn::declare(None)))
            .unwrap();
        let events = self.pair.at_server();
        let [
            Event::Declare {
                link,
                delivery,
                global_id: None,
            },
        ] = events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(link, self.there);
        let id = TxnId::new(&b"txn-1"[..]);
        self.pair
            .server
            .settle(link, delivery, DeliveryState::Declared(id.clone()), true)
            .unwrap();
        let events = self.pair.at_client();
        let [
            Event::Disposition {
                state: Some(DeliveryState::Declared(declared)),
                ..
            },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!(*declared, id);
        id
    }
}

#[test]
fn a_transaction_is_declared_used_both_ways_and_committed_when_the_owner_says_so() {
    let mut t = transacted();
    let (out, server_in) = t.pair.sending_link(t.session, "out");
    let (client_in, server_out) = t.pair.receiving_link(t.session, "in");
    t.pair.credit_to_client(server_in, 10);
    t.pair.client.grant_credit(client_in, 10, false).unwrap();
    t.pair.at_server();
    t.pair
        .server
        .send(
            server_out,
            Outgoing {
                context: 5,
                ..Outgoing::new(text("work"))
            },
        )
        .unwrap();
    let work = messages(t.pair.at_client());

    let id = t.declare();
    t.pair
        .client
        .send(
            out,
            Outgoing {
                txn: Some(id.clone()),
                ..Outgoing::new(text("result"))
            },
        )
        .unwrap();
    let state = DeliveryState::Transactional {
        txn: id.clone(),
        outcome: Some(Outcome::Accepted),
    };
    t.pair
        .client
        .settle(client_in, work[0].delivery, state.clone(), true)
        .unwrap();
    t.pair
        .client
        .send(t.here, Outgoing::new(txn::discharge(&id, false)))
        .unwrap();

    let events = t.pair.at_server();
    let [
        Event::Message(result),
        Event::Disposition {
            context: 5,
            state: Some(acked),
            settled: true,
            ..
        },
        Event::Discharge {
            delivery,
            txn,
            fail: false,
            ..
        },
    ] = &events[..]
    else {
        panic!("the settlement must not be overtaken: {events:?}")
    };
    assert_eq!((result.txn.as_ref(), acked, txn), (Some(&id), &state, &id));
    assert_eq!(
        t.pair.at_client(),
        [],
        "nothing is said before the owner has committed"
    );
    t.pair
        .server
        .settle(t.there, *delivery, DeliveryState::ACCEPTED, true)
        .unwrap();
    let events = t.pair.at_client();
    assert!(
        matches!(
            &events[..],
            [Event::Disposition {
                state: Some(DeliveryState::ACCEPTED),
                ..
            }]
        ),
        "{events:?}"
    );
}

#[test]
fn a_commit_that_fails_is_rejected_as_rolled_back() {
    let mut t = transacted();
    let id = t.declare();
    t.pair
        .client
        .send(t.here, Outgoing::new(txn::discharge(&id, false)))
        .unwrap();
    let events = t.pair.at_server();
    let [Event::Discharge { link, delivery, .. }] = events[..] else {
        panic!("{events:?}")
    };
    let outcome = Outcome::rejected(AmqpError::new(condition::TRANSACTION_ROLLBACK, "duplicate"));
    t.pair
        .server
        .settle(link, delivery, outcome.clone().into(), true)
        .unwrap();
    let events = t.pair.at_client();
    let [
        Event::Disposition {
            state: Some(state), ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(state.outcome(), Some(&outcome));
}

#[test]
fn a_rollback_and_a_global_id_are_seen() {
    let mut t = transacted();
    t.pair
        .client
        .send(t.here, Outgoing::new(txn::declare(Some(b"xid"))))
        .unwrap();
    t.pair
        .client
        .send(
            t.here,
            Outgoing::new(txn::discharge(&TxnId::new(&b"x"[..]), true)),
        )
        .unwrap();
    let events = t.pair.at_server();
    let [
        Event::Declare {
            global_id: Some(global),
            ..
        },
        Event::Discharge { fail: true, .. },
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(**global, *b"xid");
}

#[test]
fn an_order_nobody_understands_ends_the_coordinator_link_only() {
    let mut t = transacted();
    t.pair.client.send(t.here, Outgoing::new(text("hello"))).unwrap();
    let events = t.pair.at_server();
    assert!(
        matches!(&events[..], [Event::LinkDetached { error: Some(e), .. }] if e.condition == condition::DECODE_ERROR)
    );
    t.pair.at_client();
    t.pair.sending_link(t.session, "still here");
}

#[test]
fn declare_is_understood_by_name_and_behind_other_sections() {
    let mut t = transacted();
    // A header, properties, then amqp-value with the declare described by its symbol.
    let mut order = vec![
        0, 0x53, 0x70, 0x45, 0, 0x53, 0x73, 0x45, 0, 0x53, 0x77, 0, 0xa3, 17,
    ];
    order.extend(b"amqp:declare:list");
    order.push(0x45);
    t.pair.client.send(t.here, Outgoing::new(order.into())).unwrap();
    let events = t.pair.at_server();
    assert!(matches!(events[..], [Event::Declare { .. }]), "{events:?}");
}
