//! Starting, stopping, and what stands in the way.

use daymark_naming_proto::Endpoint;
use daymark_naming_proto::resp::Frame;
use daymark_naming_server::{NamingOptions, Server, StartError};
use tempfile::TempDir;

use crate::support::{Events, Naming, options, soon};

async fn refused(options: NamingOptions) -> StartError {
    match soon("start", Server::start(options)).await {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_data_is_refused_and_told_by_whom() {
    let naming = Naming::start().await;
    let error = refused(options(naming.data.path())).await;
    assert!(matches!(error, StartError::InUse(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    assert!(text.contains("naming"), "{text}");
    assert_eq!(
        naming.http("GET", "/readyz", "").await.status,
        200,
        "the first goes on"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_is_named_and_the_data_directory_stays_free() {
    let naming = Naming::start().await;
    let data = TempDir::new().expect("a directory");
    let mut taken = options(data.path());
    taken.listen.port = naming.addr().port();
    let error = refused(taken).await;
    assert!(matches!(error, StartError::PortInUse { .. }), "{error:?}");
    let port = naming.addr().port().to_string();
    assert!(
        error
            .to_string()
            .contains(&format!("port in use: 127.0.0.1:{port}")),
        "{error}"
    );
    let free = soon("start", Server::start(options(data.path()))).await;
    soon("stop", free.expect("a server").stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_not_ours_is_named() {
    let data = TempDir::new().expect("a directory");
    let mut foreign = options(data.path());
    foreign.listen = Endpoint {
        host: "192.0.2.1".to_owned(),
        port: 0,
    };
    let error = refused(foreign).await;
    assert!(matches!(error, StartError::CannotListen { .. }), "{error:?}");
    assert!(error.to_string().contains("192.0.2.1:0"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_cannot_be_one_is_named() {
    let data = TempDir::new().expect("a directory");
    let file = data.path().join("file");
    std::fs::write(&file, "not a directory").expect("a file");
    let error = refused(options(&file)).await;
    assert!(error.to_string().contains("file"), "{error}");
    let deep = data.path().join("missing/deeper");
    let error = refused(options(&deep)).await;
    assert!(matches!(error, StartError::DataDirectory { .. }), "{error:?}");
    assert!(error.to_string().contains("missing/deeper"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_identity_is_not_replaced() {
    let naming = Naming::start().await;
    let Naming { server, data } = naming;
    soon("stop", server.stop()).await;
    std::fs::write(data.path().join("cluster.json"), "{\"cluster_id\":1").expect("a file");
    let error = refused(options(data.path())).await;
    assert!(
        matches!(&error, StartError::Damaged { path, .. } if path.ends_with("cluster.json")),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_without_its_identity_is_refused_and_not_given_another_one() {
    let naming = Naming::start().await;
    let Naming { server, data } = naming;
    soon("stop", server.stop()).await;
    let identity = data.path().join("cluster.json");
    let kept = std::fs::read(&identity).expect("an identity");
    std::fs::remove_file(&identity).expect("removed");
    let error = refused(options(data.path())).await;
    assert!(
        matches!(&error, StartError::Damaged { path, .. } if path.ends_with("cluster.json")),
        "{error:?}"
    );
    assert!(!identity.exists(), "nothing was made up");
    std::fs::write(&identity, kept).expect("put back");
    let again = soon("start", Server::start(options(data.path()))).await;
    soon("stop", again.expect("a server").stop()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_named_and_not_served() {
    let naming = Naming::start_with(|options| {
        options.storage.snapshot_writes = 20;
        options.storage.entries_kept = 1;
    })
    .await;
    let mut resp = naming.resp().await;
    for n in 0..200 {
        resp.json(&["BIND", &format!("n{n}"), &crate::support::queue("q")])
            .await;
    }
    let Naming { server, data } = naming;
    soon("stop", server.stop()).await;
    let snapshots = std::fs::read_dir(data.path().join("snapshots")).expect("a directory");
    // All of them: the newest may be one that the stop left unfinished, which no start reads.
    let mut damaged = 0;
    for entry in snapshots {
        let path = entry.expect("an entry").path();
        let mut bytes = std::fs::read(&path).expect("the snapshot");
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x40;
            damaged += 1;
        }
        std::fs::write(&path, bytes).expect("written");
    }
    assert!(damaged > 0, "a snapshot");
    let error = refused(options(data.path())).await;
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_watches_waits_and_connections_and_frees_the_directory() {
    let naming = Naming::start().await;
    let mut idle = naming.resp().await;
    assert_eq!(idle.ask(&["PING"]).await, Frame::Simple("PONG".into()));
    let mut events = Events::open(naming.addr(), "/v1/watch/q", &[]).await;
    assert_eq!(events.next().await.expect("an event").kind, "bookmark");
    let mut waiting = naming.resp().await;
    assert_eq!(waiting.ask(&["PING"]).await, Frame::Simple("PONG".into()));
    waiting.send(&["LOOKUP", "never", "WAIT", "50000"]).await;
    let _silent = naming.resp().await;
    let Naming { server, data } = naming;
    soon("stop", server.stop()).await;
    assert!(matches!(&idle.until_closed().await[..], [Frame::Error(text)] if text.contains("stops")));
    assert_eq!(events.next().await, None);
    assert!(matches!(waiting.reply().await, Some(Frame::Error(text)) if text.contains("stops")));
    let again = soon("start", Server::start(options(data.path())))
        .await
        .expect("a server");
    soon("stop", again.stop()).await;
}
