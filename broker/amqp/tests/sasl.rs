//! Who may enter is asked before anything else is heard.

mod common;

use bytes::Bytes;
use common::*;
use daymark_amqp::scram::{ScramClient, ScramCredential, ScramServer};
use daymark_amqp::*;

fn server(mechanisms: &[Symbol], required: bool) -> Config {
    Config {
        sasl: Sasl::Server {
            mechanisms: mechanisms.to_vec(),
            required,
        },
        ..Config::default()
    }
}

fn client(sasl: Sasl) -> Config {
    Config {
        sasl,
        ..Config::default()
    }
}

/// Carries bytes until the server has a question or nothing moves.
fn settle(pair: &mut Pair) -> (Vec<Event>, Vec<Event>) {
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        at_server.extend(pair.at_server());
        at_client.extend(pair.at_client());
    }
    (at_server, at_client)
}

fn plain() -> Sasl {
    Sasl::Plain {
        user: "alice".into(),
        password: "secret".into(),
    }
}

#[test]
fn plain_credentials_are_handed_out_and_the_answer_lets_the_client_in() {
    let mut pair = Pair::new(
        client(plain()),
        server(&[mechanism::PLAIN, mechanism::ANONYMOUS], true),
    );
    pair.client.open(OpenOptions::new("c")).unwrap();
    let (at_server, _) = settle(&mut pair);
    let [Event::SaslInit(init)] = &at_server[..] else {
        panic!("{at_server:?}")
    };
    let expected = Credentials::Plain {
        authorization_id: String::new(),
        user: "alice".into(),
        password: "secret".into(),
    };
    assert_eq!(
        (&init.mechanism, &init.credentials),
        (&mechanism::PLAIN, &expected)
    );
    assert!(
        !format!("{init:?}").contains("secret"),
        "passwords stay out of logs"
    );
    pair.server.sasl_outcome(SaslCode::Ok, None).unwrap();
    let (at_server, at_client) = settle(&mut pair);
    assert!(
        matches!(
            at_client[..],
            [Event::SaslOutcome {
                code: SaslCode::Ok,
                ..
            }]
        ),
        "{at_client:?}"
    );
    assert!(matches!(at_server[..], [Event::RemoteOpen(_)]), "{at_server:?}");
}

#[test]
fn a_wrong_password_ends_both_sides() {
    let mut pair = Pair::new(client(plain()), server(&[mechanism::PLAIN], true));
    pair.client.open(OpenOptions::new("c")).unwrap();
    settle(&mut pair);
    pair.server.sasl_outcome(SaslCode::Auth, None).unwrap();
    let (at_server, at_client) = settle(&mut pair);
    assert_eq!(
        at_server,
        [Event::Closed(CloseReason::SaslFailed(SaslCode::Auth))]
    );
    let outcome = Event::SaslOutcome {
        code: SaslCode::Auth,
        additional: None,
    };
    assert_eq!(
        at_client,
        [outcome, Event::Closed(CloseReason::SaslFailed(SaslCode::Auth))]
    );
    assert_eq!(
        pair.server.open(OpenOptions::new("s")),
        Err(CommandError::NotOpen)
    );
}

#[test]
fn a_mechanism_that_was_not_offered_is_refused_without_asking() {
    let mut pair = Pair::new(client(Sasl::Anonymous), server(&[mechanism::PLAIN], true));
    let (_, at_client) = settle(&mut pair);
    assert_eq!(
        at_client,
        [Event::Closed(CloseReason::SaslFailed(SaslCode::Auth))]
    );
    let mut victim = Victim::fresh(server(&[mechanism::PLAIN], true));
    let mut bytes = b"AMQP\x03\x01\x00\x00".to_vec();
    bytes.extend(frame(
        1,
        0,
        &[
            0, 0x53, 0x41, 0xc0, 12, 1, 0xa3, 9, b'A', b'N', b'O', b'N', b'Y', b'M', b'O', b'U', b'S',
        ],
    ));
    assert_eq!(
        victim.say(&bytes),
        [Event::Closed(CloseReason::SaslFailed(SaslCode::Auth))]
    );
}

#[test]
fn one_port_serves_clients_with_and_without_sasl() {
    for sasl in [Sasl::None, Sasl::Anonymous, Sasl::External] {
        let mechanisms = [mechanism::ANONYMOUS, mechanism::EXTERNAL];
        let mut pair = Pair::new(client(sasl.clone()), server(&mechanisms, false));
        pair.client.open(OpenOptions::new("c")).unwrap();
        let (mut at_server, _) = settle(&mut pair);
        if sasl != Sasl::None {
            assert!(matches!(at_server[..], [Event::SaslInit(_)]), "{at_server:?}");
            pair.server.sasl_outcome(SaslCode::Ok, None).unwrap();
            at_server = settle(&mut pair).0;
        }
        assert!(matches!(at_server[..], [Event::RemoteOpen(_)]), "{at_server:?}");
    }
}

#[test]
fn a_client_without_sasl_is_turned_away_where_it_is_required() {
    let mut victim = Victim::fresh(server(&[mechanism::PLAIN], true));
    let mut hello = [0; 8];
    hello.copy_from_slice(HEADER);
    assert_eq!(
        victim.say(HEADER),
        [Event::Closed(CloseReason::UnsupportedProtocol(hello))]
    );
    assert_eq!(victim.server.take_output(victim.now), b"AMQP\x03\x01\x00\x00");
}

