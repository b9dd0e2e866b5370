//! Each spelling reads back, and what cannot be read is named.

use crate::{
    Attributes, Endpoint, Epoch, Evidence, Export, FailoverKind, FailoverReport, FailoverStep, GroupName,
    JoinRequest, LeaseId, MemberName, Modification, ModificationOp, Name, Object, OpId, ReadOptions, Request,
    Revision, Role, Scope, Search, TransactWrite, WithdrawReason, Write, WriteRequest,
};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn writes() -> Vec<Write> {
    let group: GroupName = "orders".parse().expect("a label");
    let member: MemberName = "kkam".parse().expect("a label");
    let object = Object::Queue {
        address: "q \"1\"".into(),
    };
    let attributes: Attributes = [("Region".to_owned(), vec!["eu".to_owned()])]
        .into_iter()
        .collect();
    vec![
        Write::Bind {
            name: name("a/b"),
            object: object.clone(),
            attributes: attributes.clone(),
        },
        Write::Rebind {
            name: name("a"),
            object: object.clone(),
            attributes: Some(attributes),
            expected: Some(Revision(0)),
        },
        Write::Rebind {
            name: name("a"),
            object: object.clone(),
            attributes: None,
            expected: None,
        },
        Write::Unbind {
            name: name("a"),
            expected: Some(Revision(7)),
        },
        Write::CreateSubcontext {
            name: name("c"),
            attributes: Attributes::new(),
        },
        Write::DestroySubcontext { name: name("c") },
        Write::Join {
            group: group.clone(),
            member: member.clone(),
            join: JoinRequest {
                role: Role::Primary,
                endpoint: Endpoint {
                    host: "kkam".into(),
                    port: 9741,
                },
                admin: None,
                peer: None,
                lease_ms: 3000,
                shadow: vec![],
            },
        },
        Write::Leave {
            group: group.clone(),
            member: member.clone(),
            lease: LeaseId(3),
        },
        Write::Claim {
            group: group.clone(),
            member: member.clone(),
            store_epoch: Epoch(2),
            evidence: Evidence::StoreLock,
        },
        Write::Publish {
            group: group.clone(),
            member,
            epoch: Epoch(3),
            exports: vec![Export {
                name: name("q"),
                object,
                attributes: Attributes::new(),
            }],
        },
        Write::Withdraw {
            group,
            epoch: Epoch(3),
            reason: WithdrawReason::Planned,
            eta_ms: Some(50),
        },
    ]
}

/// The writes that change attributes, move names, come as one, or tell of a failover.
fn larger_writes() -> Vec<Write> {
    let modifications = vec![Modification {
        op: ModificationOp::Add,
        id: "tier".into(),
        values: vec!["a b".into()],
    }];
    let expected = Some(Revision(3));
    vec![
        Write::Rename {
            name: name("a"),
            target: name("b/c"),
            expected,
        },
        Write::ModifyAttributes {
            name: name("a"),
            modifications: modifications.clone(),
            expected,
        },
        Write::Transact {
            writes: vec![
                TransactWrite::CreateSubcontext {
                    name: name("a"),
                    attributes: Attributes::new(),
                },
                TransactWrite::Bind {
                    name: name("a/b"),
                    object: Object::Context,
                    attributes: Attributes::new(),
                },
                TransactWrite::Rebind {
                    name: name("a/b"),
                    object: Object::Context,
                    attributes: None,
                    expected,
                },
                TransactWrite::Unbind {
                    name: name("x"),
                    expected: None,
                },
                TransactWrite::DestroySubcontext {
                    name: name("x"),
                    expected,
                },
                TransactWrite::Rename {
                    name: name("x"),
                    target: name("y"),
                    expected,
                },
                TransactWrite::ModifyAttributes {
                    name: name("x"),
                    modifications,
                    expected,
                },
                TransactWrite::Check {
                    name: name("x"),
                    expected: Revision(0),
                },
            ],
        },
        Write::RecordFailover {
            group: "orders".parse().expect("a label"),
            member: "kkam".parse().expect("a label"),
            epoch: Epoch(3),
            report: FailoverReport {
                kind: FailoverKind::Failover,
                began_unix_ms: 1,
                from: None,
                steps: vec![FailoverStep {
                    step: "suspected".parse().expect("a label"),
                    at_us: 0,
                    note: String::new(),
                    numbers: [("messages".to_owned(), 3)].into_iter().collect(),
                }],
            },
        },
    ]
}

