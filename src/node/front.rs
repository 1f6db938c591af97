//! The node's front to the network: TLS listeners, what they show, and whom they believe.
//!
//! ```text
//!   start     Doors (ports are bound, files are read: fatal here) ► Front (keys, certificates)
//!   SIGHUP    files are read again; a bad one changes nothing
//!   rarely    certificates are renewed
//! ```

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;

use super::endpoints::{self, Endpoints};
use super::machine;
use super::parts::subnet;
use super::pki::Pki;
use crate::apiserver::authn::{Authenticator, Files, Paths};
use crate::apiserver::{Door, Secure};
use crate::cli::options::{AuthorizationMode, RunOptions};
use crate::controller::Trust;
use crate::kubelet::env;
use crate::net::certificates::{Identity, Names};
use crate::net::tls_server::{SharedConfig, server_config};
use crate::object::token::Issuer;
use crate::os;
use crate::registry::Reader;
use crate::world::{Clock, Disk};

/// How often certificates are looked at: in memory only, and often enough for a clock that was set
/// right after the start.
const LOOK_PERIOD: Duration = Duration::from_secs(600);

/// Bound listeners; the files that say who is who have been read once.
pub struct Doors {
    listeners: Vec<TcpListener>,
    /// Of the first listener.
    address: Option<SocketAddr>,
    gateway: Ipv4Addr,
    pods_reach_it: bool,
    endpoints: Option<Endpoints>,
}

impl Doors {
    /// Errors: a port that was asked for is taken; a file that cannot be used.
    pub fn open(options: &RunOptions) -> Result<Doors, String> {
        Files::load(&options.authentication, "")?;
        let gateway = match &options.cni_conf_dir {
            None => subnet(options)?.gateway(),
            Some(_) => own_address(options),
        };
        let mut doors = Doors {
            listeners: Vec::new(),
            address: None,
            gateway,
            pods_reach_it: false,
            endpoints: Endpoints::open(options)?,
        };
        let Some(secure) = &options.secure else {
            return Ok(doors);
        };
        let listener = match os::tcp::listen(secure.address) {
            Ok(listener) => listener,
            Err(error) => {
                let text = format!(
                    "serve the API on {}: {error}; give --secure-port another port, or 0 for none",
                    secure.address
                );
                if secure.required {
                    return Err(text);
                }
                log::error!(
                    "{text}; going on with {}/api.sock alone",
                    options.run_dir.display()
                );
                return Ok(doors);
            }
        };
        doors.listeners.push(listener);
        doors.address = Some(secure.address);
        doors.open_for_pods(secure.address, options);
        Ok(doors)
    }

    /// Pods reach the node at the bridge's address, which comes with the first of them. Without a
    /// bridge only at an address that others reach too: it takes a flag to be there.
    fn open_for_pods(&mut self, main: SocketAddr, options: &RunOptions) {
        let own = IpAddr::from(self.gateway);
        // `::` takes IPv4 too (ipv6(7), bindv6only).
        if main.ip().is_unspecified() || main.ip() == own {
            self.pods_reach_it = true;
            return;
        }
        if options.cni_conf_dir.is_some() {
            return;
        }
        let address = SocketAddr::new(own, main.port());
        match os::tcp::listen(address) {
            Ok(listener) => {
                self.listeners.push(listener);
                self.pods_reach_it = true;
            }
            Err(error) => log::warn!("serve the API for pods on {address}: {error}"),
        }
    }

    /// Where the kubelet's endpoints are served; 0 for nowhere.
    pub fn kubelet_port(&self) -> u16 {
        let endpoints = self.endpoints.as_ref();
        endpoints.map_or(0, |endpoints| endpoints.address.port())
    }

    /// Where pods find the API, as upstream's kubelet tells them.
    pub fn services(&self) -> Vec<(String, String)> {
        match self.for_pods() {
            Some(api) => env::api_variables(&self.gateway.to_string(), api.port()),
            None => Vec::new(),
        }
    }

    /// The API's address for pods, if they reach it.
    pub fn for_pods(&self) -> Option<SocketAddr> {
        let address = self.address.filter(|_| self.pods_reach_it)?;
        Some(SocketAddr::new(self.gateway.into(), address.port()))
    }
}