#[test]
fn what_a_client_sends_ahead_waits_for_the_decision() {
    let mut victim = Victim::fresh(server(&[mechanism::ANONYMOUS], true));
    let mut bytes = b"AMQP\x03\x01\x00\x00".to_vec();
    bytes.extend(frame(
        1,
        0,
        &[
            0, 0x53, 0x41, 0xc0, 12, 1, 0xa3, 9, b'A', b'N', b'O', b'N', b'Y', b'M', b'O', b'U', b'S',
        ],
    ));
    bytes.extend(HEADER);
    bytes.extend(frame(0, 0, OPEN));
    bytes.extend(frame(0, 0, BEGIN));
    assert!(matches!(victim.say(&bytes)[..], [Event::SaslInit(_)]));
    assert_eq!(poll(&mut victim.server), []);
    victim.server.sasl_outcome(SaslCode::Ok, None).unwrap();
    let events = poll(&mut victim.server);
    assert!(
        matches!(events[..], [Event::RemoteOpen(_), Event::SessionBegun { .. }]),
        "{events:?}"
    );
}

#[test]
fn a_second_sasl_layer_and_frames_out_of_turn_are_refused() {
    let mut victim = Victim::fresh(server(&[mechanism::ANONYMOUS], true));
    let mut bytes = b"AMQP\x03\x01\x00\x00".to_vec();
    bytes.extend(frame(1, 0, &[0, 0x53, 0x43, 0xc0, 3, 1, 0xa0, 0]));
    assert_eq!(victim.closed_with(&bytes), condition::NOT_ALLOWED);
    let mut victim = Victim::fresh(server(&[mechanism::ANONYMOUS], true));
    let mut bytes = b"AMQP\x03\x01\x00\x00".to_vec();
    bytes.extend(frame(0, 0, OPEN));
    assert_eq!(victim.closed_with(&bytes), condition::FRAMING_ERROR);
}

#[test]
fn a_challenge_goes_to_the_client_and_its_response_back() {
    let mechanism = Symbol::from_static("X-TWO-STEPS");
    let sasl = Sasl::Custom {
        mechanism: mechanism.clone(),
        initial_response: Some(Bytes::from_static(b"one")),
    };
    let mut pair = Pair::new(client(sasl), server(&[mechanism], true));
    let (at_server, _) = settle(&mut pair);
    let [Event::SaslInit(init)] = &at_server[..] else {
        panic!("{at_server:?}")
    };
    assert_eq!(
        init.credentials,
        Credentials::Other {
            response: Some(Bytes::from_static(b"one"))
        }
    );
    pair.server.sasl_challenge(Bytes::from_static(b"two")).unwrap();
    let (_, at_client) = settle(&mut pair);
    assert_eq!(at_client, [Event::SaslChallenge(Bytes::from_static(b"two"))]);
    pair.client.sasl_response(Bytes::from_static(b"three")).unwrap();
    let (at_server, _) = settle(&mut pair);
    assert_eq!(at_server, [Event::SaslResponse(Bytes::from_static(b"three"))]);
    pair.server
        .sasl_outcome(SaslCode::Ok, Some(Bytes::from_static(b"four")))
        .unwrap();
    let (_, at_client) = settle(&mut pair);
    let additional = Some(Bytes::from_static(b"four"));
    assert_eq!(
        at_client,
        [Event::SaslOutcome {
            code: SaslCode::Ok,
            additional
        }]
    );
}

#[test]
fn scram_proves_the_password_both_ways_without_sending_it() {
    let (mut client_side, first) = ScramClient::begin("alice", "secret", "client-nonce-client-nonce");
    let sasl = Sasl::Custom {
        mechanism: mechanism::SCRAM_SHA_256,
        initial_response: Some(first),
    };
    let mut pair = Pair::new(client(sasl), server(&[mechanism::SCRAM_SHA_256], true));
    let (at_server, _) = settle(&mut pair);
    let [Event::SaslInit(init)] = &at_server[..] else {
        panic!("{at_server:?}")
    };
    let Credentials::Other {
        response: Some(first),
    } = &init.credentials
    else {
        panic!("{init:?}")
    };
    let credential = ScramCredential::derive("secret", b"salt-of-alice", 4_096);
    let mut server_side = ScramServer::begin(first, "server-nonce-server-nonce").unwrap();
    assert_eq!(server_side.user(), "alice");
    pair.server
        .sasl_challenge(server_side.challenge(&credential))
        .unwrap();

    let (_, at_client) = settle(&mut pair);
    let [Event::SaslChallenge(challenge)] = &at_client[..] else {
        panic!("{at_client:?}")
    };
    pair.client
        .sasl_response(client_side.respond(challenge).unwrap())
        .unwrap();

    let (at_server, _) = settle(&mut pair);
    let [Event::SaslResponse(response)] = &at_server[..] else {
        panic!("{at_server:?}")
    };
    let proof = server_side.finish(response, &credential).unwrap();
    pair.server.sasl_outcome(SaslCode::Ok, Some(proof)).unwrap();

    let (_, at_client) = settle(&mut pair);
    let [
        Event::SaslOutcome {
            code: SaslCode::Ok,
            additional: Some(proof),
        },
    ] = &at_client[..]
    else {
        panic!("{at_client:?}")
    };
    assert_eq!(client_side.verify(proof), Ok(()));
}
