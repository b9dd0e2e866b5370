//! Whatever we write we can read, and whatever we are sent we survive.

use crate::config::Config;
use crate::error::AmqpError;
use crate::message::{MessageBuilder, MessageView};
use crate::performative::{
    Attach, Begin, DeliveryTag, Detach, Disposition, Flow, Open, Performative, RcvSettleMode, Role,
    SndSettleMode, Transfer,
};
use crate::read::{DecodeError, MAX_DEPTH, Reader};
use crate::sasl::{SaslCode, SaslFrame};
use crate::state::{DeliveryState, Outcome, TxnId};
use crate::terminus::{DistributionMode, Durability, ExpiryPolicy, Source, Target, TargetNode};
use crate::value::{Fields, Symbol, Value};
use crate::write::put_value;
use crate::{Connection, Event, OpenOptions};
use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use std::sync::Arc;
use std::time::Instant;

fn symbol() -> impl Strategy<Value = Symbol> {
    "[ -~]{0,12}".prop_map(|text| Symbol::new(text).unwrap())
}

pub(crate) fn scalar() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<u8>().prop_map(Value::Ubyte),
        any::<u16>().prop_map(Value::Ushort),
        prop_oneof![any::<u32>(), 0..300_u32].prop_map(Value::Uint),
        prop_oneof![any::<u64>(), 0..300_u64].prop_map(Value::Ulong),
        any::<i8>().prop_map(Value::Byte),
        any::<i16>().prop_map(Value::Short),
        prop_oneof![any::<i32>(), -200..200_i32].prop_map(Value::Int),
        prop_oneof![any::<i64>(), -200..200_i64].prop_map(Value::Long),
        any::<i32>().prop_map(|n| Value::Float(n as f32)),
        any::<i32>().prop_map(|n| Value::Double(n.into())),
        any::<[u8; 4]>().prop_map(Value::Decimal32),
        any::<[u8; 8]>().prop_map(Value::Decimal64),
        any::<[u8; 16]>().prop_map(Value::Decimal128),
        any::<char>().prop_map(Value::Char),
        any::<i64>().prop_map(Value::Timestamp),
        any::<[u8; 16]>().prop_map(Value::Uuid),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Binary(bytes.into())),
        ".{0,80}".prop_map(Value::String),
        symbol().prop_map(Value::Symbol),
    ]
    .boxed()
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::List),
            vec((inner.clone(), inner.clone()), 0..5).prop_map(Value::Map),
            vec(any::<u32>(), 0..8)
                .prop_map(|items| Value::Array(items.into_iter().map(Value::Uint).collect())),
            // Arrays of every scalar type.
            (scalar(), 1..6_usize).prop_map(|(item, count)| Value::Array(vec![item; count])),
            vec(symbol(), 0..8)
                .prop_map(|items| Value::Array(items.into_iter().map(Value::Symbol).collect())),
            vec(vec(inner.clone(), 0..3), 1..4)
                .prop_map(|items| Value::Array(items.into_iter().map(Value::List).collect())),
            vec(vec(any::<i8>(), 0..3), 0..4).prop_map(|items| {
                let arrays = items
                    .into_iter()
                    .map(|i| Value::Array(i.into_iter().map(Value::Byte).collect()));
                Value::Array(arrays.collect())
            }),
            (scalar(), vec(any::<u16>(), 1..4)).prop_map(|(descriptor, items)| {
                let described =
                    |n| Value::Described(Box::new(descriptor.clone()), Box::new(Value::Ushort(n)));
                Value::Array(items.into_iter().map(described).collect())
            }),
            (inner.clone(), inner).prop_map(|(d, v)| Value::Described(Box::new(d), Box::new(v))),
        ]
    })
}