/// The machine's IPv4 address, as far as it has one.
fn own_address(options: &RunOptions) -> Ipv4Addr {
    let own = machine::host_ips(options).into_iter();
    let four = own.filter_map(|ip| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    four.into_iter().next().unwrap_or(Ipv4Addr::LOCALHOST)
}

/// What the API needs to know who asks, and what it shows.
pub struct Front {
    paths: Paths,
    pub authenticator: Authenticator,
    /// Signs service account tokens.
    pub issuer: Arc<Issuer>,
    /// What pods and their tokens' Secrets are given to check this server by.
    pub trust: Rc<Trust>,
    shown: RefCell<Shown>,
    config: Option<SharedConfig>,
    kubelet_config: Option<SharedConfig>,
}

/// What listeners show.
struct Shown {
    /// The CA's certificate, PEM.
    authority: String,
    server: Option<Identity>,
    /// At the kubelet's port.
    kubelet: Option<Identity>,
    /// There too, and rather: what the cluster has signed.
    signed: Option<Identity>,
    /// Of client certificates.
    client_authorities: Vec<CertificateDer<'static>>,
}

/// What renewing needs.
pub struct Keeper {
    front: Rc<Front>,
    pki: Pki,
    options: RunOptions,
    node_name: String,
    address: Option<SocketAddr>,
    /// Of the kubelet's port.
    kubelet_address: Option<SocketAddr>,
    gateway: Ipv4Addr,
    clock: Rc<dyn Clock>,
}

impl Front {
    /// Makes keys and certificates. Errors: no key could be made, a file changed meanwhile.
    pub async fn open(
        doors: Doors,
        options: &RunOptions,
        node_name: &str,
        reader: Reader,
        disk: Rc<dyn Disk>,
        clock: Rc<dyn Clock>,
    ) -> Result<(Rc<Front>, Vec<Secure>, Keeper), String> {
        let now = clock.credible();
        let mut pki = Pki::open(disk, now).await?;
        let authority = pki.authority().to_owned();
        let files = read(&options.authentication, &authority).await?;
        let client_authorities = files.authorities().to_vec();
        let (mut server, mut config) = (None, None);
        if let Some(address) = doors.address {
            let names = names(options, node_name, address, doors.gateway);
            let identity = pki.server(&names, now).await?;
            pki.kubeconfig(address, now).await?;
            let made = server_config(&identity, &client_authorities)?;
            (server, config) = (Some(identity), Some(SharedConfig::new(made)));
        }
        let mut secure = Vec::new();
        if let Some(config) = &config {
            secure.push(Secure {
                door: Door::Api,
                listeners: doors.listeners,
                config: config.clone(),
            });
        }
        let (mut kubelet, mut kubelet_config, mut kubelet_address) = (None, None, None);
        if let Some(Endpoints { listener, address }) = doors.endpoints {
            let names = endpoints::names(options, node_name, address);
            let identity = pki.kubelet(&names, now).await?;
            let made = SharedConfig::new(server_config(&identity, &client_authorities)?);
            secure.push(Secure {
                door: Door::Kubelet,
                listeners: vec![listener],
                config: made.clone(),
            });
            (kubelet, kubelet_config) = (Some(identity), Some(made));
            kubelet_address = Some(address);
        }
        let issuer = pki.issuer();
        let accounts = Some((issuer.clone(), reader));
        let front = Rc::new(Front {
            paths: options.authentication.clone(),
            authenticator: Authenticator::new(files, accounts, anonymous(options)),
            issuer,
            trust: Trust::new(&authority),
            shown: RefCell::new(Shown {
                authority,
                server,
                kubelet,
                signed: None,
                client_authorities,
            }),
            config,
            kubelet_config,
        });
        let keeper = Keeper {
            front: front.clone(),
            pki,
            options: options.clone(),
            node_name: node_name.to_owned(),
            address: doors.address,
            kubelet_address,
            gateway: doors.gateway,
            clock,
        };
        Ok((front, secure, keeper))
    }

    /// Reads the files again; requests of open connections are judged by them too.
    /// Errors: the first bad file; those before it stay in use.
    pub async fn reload(&self) -> Result<(), String> {
        let authority = self.shown.borrow().authority.clone();
        let files = read(&self.paths, &authority).await?;
        self.shown.borrow_mut().client_authorities = files.authorities().to_vec();
        self.authenticator.replace(files);
        self.show()
    }

    /// What the cluster has signed for the kubelet's port: chain and key in one text.
    pub fn show_signed(&self, text: &str) {
        let identity = Identity {
            certificate: text.to_owned(),
            key: text.to_owned(),
        };
        let before = self.shown.borrow_mut().signed.replace(identity);
        match self.show() {
            Ok(()) => log::info!("the kubelet's port shows what the cluster has signed"),
            Err(why) => {
                log::error!("{why}; the kubelet's port shows what it did");
                self.shown.borrow_mut().signed = before;
            }
        }
    }

    /// Whether the kubelet's endpoints are served.
    pub fn has_kubelet_port(&self) -> bool {
        self.kubelet_config.is_some()
    }

    /// Handshakes from now on see what `shown` says.
    fn show(&self) -> Result<(), String> {
        let shown = self.shown.borrow();
        if let (Some(config), Some(server)) = (&self.config, &shown.server) {
            config.replace(server_config(server, &shown.client_authorities)?);
        }
        let kubelet = shown.signed.as_ref().or(shown.kubelet.as_ref());
        if let (Some(config), Some(kubelet)) = (&self.kubelet_config, kubelet) {
            config.replace(server_config(kubelet, &shown.client_authorities)?);
        }
        Ok(())
    }
}

impl Keeper {
    /// Renews what has to be renewed, for ever.
    pub async fn keep(mut self) {
        loop {
            let clock = &self.clock;
            clock.sleep_until(clock.now() + LOOK_PERIOD).await;
            if let Err(error) = self.look().await {
                log::error!("renew certificates: {error}; tried again in {LOOK_PERIOD:?}");
            }
        }
    }

    async fn look(&mut self) -> Result<(), String> {
        let now = self.clock.credible();
        let mut changed = self.pki.renew_authority(now).await?;
        let mut server = None;
        if let Some(address) = self.address {
            let names = names(&self.options, &self.node_name, address, self.gateway);
            server = Some(self.pki.server(&names, now).await?);
            self.pki.kubeconfig(address, now).await?;
        }
        let mut kubelet = None;
        if let Some(address) = self.kubelet_address {
            let names = endpoints::names(&self.options, &self.node_name, address);
            kubelet = Some(self.pki.kubelet(&names, now).await?);
        }
        changed |= self.front.shown.borrow().server != server;
        changed |= self.front.shown.borrow().kubelet != kubelet;
        if changed {
            let mut shown = self.front.shown.borrow_mut();
            shown.authority = self.pki.authority().to_owned();
            self.front.trust.replace(&shown.authority);
            shown.server = server;
            shown.kubelet = kubelet;
            drop(shown);
            // A renewed CA has its old key: whom the files made trusted still is.
            self.front.show()?;
        }
        Ok(())
    }
}

/// Upstream's names of the API, this node's, and every address that leads here.
fn names(options: &RunOptions, node_name: &str, address: SocketAddr, gateway: Ipv4Addr) -> Names {
    let domain = options.cluster_domain.as_deref();
    let mut dns_names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .into();
    dns_names.extend(domain.map(|domain| format!("kubernetes.default.svc.{domain}")));
    dns_names.push(node_name.to_owned());
    dns_names.retain(|name| name.is_ascii());
    dns_names.sort();
    dns_names.dedup();
    let mut ips = vec![
        IpAddr::from(Ipv4Addr::LOCALHOST),
        std::net::Ipv6Addr::LOCALHOST.into(),
        gateway.into(),
    ];
    ips.extend(machine::host_ips(options));
    if !address.ip().is_unspecified() {
        ips.push(address.ip());
    }
    ips.sort();
    ips.dedup();
    Names { dns_names, ips }
}

/// Files may lie on a disk that is slow to answer.
async fn read(paths: &Paths, authority: &str) -> Result<Files, String> {
    let (paths, authority) = (paths.clone(), authority.to_owned());
    let files = blocking::unblock(move || Files::load(&paths, &authority)).await?;
    for warning in &files.warnings {
        log::warn!("{warning}");
    }
    Ok(files)
}

/// Source: Kubernetes apiserver, pkg/kubeapiserver/options/authentication.go (ApplyAuthorization).
fn anonymous(options: &RunOptions) -> bool {
    let all = options
        .authorization_modes
        .contains(&AuthorizationMode::AlwaysAllow);
    if options.anonymous && all {
        log::warn!(
            "--anonymous-auth is not allowed with --authorization-mode=AlwaysAllow: it is off"
        );
    }
    options.anonymous && !all
}
