//! A proxy that knows one place: whatever it is asked for, it goes there.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// First lines of requests, each with its `Proxy-Authorization`.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

pub struct TinyProxy {
    pub address: String,
    asked: Asked,
}

impl TinyProxy {
    /// Tunnels every CONNECT to `goal`; passes other requests on as they are.
    pub fn start(goal: &str) -> TinyProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TinyProxy {
            address: listener.local_addr().unwrap().to_string(),
            asked: Asked::default(),
        };
        let (asked, goal) = (proxy.asked.clone(), goal.to_owned());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (asked, goal) = (asked.clone(), goal.clone());
                std::thread::spawn(move || serve(stream, &goal, &asked));
            }
        });
        proxy
    }

    /// What it was asked for, in order: `CONNECT host:443 HTTP/1.1`.
    pub fn asked(&self) -> Vec<(String, String)> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, goal: &str, asked: &Asked) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader
            .read_line(&mut head)
            .ok()
            .filter(|count| *count > 0)?;
    }
    let first = head.lines().next()?.to_owned();
    let login = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then(|| value.to_owned())
    });
    let tunnel = first.starts_with("CONNECT ");
    asked
        .lock()
        .unwrap()
        .push((first, login.unwrap_or_default()));
    let mut far = TcpStream::connect(goal).ok()?;
    match tunnel {
        true => stream.write_all(b"HTTP/1.1 200 go on\r\n\r\n").ok()?,
        false => far.write_all(head.as_bytes()).ok()?,
    }
    let mut back = far.try_clone().ok()?;
    let mut towards = stream.try_clone().ok()?;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut back, &mut towards);
        let _ = towards.shutdown(Shutdown::Write);
    });
    std::io::copy(&mut reader, &mut far).ok()?;
    far.shutdown(Shutdown::Write).ok()
}