fn fields() -> impl Strategy<Value = Fields> {
    vec((symbol(), value()), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

fn symbols() -> impl Strategy<Value = Vec<Symbol>> {
    vec(symbol(), 0..4)
}

fn error() -> impl Strategy<Value = AmqpError> {
    (symbol(), of(".{0,40}"), fields()).prop_map(|(condition, description, info)| AmqpError {
        condition,
        description,
        info,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Accepted),
        Just(Outcome::Released),
        of(error()).prop_map(|error| Outcome::Rejected(error.map(Arc::new))),
        (any::<bool>(), any::<bool>(), fields()).prop_map(|(delivery_failed, undeliverable_here, fields)| {
            let annotations = (!fields.is_empty()).then(|| Arc::new(fields));
            Outcome::Modified {
                delivery_failed,
                undeliverable_here,
                annotations,
            }
        }),
    ]
}

fn state() -> impl Strategy<Value = DeliveryState> {
    let txn = || vec(any::<u8>(), 0..40).prop_map(TxnId::new);
    prop_oneof![
        outcome().prop_map(DeliveryState::Outcome),
        (any::<u32>(), any::<u64>()).prop_map(|(section_number, section_offset)| DeliveryState::Received {
            section_number,
            section_offset
        }),
        txn().prop_map(DeliveryState::Declared),
        (txn(), of(outcome())).prop_map(|(txn, outcome)| DeliveryState::Transactional { txn, outcome }),
    ]
}

fn durability() -> impl Strategy<Value = Durability> {
    select(vec![
        Durability::None,
        Durability::Configuration,
        Durability::UnsettledState,
    ])
}

fn expiry() -> impl Strategy<Value = ExpiryPolicy> {
    use ExpiryPolicy::{ConnectionClose, LinkDetach, Never, SessionEnd};
    select(vec![LinkDetach, SessionEnd, ConnectionClose, Never])
}

fn source() -> impl Strategy<Value = Source> {
    let lifetime = (
        of(".{0,20}"),
        durability(),
        expiry(),
        any::<u32>(),
        any::<bool>(),
        fields(),
    );
    let mode = of(select(vec![DistributionMode::Move, DistributionMode::Copy]));
    (lifetime, (mode, fields(), of(outcome()), symbols(), symbols())).prop_map(|(lifetime, rest)| {
        let (address, durable, expiry_policy, timeout, dynamic, dynamic_node_properties) = lifetime;
        let (distribution_mode, filter, default_outcome, outcomes, capabilities) = rest;
        Source {
            address,
            durable,
            expiry_policy,
            timeout,
            dynamic,
            dynamic_node_properties,
            distribution_mode,
            filter,
            default_outcome,
            outcomes,
            capabilities,
        }
    })
}

fn target() -> impl Strategy<Value = Target> {
    let node = (
        of(".{0,20}"),
        durability(),
        expiry(),
        any::<u32>(),
        any::<bool>(),
        fields(),
        symbols(),
    );
    prop_oneof![
        symbols().prop_map(|capabilities| Target::Coordinator { capabilities }),
        node.prop_map(
            |(address, durable, expiry_policy, timeout, dynamic, properties, capabilities)| {
                Target::Node(TargetNode {
                    address,
                    durable,
                    expiry_policy,
                    timeout,
                    dynamic,
                    dynamic_node_properties: properties,
                    capabilities,
                })
            }
        ),
    ]
}

fn role() -> impl Strategy<Value = Role> {
    select(vec![Role::Sender, Role::Receiver])
}

fn open() -> impl Strategy<Value = Performative> {
    let names = (
        ".{0,300}",
        of(".{0,20}"),
        any::<u32>(),
        any::<u16>(),
        of(any::<u32>()),
    );
    (names, symbols(), symbols(), fields()).prop_map(|(names, offered, desired, properties)| {
        Performative::Open(Box::new(Open {
            container_id: names.0,
            hostname: names.1,
            max_frame_size: names.2,
            channel_max: names.3,
            idle_timeout: names.4,
            offered_capabilities: offered,
            desired_capabilities: desired,
            properties,
        }))
    })
}

fn attach() -> impl Strategy<Value = Performative> {
    let modes = (
        select(vec![
            SndSettleMode::Unsettled,
            SndSettleMode::Settled,
            SndSettleMode::Mixed,
        ]),
        select(vec![RcvSettleMode::First, RcvSettleMode::Second]),
    );
    let first = (".{0,20}", any::<u32>(), role(), modes, of(source()), of(target()));
    let second = (of(any::<u32>()), any::<u64>(), symbols(), symbols(), fields());
    (first, second).prop_map(|((name, handle, role, modes, source, target), second)| {
        Performative::Attach(Box::new(Attach {
            name,
            handle,
            role,
            snd_settle_mode: modes.0,
            rcv_settle_mode: modes.1,
            source,
            target,
            has_unsettled: false,
            initial_delivery_count: second.0,
            max_message_size: second.1,
            offered_capabilities: second.2,
            desired_capabilities: second.3,
            properties: second.4,
        }))
    })
}

fn flow() -> impl Strategy<Value = Performative> {
    let link = (
        of(any::<u32>()),
        of(any::<u32>()),
        of(any::<u32>()),
        of(any::<u32>()),
    );
    (of(any::<u32>()), any::<[u32; 3]>(), link, any::<[bool; 2]>()).prop_map(
        |(next, windows, link, flags)| {
            Performative::Flow(Flow {
                next_incoming_id: next,
                incoming_window: windows[0],
                next_outgoing_id: windows[1],
                outgoing_window: windows[2],
                handle: link.0,
                delivery_count: link.1,
                link_credit: link.2,
                available: link.3,
                drain: flags[0],
                echo: flags[1],
                transactional: false,
            })
        },
    )
}

fn transfer() -> impl Strategy<Value = Performative> {
    let tag = of(vec(any::<u8>(), 0..=32).prop_map(|tag| DeliveryTag::new(&tag).unwrap()));
    (
        any::<u32>(),
        of(any::<u32>()),
        tag,
        of(any::<u32>()),
        of(state()),
        any::<[bool; 4]>(),
    )
        .prop_map(|(handle, delivery_id, tag, message_format, state, flags)| {
            Performative::Transfer(Transfer {
                handle,
                delivery_id,
                tag,
                message_format,
                settled: flags[0],
                more: flags[1],
                state,
                resume: flags[2],
                aborted: flags[3],
            })
        })
}

pub(crate) fn performative() -> impl Strategy<Value = Performative> {
    let begin = (of(any::<u16>()), any::<[u32; 4]>()).prop_map(|(remote_channel, n)| {
        Performative::Begin(Begin {
            remote_channel,
            next_outgoing_id: n[0],
            incoming_window: n[1],
            outgoing_window: n[2],
            handle_max: n[3],
        })
    });
    let disposition =
        (role(), any::<[u32; 2]>(), any::<bool>(), of(state())).prop_map(|(role, n, settled, state)| {
            Performative::Disposition(Disposition {
                role,
                first: n[0],
                last: n[1],
                settled,
                state,
            })
        });
    let detach = (any::<u32>(), any::<bool>(), of(error())).prop_map(|(handle, closed, error)| {
        Performative::Detach(Detach {
            handle,
            closed,
            error,
        })
    });
    prop_oneof![
        open(),
        begin,
        attach(),
        flow(),
        transfer(),
        disposition,
        detach,
        of(error()).prop_map(Performative::End),
        of(error()).prop_map(Performative::Close),
    ]
}

pub(crate) fn sasl() -> impl Strategy<Value = SaslFrame> {
    let bytes = || vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let code = select(vec![
        SaslCode::Ok,
        SaslCode::Auth,
        SaslCode::Sys,
        SaslCode::SysPerm,
        SaslCode::SysTemp,
    ]);
    prop_oneof![
        symbols().prop_map(SaslFrame::Mechanisms),
        (symbol(), of(bytes()), of(".{0,20}")).prop_map(|(mechanism, response, hostname)| SaslFrame::Init {
            mechanism,
            response,
            hostname
        }),
        bytes().prop_map(SaslFrame::Challenge),
        bytes().prop_map(SaslFrame::Response),
        (code, of(bytes())).prop_map(|(code, additional)| SaslFrame::Outcome { code, additional }),
    ]
}

#[expect(clippy::disallowed_methods, reason = "an arbitrary start")]
fn start() -> Instant {
    Instant::now()
}

pub(crate) fn encode(performative: &Performative) -> Vec<u8> {
    let mut bytes = Vec::new();
    performative.encode(&mut bytes);
    bytes
}

/// A server that answers every question with yes, fed with a peer's bytes until they or it end.
fn survive(bytes: &[u8]) {
    let now = start();
    let mut server = Connection::server(
        Config {
            max_frame_size: 4096,
            ..Config::default()
        },
        now,
    );
    server.input(bytes, now);
    for _ in 0..10_000 {
        let Some(event) = server.poll_event() else { break };
        if let Event::RemoteOpen(_) = event {
            server.open(OpenOptions::new("s")).unwrap();
        }
        if let Event::LinkRequested { link, attach, .. } = event {
            server.accept_link(link, crate::AcceptOptions::echo(&attach)).ok();
            server.grant_credit(link, 10, false).ok();
        }
    }
    server.take_output(now);
}

fn framed(channel: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
    bytes.extend([2, 0]);
    bytes.extend(channel.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A well-behaved conversation up to an attached link.
fn prologue() -> Vec<u8> {
    let mut bytes = b"AMQP\x00\x01\x00\x00".to_vec();
    let open = Open {
        container_id: "c".into(),
        hostname: None,
        max_frame_size: 4096,
        channel_max: 9,
        idle_timeout: None,
        offered_capabilities: Vec::new(),
        desired_capabilities: Vec::new(),
        properties: Fields::new(),
    };
    let begin = Begin {
        remote_channel: None,
        next_outgoing_id: 0,
        incoming_window: 9,
        outgoing_window: 9,
        handle_max: 9,
    };
    let attach = Attach {
        name: "l".into(),
        handle: 0,
        role: Role::Sender,
        snd_settle_mode: SndSettleMode::Mixed,
        rcv_settle_mode: RcvSettleMode::First,
        source: Some(Source::default()),
        target: Some(Target::address("q")),
        has_unsettled: false,
        initial_delivery_count: Some(0),
        max_message_size: 0,
        offered_capabilities: Vec::new(),
        desired_capabilities: Vec::new(),
        properties: Fields::new(),
    };
    for performative in [
        Performative::Open(Box::new(open)),
        Performative::Begin(begin),
        Performative::Attach(Box::new(attach)),
    ] {
        bytes.extend(framed(0, &encode(&performative)));
    }
    bytes
}

proptest! {
    #[test]
    fn every_value_is_read_as_it_was_written(value in value()) {
        let mut bytes = Vec::new();
        put_value(&mut bytes, &value);
        let mut reader = Reader::new(&bytes);
        let mut skipper = reader;
        skipper.skip().unwrap();
        prop_assert!(skipper.is_empty());
        prop_assert_eq!(reader.value().unwrap(), value);
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn every_performative_is_read_as_it_was_written(performative in performative(), payload in vec(any::<u8>(), 0..9)) {
        let mut bytes = encode(&performative);
        let length = bytes.len();
        bytes.extend(payload);
        prop_assert_eq!(Performative::decode(&bytes).unwrap(), (performative, length));
    }

    #[test]
    fn every_sasl_frame_is_read_as_it_was_written(frame in sasl()) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        prop_assert_eq!(SaslFrame::decode(&bytes).unwrap(), frame);
    }

    #[test]
    fn arbitrary_bytes_are_survived_by_every_decoder(bytes in vec(any::<u8>(), 0..200)) {
        Reader::new(&bytes).value().ok();
        Performative::decode(&bytes).ok();
        SaslFrame::decode(&bytes).ok();
        look_at_all(&bytes);
        survive(&bytes);
    }

    #[test]
    fn damaged_frames_are_survived(
        performatives in vec((0..3_u16, performative(), vec(any::<u8>(), 0..40)), 1..6),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        pristine_start: bool,
    ) {
        let mut bytes = prologue();
        let protected = if pristine_start { bytes.len() } else { 0 };
        for (channel, performative, payload) in performatives {
            let mut body = encode(&performative);
            body.extend(payload);
            bytes.extend(framed(channel, &body));
        }
        for (place, value) in damage {
            let place = protected + place.index(bytes.len() - protected);
            bytes[place] = value;
        }
        survive(&bytes);
    }

    #[test]
    fn a_message_is_read_as_it_was_built(
        id in of(scalar()),
        to in of(".{0,20}"),
        properties in vec((".{0,8}", scalar()), 0..4),
        data in vec(any::<u8>(), 0..400),
        priority in any::<u8>(),
        ttl in of(any::<u32>()),
    ) {
        let mut builder = MessageBuilder::new().priority(priority);
        if let Some(ttl) = ttl { builder = builder.ttl(ttl); }
        if let Some(id) = &id { builder = builder.message_id(id.clone()); }
        if let Some(to) = &to { builder = builder.to(to.clone()); }
        for (name, value) in &properties { builder = builder.application_property(name.clone(), value.clone()); }
        let bytes = builder.data(&data);
        let view = MessageView::parse(&bytes).unwrap();
        prop_assert_eq!((view.header().priority, view.header().ttl), (priority, ttl));
        let read = view.properties().unwrap();
        let read_id = read.message_id.map(|id| id.to_value().unwrap());
        prop_assert_eq!(read_id, id.filter(|id| *id != Value::Null));
        prop_assert_eq!((read.to, view.to().unwrap()), (to.as_deref(), to.as_deref()));
        let pairs: Vec<_> = view.application_properties()
            .map(|(k, v)| (k.as_str().unwrap().to_owned(), v.to_value().unwrap())).collect();
        prop_assert_eq!(pairs, properties);
        prop_assert_eq!(view.data_sections().collect::<Vec<_>>(), vec![&data[..]]);
    }

    #[test]
    fn a_damaged_message_is_survived(place in any::<prop::sample::Index>(), value: u8, cut in any::<prop::sample::Index>()) {
        let mut bytes = MessageBuilder::new().durable(true).to("q").annotation(Symbol::from_static("a"), 1_u32)
            .application_property("p", "v").text("body").to_vec();
        let place = place.index(bytes.len());
        bytes[place] = value;
        look_at_all(&bytes);
        look_at_all(&bytes[..cut.index(bytes.len())]);
    }
}

/// Reads everything a message view can show.
fn look_at_all(bytes: &[u8]) {
    let Ok(view) = MessageView::parse(bytes) else {
        return;
    };
    view.properties().ok();
    view.to().ok();
    view.body().ok();
    let maps = [
        view.delivery_annotations(),
        view.message_annotations(),
        view.application_properties(),
        view.footer(),
    ];
    for (key, value) in maps.into_iter().flatten() {
        key.to_value().ok();
        value.to_value().ok();
    }
    view.data_sections().for_each(drop);
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| {
        let mut bytes = vec![0x45];
        for _ in 0..depth {
            let size = u8::try_from(bytes.len() + 1).unwrap();
            bytes.splice(0..0, [0xc0, size, 1]);
        }
        bytes
    };
    let limit = MAX_DEPTH as usize;
    assert!(Reader::new(&nested(limit)).value().is_ok());
    assert_eq!(Reader::new(&nested(limit + 1)).value(), Err(DecodeError::TooDeep));
    let descriptors = vec![0; 100_000];
    assert_eq!(Reader::new(&descriptors).value(), Err(DecodeError::TooDeep));
    assert_eq!(Reader::new(&descriptors).skip(), Err(DecodeError::Truncated));
}

#[test]
fn a_count_larger_than_the_bytes_is_refused_before_anything_is_made() {
    let list = [0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(Reader::new(&list).value(), Err(DecodeError::TooMany));
    // Elements of an array of nulls take no bytes at all.
    let array = [0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40];
    assert_eq!(Reader::new(&array).value(), Err(DecodeError::TooMany));
    // A long descriptor would be copied for each of many short elements.
    let mut array = vec![
        0xf0, 0, 0, 0x9c, 0x4b, 0, 0, 0x4e, 0x20, 0, 0xb3, 0, 0, 0x4e, 0x20,
    ];
    array.extend([b'd'; 20_000]);
    array.push(0x50);
    array.extend([1; 20_000]);
    let size = u32::try_from(array.len() - 5).unwrap();
    array[1..5].copy_from_slice(&size.to_be_bytes());
    assert_eq!(Reader::new(&array).value(), Err(DecodeError::TooMany));
    assert!(Reader::new(&array).skip().is_ok());
}