fn requests() -> Vec<Request> {
    let options = ReadOptions {
        min_revision: Some(Revision(4)),
        wait_ms: Some(10),
        strong: true,
    };
    let mut requests: Vec<Request> = writes()
        .into_iter()
        .chain(larger_writes())
        .map(|write| Request::Write(WriteRequest { op: OpId(77), write }))
        .collect();
    requests.extend([
        Request::Lookup {
            name: name("x"),
            options,
        },
        Request::LookupLink {
            name: name("x"),
            options: ReadOptions::default(),
        },
        Request::List {
            name: Name::root(),
            options: ReadOptions::default(),
        },
        Request::ListBindings {
            name: name("x"),
            options,
        },
        Request::Groups,
        Request::Group {
            group: "g".parse().expect("a label"),
        },
        Request::Status,
        Request::Renew {
            group: "g".parse().expect("a label"),
            member: "m".parse().expect("a label"),
            lease: LeaseId(9),
        },
        Request::Watch {
            name: name("x"),
            scope: Scope::Subtree,
            from: Some(Revision(1)),
        },
        Request::Attributes {
            name: name("x"),
            ids: Some(vec!["a".into(), "b".into()]),
            options,
        },
        Request::Attributes {
            name: name("x"),
            ids: Some(Vec::new()),
            options: ReadOptions::default(),
        },
        Request::Search {
            name: Name::root(),
            search: Search {
                scope: Scope::Subtree,
                filter: "(&(a=b c)(!(d=*)))".parse().expect("a filter"),
                size_limit: Some(10),
                time_limit_ms: Some(100),
                ids: Some(vec!["a".into()]),
            },
            options,
        },
        Request::Timeline {
            group: "g".parse().expect("a label"),
        },
    ]);
    requests
}

#[test]
fn every_request_reads_back_from_its_own_spelling() {
    for request in requests() {
        let words: Vec<Vec<u8>> = request
            .to_arguments()
            .iter()
            .map(|w| w.as_bytes().to_vec())
            .collect();
        assert_eq!(Request::from_arguments(&words, || OpId(1)), Ok(request));
    }
}

#[test]
fn every_write_survives_its_stored_form() {
    for write in writes().into_iter().chain(larger_writes()) {
        let bytes = postcard::to_stdvec(&write).expect("bytes");
        assert_eq!(postcard::from_bytes::<Write>(&bytes), Ok(write));
    }
}

#[test]
fn bad_arguments_are_named() {
    let refused = |line: &str| {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        Request::from_arguments(&words, || OpId(1)).expect_err(line)
    };
    assert_eq!(refused("LOOKUP").to_string(), "invalid request: name is missing");
    assert_eq!(refused("LOOKUP x MINREV y").code(), "InvalidRequest");
    assert_eq!(
        refused("LOOKUP x FAST").to_string(),
        "invalid request: unknown option \"FAST\""
    );
    assert_eq!(refused("LOOKUP 'x").code(), "InvalidName");
    assert_eq!(refused("UNBIND x ATTRS {}").code(), "InvalidRequest");
    assert_eq!(
        refused("STATUS now").to_string(),
        "invalid request: unexpected argument \"now\""
    );
    assert_eq!(refused("GET x").code(), "NotSupported");
    assert_eq!(refused("GROUP ENDLEASE g m 1").code(), "NotSupported");
    assert_eq!(refused("BIND x {}").code(), "InvalidRequest");
    assert_eq!(refused("SEARCH x (a=1").code(), "InvalidSearchFilter");
    assert_eq!(refused("SEARCH x (a=1) DEPTH 3").code(), "InvalidRequest");
    assert_eq!(refused("MODIFY x [{}]").code(), "InvalidRequest");
    assert!(
        refused(r#"TRANSACT [{"transact":{"writes":[]}}]"#)
            .to_string()
            .contains("unknown variant `transact`")
    );
}
