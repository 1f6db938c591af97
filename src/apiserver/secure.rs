//! The API and the kubelet's endpoints over TLS: accepts, shakes hands, and hands the connection to
//! the server.
//!
//! ```text
//!   accept ─► counted ─► handshake (bounded in time) ─► Peer::Network ─► Server::serve
//!             └──────── a stranger, until a request says who it is ────────┘
//! ```
//! Strangers are few: with one too many the oldest is dropped, be it in its handshake or behind it,
//! so that peers who say nothing cannot keep others out. The local socket and each door have a count
//! of their own and are reached whatever happens at another.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::time::Duration;

use async_executor::{LocalExecutor, Task};
use async_io::Async;
use futures_lite::FutureExt;
use futures_lite::future::yield_now;
use futures_rustls::TlsAcceptor;
use rustls_pki_types::CertificateDer;

use super::authn::{Network, Peer};
use super::{Counter, Server};
use crate::net::serve::{Duplex, Ending};
use crate::net::tls_server::SharedConfig;
use crate::os;

/// From the first byte to the last of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a serve thread listens on.
pub struct Sockets {
    pub local: UnixListener,
    pub secure: Vec<Secure>,
}

impl From<UnixListener> for Sockets {
    /// Without TLS.
    fn from(local: UnixListener) -> Sockets {
        Sockets {
            local,
            secure: Vec::new(),
        }
    }
}

/// What is behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Api,
    /// The kubelet's own endpoints.
    Kubelet,
}

/// Bound addresses, what is shown on them and what is behind them.
pub struct Secure {
    pub door: Door,
    pub listeners: Vec<TcpListener>,
    pub config: SharedConfig,
}

/// Who is at one door.
#[derive(Default)]
pub(super) struct Crowd {
    pub connections: Counter,
    strangers: Strangers,
}

/// Peers who have not shown yet who they are, the oldest first.
#[derive(Default)]
struct Strangers {
    next: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Stranger>>,
}

struct Stranger {
    task: Task<()>,
    /// Is one no more.
    introduced: Rc<Cell<bool>>,
}

impl Strangers {
    /// Makes room for one more, and names it.
    fn begin(&self, max: usize) -> u64 {
        if self.tasks.borrow().len() >= max.max(1) {
            let introduced = |_: &u64, one: &mut Stranger| one.introduced.get();
            let known = self
                .tasks
                .borrow_mut()
                .extract_if(.., introduced)
                .collect::<Vec<_>>();
            known.into_iter().for_each(|(_, one)| one.task.detach());
        }
        while self.tasks.borrow().len() >= max.max(1) {
            let oldest = self.tasks.borrow_mut().pop_first();
            log::debug!("{max} peers have not said who they are: the oldest is dropped");
            drop(oldest);
        }
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    fn add(&self, number: u64, task: Task<()>, introduced: Rc<Cell<bool>>) {
        let stranger = Stranger { task, introduced };
        self.tasks.borrow_mut().insert(number, stranger);
    }

    /// The connection is over.
    fn end(&self, number: u64) {
        if let Some(one) = self.tasks.borrow_mut().remove(&number) {
            one.task.detach();
        }
    }
}

impl Server {
    /// Accepts TLS connections, for ever.
    pub async fn listen_secure(
        &self,
        listener: &Async<TcpListener>,
        config: &SharedConfig,
        door: Door,
    ) {
        let (limits, crowd) = (self.0.options.limits, self.0.crowd(door));
        loop {
            let Some(counted) = crowd.connections.take(limits.connections) else {
                self.pause().await;
                continue;
            };
            // A crowd at the door must not keep those inside from being served.
            yield_now().await;
            let (socket, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    log::warn!("accept connection over TCP: {error}");
                    self.pause().await;
                    continue;
                }
            };
            if let Err(error) = os::tcp::prepare(&socket) {
                log::debug!("prepare the connection of {address}: {error}");
                continue;
            }
            let number = crowd.strangers.begin(limits.strangers);
            let acceptor = TlsAcceptor::from(config.get());
            let server = self.clone();
            let introduced = Rc::new(Cell::new(false));
            let tells = introduced.clone();
            let work = async move {
                // A box of its own, since it is far larger than what a quiet connection needs after.
                match Box::pin(server.shake_hands(acceptor, socket)).await {
                    Ok((stream, chain)) => {
                        let network = Network::new(address, chain).telling(tells);
                        let network = network.at(door);
                        server.serve(stream, Peer::Network(network)).await;
                    }
                    Err(error) => log::debug!("TLS handshake with {address}: {error}"),
                }
                server.0.crowd(door).strangers.end(number);
                drop(counted);
            };
            let task = self.0.executor.spawn(work);
            crowd.strangers.add(number, task, introduced);
        }
    }

    /// The stream and the client's certificates. Errors: whatever is wrong, and lateness.
    async fn shake_hands(
        &self,
        acceptor: TlsAcceptor,
        socket: Async<TcpStream>,
    ) -> io::Result<(Box<dyn Duplex>, Vec<CertificateDer<'static>>)> {
        let clock = &self.0.clock;
        let late = clock.sleep_until(clock.now() + HANDSHAKE_TIMEOUT);
        let late = async move {
            late.await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let stream = acceptor.accept(Ending(socket)).or(late).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        Ok((Box::new(stream), chain))
    }
}

/// Listeners that the reactor knows.
pub(super) struct Listening {
    door: Door,
    listeners: Vec<Async<TcpListener>>,
    config: SharedConfig,
}

impl Listening {
    /// Errors: no descriptor to be had.
    pub fn new(secure: Secure) -> io::Result<Listening> {
        let listeners = secure.listeners.into_iter().map(Async::new);
        Ok(Listening {
            door: secure.door,
            listeners: listeners.collect::<io::Result<_>>()?,
            config: secure.config,
        })
    }

    /// Serves each of them until its task is dropped.
    pub fn serve(self, server: &Server, executor: &LocalExecutor<'static>) -> Vec<Task<()>> {
        let serve = |listener| {
            let (server, config) = (server.clone(), self.config.clone());
            let door = self.door;
            executor.spawn(async move { server.listen_secure(&listener, &config, door).await })
        };
        self.listeners.into_iter().map(serve).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stranger_too_many_drops_the_oldest() {
        let executor = LocalExecutor::new();
        let strangers = Strangers::default();
        let ended = Rc::new(RefCell::new(Vec::new()));
        struct Told(u64, Rc<RefCell<Vec<u64>>>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.1.borrow_mut().push(self.0);
            }
        }
        for _ in 0..4 {
            let number = strangers.begin(3);
            let told = Told(number, ended.clone());
            let work = async move {
                let _told = told;
                std::future::pending::<()>().await;
            };
            let task = executor.spawn(work);
            strangers.add(number, task, Rc::new(Cell::new(number == 1)));
        }
        assert!(
            ended.borrow().is_empty(),
            "one has shown who it is, three have not"
        );
        strangers.begin(3);
        while executor.try_tick() {}
        assert_eq!(*ended.borrow(), [0]);
    }
}
