//! What rude, slow and hostile clients may do, and what they cannot.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lowtide::apiserver::Limits;
use lowtide::apiserver::authz::Mode;
use lowtide::net::serve;
use lowtide::registry;
use serde_json::{Value, json};

use crate::node::{Answer, Node, Setup};
use crate::office::{Door, From, Line, Office, Signed};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SOON: Duration = Duration::from_millis(100);

fn limited(limits: Limits) -> Node {
    Node::with_limits(limits, registry::Limits::default())
}

fn with_http(http: serve::Limits) -> Node {
    limited(Limits {
        http,
        ..Limits::default()
    })
}

/// All that comes back for these bytes, until the server closes or has nothing more to say.
fn exchange(node: &Node, bytes: &[u8]) -> String {
    let mut stream = node.connect();
    // A server that has closed already is one of the answers.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn status_line(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

#[test]
fn who_sends_far_too_much_reads_why_and_is_not_read_for_ever() {
    let node = Node::start();
    let piece = [b'x'; 64 << 10];
    let begin = |length: usize| {
        let mut stream = node.connect();
        let head = format!(
            "POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("written");
        stream
    };
    // More than is thrown away before the answer, and all of it written before that is read.
    let mut stream = begin(12 << 20);
    for _ in 0..(12 << 20) / piece.len() {
        stream.write_all(&piece).expect("the server reads on");
    }
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer, and its end");
    assert_eq!(status_line(&answer), 413);
    assert!(
        answer.contains("Request entity too large: limit is 3145728"),
        "{answer}"
    );

    let mut stream = begin(1 << 30);
    let taken = (0..(1 << 30) / piece.len()).take_while(|_| stream.write_all(&piece).is_ok());
    let taken = taken.count() * piece.len();
    assert!(
        taken < 64 << 20,
        "{taken} bytes of a refused body were read"
    );
}

#[test]
fn who_says_nothing_after_the_handshake_keeps_nobody_out() {
    let (office, node) = (Office::open(), Node::with(Setup::default()));
    let limits = Limits {
        strangers: 4,
        ..Limits::default()
    };
    let authenticator = office.authenticator(&node, true);
    let door = Door::with_limits(&node, authenticator, &[Mode::AlwaysDeny], "", limits);
    let address = door.listen(office.serving());
    let admin = office.client(&Signed::Well, "root", "system:masters");
    let (admin, plain) = (office.connector(Some(&admin)), office.connector(None));
    let work = async {
        let mut first = Line::shake_hands(&admin, address).await;
        assert_eq!(first.ask("GET", "/version", "").await.code, 200);
        // Who has a name that everybody has is as strange as who says nothing.
        let mut nobody = Line::shake_hands(&plain, address).await;
        assert_eq!(nobody.ask("GET", "/version", "").await.code, 403);
        let mut silent = Vec::new();
        for _ in 0..12 {
            silent.push(Line::shake_hands(&plain, address).await);
        }
        assert!(nobody.is_closed().await);
        for gone in &mut silent[..8] {
            assert!(gone.is_closed().await, "one too many drops the oldest");
        }
        assert_eq!(
            first.ask("GET", "/version", "").await.code,
            200,
            "known is known"
        );
        let mut late = Line::shake_hands(&admin, address).await;
        assert_eq!(late.ask("GET", "/version", "").await.code, 200);
    };
    async_io::block_on(door.executor.run(work));
}

#[test]
fn nobody_is_told_so_before_the_body_is_read() {
    let (office, node) = (Office::open(), Node::with(Setup::default()));
    let door = Door::new(&node, office.authenticator(&node, false), &[], "");
    let work = async {
        let mut line = door.walk_in(&From::Network(None));
        let head = format!("POST {MAPS} HTTP/1.1\r\nHost: pi\r\nContent-Length: 3000000\r\n\r\n");
        line.send(head.as_bytes()).await;
        assert_eq!(line.answer().await.code, 401);
        assert!(line.is_closed().await);
    };
    async_io::block_on(door.executor.run(work));
}

#[test]
fn connections_beyond_the_bound_wait_their_turn() {
    let node = limited(Limits {
        connections: 2,
        ..Limits::default()
    });
    let ask = |stream: &mut UnixStream| {
        let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).expect("write");
    };
    let hear = |stream: &UnixStream| Answer::read(stream.try_clone().expect("clone")).code;
    let (mut first, mut second) = (node.connect(), node.connect());
    for stream in [&mut first, &mut second] {
        ask(stream);
        assert_eq!(hear(stream), 200);
    }
    let mut third = node.connect();
    ask(&mut third);
    third.set_nonblocking(true).expect("non-blocking");
    let early = third.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(early, Err(std::io::ErrorKind::WouldBlock));
    third.set_nonblocking(false).expect("blocking");
    drop(first);
    assert_eq!(hear(&third), 200);
    drop(second);
}

#[test]
fn a_body_that_comes_too_slowly_is_given_up() {
    let node = limited(Limits {
        body_timeout: SOON,
        ..Limits::default()
    });
    let head = format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{{");
    let answer = node.open(&head);
    assert_eq!(answer.code, 504);
    let (mut slow, mut chunk) = (node.connect(), String::new());
    let head = format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    slow.write_all(head.as_bytes()).expect("write");
    // A byte now and then makes it no better.
    while slow.write_all(b"1\r\n \r\n").is_ok() && chunk.is_empty() {
        slow.set_read_timeout(Some(SOON / 5)).expect("time-out");
        let _ = slow.read_to_string(&mut chunk);
    }
    assert!(chunk.starts_with("HTTP/1.1 504"), "{chunk}");
}

#[test]
fn large_bodies_are_bounded_all_together() {
    let node = limited(Limits {
        body_bytes: 1 << 20,
        ..Limits::default()
    });
    let map = |name: &str| {
        let data = json!({"a": "x".repeat(600 << 10)});
        json!({"metadata": {"name": name}, "data": data}).to_string()
    };
    let (held, other) = (map("held"), map("other"));
    let mut slow = node.connect();
    let length = held.len();
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    // More than a socket holds was read when this has been written: at least half of it.
    let (most, end) = held.split_at(length - 1);
    slow.write_all(head.as_bytes()).expect("write");
    slow.write_all(most.as_bytes()).expect("write");
    let crowded = node.send_as("POST", MAPS, "application/json", &other);
    assert_eq!(crowded.code, 429);
    assert!(crowded.head.contains("retry-after: 1"), "{}", crowded.head);
    assert_eq!(crowded.json()["reason"], "TooManyRequests");
    let small = json!({"metadata": {"name": "small"}});
    assert_eq!(node.send("POST", MAPS, &small).code, 201);
    slow.write_all(end.as_bytes()).expect("write");
    assert_eq!(Answer::read(slow).code, 201);
    assert_eq!(
        node.send_as("POST", MAPS, "application/json", &other).code,
        201
    );
}

/// Each of these has a second request inside, for a reader who sees another end of the first.
const SMUGGLED: [&str; 12] = [
    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "Content-Length: 4\r\nContent-Length: 0\r\n\r\n{}{}",
    "Content-Length: 4, 0\r\n\r\n{}{}",
    "Content-Length: +4\r\n\r\n{}{}",
    "Content-Length: 0x4\r\n\r\n{}{}",
    "Content-Length : 4\r\n\r\n{}{}",
    "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "X: y\r\n Content-Length: 4\r\n\r\n{}{}",
    "X: a\rContent-Length: 4\r\n\r\n{}{}",
];

#[test]
fn a_request_whose_end_is_unclear_is_the_last_one() {
    let node = Node::start();
    for head in SMUGGLED {
        let hidden = "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let bytes = format!("POST {MAPS} HTTP/1.1\r\nHost: x\r\n{head}{hidden}");
        let answer = exchange(&node, bytes.as_bytes());
        assert_eq!(status_line(&answer), 400, "{head:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer}");
    }
    for bad in ["X\0: y", "X: a\0b", "X y: z", ": y", "X"] {
        let bytes = format!("GET /version HTTP/1.1\r\nHost: x\r\n{bad}\r\n\r\n");
        assert_eq!(
            status_line(&exchange(&node, bytes.as_bytes())),
            400,
            "{bad:?}"
        );
    }
}

#[test]
fn odd_methods_and_targets_are_refused() {
    let node = Node::start();
    let end = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let table = [
        ("CONNECT 127.0.0.1:22", 404),
        ("OPTIONS *", 404),
        ("TRACE /version", 405),
        ("PROPFIND /api/v1/pods", 405),
        ("POST /version", 405),
        ("get /version", 405),
        ("GET version", 404),
        ("GET http://169.254.169.254/latest", 404),
        ("GET /api/v1/../../version", 404),
        ("GET /api/v1/namespaces/default%2Fpods", 404),
        ("GET //api/v1/pods", 404),
        ("GET /watch/api/v1/pods", 404),
    ];
    for (line, code) in table {
        let answer = exchange(&node, format!("{line} {end}").as_bytes());
        assert_eq!(status_line(&answer), code, "{line}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{line}");
    }
    let second = exchange(&node, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(
        !second.contains(" 2"),
        "there is no HTTP/2 to reset: {second}"
    );
}

#[test]
fn urls_and_selectors_are_bounded() {
    let node = Node::start();
    let long = "x".repeat(80 << 10);
    let code = node.get(&format!("/{long}")).code;
    assert!([414, 431].contains(&code), "{code}");
    let segments = "/a".repeat(10_000);
    assert_eq!(node.get(&segments).code, 404);
    let parameters = "a&".repeat(5_000);
    let last = node.send(
        "POST",
        &format!("{MAPS}?{parameters}dryRun=All"),
        &json!({}),
    );
    assert_eq!(last.code, 400, "no parameter is left out");
    let values = format!("a%20in%20({}b)", "b,".repeat(9_000));
    for (selector, code) in [
        ("a,".repeat(5_000) + "a", 400),
        ("(".repeat(9_000), 400),
        (values, 200),
    ] {
        let answer = node.get(&format!("{MAPS}?labelSelector={selector}"));
        assert_eq!(answer.code, code, "{}", &selector[..20]);
    }
    let fields = "metadata.name%3Dx,".repeat(1_500);
    let answer = node.get(&format!("{MAPS}?fieldSelector={fields}metadata.name%3Dx"));
    assert!(answer.code == 200 || answer.code == 400, "{}", answer.code);
}

#[test]
fn deep_and_compressed_bodies_are_refused_in_few_words() {
    let node = Node::start();
    let made = node.send("POST", MAPS, &json!({"metadata": {"name": "c"}}));
    assert_eq!(made.code, 201);
    let one = format!("{MAPS}/c?fieldManager=test");
    let (json, yaml) = ("application/json", "application/yaml");
    let merge = "application/merge-patch+json";
    let deep = |open: &str| open.repeat(100_000);
    let bomb = "a: &a [x,x]\nb: &b [*a,*a]\n".to_owned() + &"c: [*b,*b]\n".repeat(2_000);
    let table = [
        ("POST", MAPS, json, deep("[")),
        ("POST", MAPS, json, deep("{\"a\":")),
        ("POST", MAPS, yaml, deep("[")),
        ("POST", MAPS, yaml, deep("- ")),
        ("POST", MAPS, yaml, bomb),
        ("PATCH", &one, merge, deep("{\"a\":")),
        ("PATCH", &one, "application/json-patch+json", deep("[")),
        ("PATCH", &one, "application/apply-patch+yaml", deep("{a: ")),
        (
            "POST",
            MAPS,
            "application/vnd.kubernetes.protobuf",
            deep("k8s\0"),
        ),
        ("DELETE", &one, json, deep("[")),
    ];
    for (method, path, kind, body) in table {
        let start = body[..8].to_owned();
        let answer = node.send_as(method, path, kind, &body);
        let code = answer.code;
        let text = answer.text();
        assert!(
            (400..500).contains(&code),
            "{method} {kind} {start}: {code} {text}"
        );
        assert!(
            text.len() < 2_000,
            "{method} {kind} {start}: {} bytes",
            text.len()
        );
    }
    // Nothing is ever unpacked for a client.
    let mut packed = b"\x1f\x8b\x08\0".to_vec();
    packed.extend([0x55; 64]);
    let head = format!(
        "POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Encoding: gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        packed.len()
    );
    let bytes = [head.as_bytes(), &packed].concat();
    assert_eq!(status_line(&exchange(&node, &bytes)), 400);
    assert_eq!(node.get(&one).code, 200, "nothing was changed");
}

#[test]
fn line_feeds_in_names_make_no_headers() {
    let node = Node::start();
    let answer = node.get(&format!("{MAPS}/x%0d%0aX-Made: y"));
    assert_eq!(answer.code, 400, "a space ends the target");
    let answer = node.get(&format!("{MAPS}/x%0d%0aX-Made:%20y"));
    assert_eq!(answer.code, 404);
    assert!(
        !answer.head.to_ascii_lowercase().contains("x-made"),
        "{}",
        answer.head
    );
    let body = json!({"metadata": {"name": "c"}, "foo\r\nX-Made: y": 1});
    let answer = node.send("POST", MAPS, &body);
    assert_eq!(answer.code, 201);
    let made = answer
        .head
        .lines()
        .any(|line| line.to_ascii_lowercase().starts_with("x-made"));
    assert!(
        answer.head.contains("warning: 299") && !made,
        "{}",
        answer.head
    );
}

#[test]
fn pipelined_requests_are_answered_one_by_one_in_order() {
    let node = Node::start();
    let mut bytes = String::new();
    for index in 0..50 {
        let close = if index == 49 {
            "Connection: close\r\n"
        } else {
            ""
        };
        bytes.push_str(&format!(
            "GET {MAPS}/c{index} HTTP/1.1\r\nHost: x\r\n{close}\r\n"
        ));
    }
    let answer = exchange(&node, bytes.as_bytes());
    let named = |index: usize| answer.find(&format!("\\\"c{index}\\\" not found"));
    let places: Vec<usize> = (0..50)
        .map(|index| named(index).expect("an answer"))
        .collect();
    assert!(places.is_sorted(), "{places:?}");
    assert_eq!(answer.matches("HTTP/1.1 404").count(), 50);
}

#[test]
fn who_asks_and_never_reads_is_closed() {
    let node = with_http(serve::Limits {
        stall_timeout: SOON,
        ..serve::Limits::default()
    });
    let mut stream = node.connect();
    let requests = "GET /openapi/v3/api/v1 HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    stream
        .set_write_timeout(Some(crate::node::PATIENCE))
        .expect("time-out");
    let error = loop {
        if let Err(error) = stream.write_all(requests.as_bytes()) {
            break error.kind();
        }
    };
    let closed = [
        std::io::ErrorKind::BrokenPipe,
        std::io::ErrorKind::ConnectionReset,
    ];
    assert!(closed.contains(&error), "{error}");
    assert_eq!(node.get("/readyz").code, 200);
}

#[test]
fn peers_that_vanish_or_say_no_more_leave_no_watch_behind() {
    let node = limited(Limits {
        streams: 8,
        ..Limits::default()
    });
    let watch = "GET /api/v1/pods?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n";
    for round in 0..4 {
        let mut open = Vec::new();
        while open.len() < 8 {
            let answer = node.open(watch);
            // The places of the round before come back as soon as their ends are noticed.
            if answer.code == 200 {
                open.push(answer);
            }
        }
        assert_eq!(node.open(watch).code, 429);
        for answer in open {
            let stream = answer.body.into_inner();
            if round % 2 == 0 {
                stream.shutdown(Shutdown::Write).expect("half a close");
                let (mut stream, mut rest) = (stream, Vec::new());
                stream.read_to_end(&mut rest).expect("the server closes");
            }
        }
    }
    // What was asked in whole is answered in whole to who has closed behind it.
    let mut stream = node.connect();
    stream
        .write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        .expect("write");
    stream.shutdown(Shutdown::Write).expect("half a close");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("read");
    assert!(
        answer.is_empty() || answer.contains("gitVersion"),
        "{answer}"
    );
}

/// What a loop of the node thread saw: its turns, and the most versions that were given out between
/// two of them.
#[derive(Debug)]
struct Turns {
    count: u64,
    versions_max: u64,
}

/// Counts while `work` runs on this thread.
fn turns_during(node: &Node, work: impl FnOnce()) -> Turns {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let over = Arc::new(AtomicBool::new(false));
    let until = over.clone();
    let seen = node.begin(move |registry| {
        Box::pin(async move {
            let (mut count, mut versions_max) = (0, 0);
            let reader = registry.reader();
            let mut version = reader.version();
            while !until.load(Ordering::Relaxed) {
                futures_lite::future::yield_now().await;
                count += 1;
                let now = reader.version();
                versions_max = versions_max.max(now - version);
                version = now;
            }
            Turns {
                count,
                versions_max,
            }
        })
    });
    work();
    over.store(true, Ordering::Relaxed);
    seen.recv_timeout(crate::node::PATIENCE)
        .expect("the loop turns")
}

#[test]
fn no_flood_keeps_the_node_loop_from_turning() {
    let node = Node::start();
    for index in 0..100 {
        let map = json!({"metadata": {"name": format!("c{index}")}});
        assert_eq!(node.send("POST", MAPS, &map).code, 201);
    }
    // Lists, watches and nonsense are none of its business: it turns many times for each of them.
    let flood = turns_during(&node, || {
        let mut watches = Vec::new();
        for _ in 0..100 {
            assert_eq!(node.get(MAPS).code, 200);
            assert_eq!(node.get("/nowhere").code, 404);
            watches.push(node.get(&format!("{MAPS}?watch=1")));
        }
    });
    assert!(flood.count > 10 * 300, "{flood:?}");
    // Writes are, and as many as are under way at once may pass between two turns.
    let writes = turns_during(&node, || {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let node = &node;
                scope.spawn(move || write_often(&node.socket(), thread));
            }
        });
    });
    assert!(writes.versions_max <= 64, "{writes:?}");
}

fn write_often(socket: &std::path::Path, thread: usize) {
    let mut stream = UnixStream::connect(socket).expect("connect");
    for index in 0..40 {
        let body: Value = json!({"metadata": {"name": format!("w{thread}-{index}")}});
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("write");
        let mut answer = Answer::read(stream.try_clone().expect("clone"));
        assert_eq!(answer.code, 201);
        let length = answer
            .head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut rest = vec![0; length.expect("a length").parse().expect("a number")];
        answer.body.read_exact(&mut rest).expect("a body");
    }
}
