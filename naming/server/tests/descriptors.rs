//! A process with few descriptors. A test of its own, because the limit is one of the whole process.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use daymark_naming_proto::Endpoint;
use daymark_naming_server::{NamingOptions, Server};
use rustix::process::{Resource, Rlimit, setrlimit};

/// Files this process may open; both ends of every connection are among them.
const FILES: u64 = 96;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// What comes first after `words` were said.
fn ask(stream: &mut TcpStream, words: &str) -> String {
    // A connection that is refused may be closed already: then the refusal is what comes.
    let _ = stream.write_all(words.as_bytes());
    let mut answer = [0; 512];
    let count = stream.read(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..count]).into_owned()
}

#[test]
fn connections_never_take_the_descriptors_that_the_log_needs() {
    let few = Rlimit {
        current: Some(FILES),
        maximum: Some(FILES),
    };
    setrlimit(Resource::Nofile, few).expect("a limit can be lowered");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let data = tempfile::TempDir::new().expect("a directory");
    let mut options = NamingOptions::new(data.path());
    options.listen = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    options.storage.segment_bytes = 64 << 10;
    let server = runtime.block_on(Server::start(options)).expect("a server");
    let addr = server.local_addr();
    let mut writer = connect(addr);
    assert!(ask(&mut writer, "PING\r\n").contains("PONG"));
    let mut refused = 0;
    let mut others = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(addr);
        let answer = ask(&mut stream, "PING\r\n");
        if answer.contains("PONG") {
            others.push(stream);
            assert!(others.len() as u64 * 2 < FILES, "too many connections");
        } else {
            assert!(answer.starts_with("-LIMITEXCEEDED connections"), "{answer:?}");
            refused += 1;
            if refused == 3 {
                break;
            }
        }
    }
    assert_eq!(refused, 3, "no connection was refused");
    // Segments are left and opened meanwhile.
    let padding = "x".repeat(10_000);
    for n in 0..60 {
        let answer = ask(
            &mut writer,
            &format!("REBIND q{n} '{{\"type\":\"queue\",\"address\":\"{padding}\"}}'\r\n"),
        );
        assert!(answer.starts_with('$'), "{answer:?}");
    }
    assert_eq!(server.impaired(), None);
    runtime.block_on(server.stop());
}
