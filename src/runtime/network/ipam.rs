//! Which pod has which address: the range of `--pod-cidr` and the leases in it.
//!
//! Pure bookkeeping. Nothing is written here: each pod's address is part of its own sandbox record
//! under RUN, and the pool is rebuilt from those records when an agent starts. The cursor only
//! moves forward, so an address that was just given back is not used again before the whole range
//! went by: old connections and ARP entries of the last owner have long expired by then.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::world::Uid;

/// Widest range: 65 534 addresses, so that an address's host part fits a veth's name.
const PREFIX_MIN: u8 = 16;
/// Narrowest range: gateway and one pod.
const PREFIX_MAX: u8 = 30;

/// An IPv4 range in CIDR notation, host bits zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    network: u32,
    prefix: u8,
}

impl Subnet {
    /// `10.88.0.0/24`: between /16 and /30, without host bits.
    /// Errors: the text to print behind `--pod-cidr`.
    pub fn parse(text: &str) -> Result<Subnet, String> {
        let (address, prefix) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} is no range like 10.88.0.0/24"))?;
        let address = Ipv4Addr::from_str(address)
            .map_err(|_| format!("{text:?}: {address:?} is no IPv4 address"))?;
        let prefix: u8 = prefix
            .parse()
            .ok()
            .filter(|prefix| (PREFIX_MIN..=PREFIX_MAX).contains(prefix))
            .ok_or_else(|| format!("{text:?}: prefix must be {PREFIX_MIN} to {PREFIX_MAX}"))?;
        let subnet = Subnet {
            network: u32::from(address) & mask(prefix),
            prefix,
        };
        if subnet.network != u32::from(address) {
            return Err(format!("{text:?} has host bits set, did you mean {subnet}"));
        }
        Ok(subnet)
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The bridge's address: the first of the range.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network + 1)
    }

    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(self.network | !mask(self.prefix))
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.network
    }

    /// Whether `address/prefix` (of some interface) shares any address with this range.
    pub fn overlaps(self, address: Ipv4Addr, prefix: u8) -> bool {
        let common = mask(prefix.min(self.prefix));
        u32::from(address) & common == self.network & common
    }

    /// Position in the range: 1 is the gateway.
    pub fn host_part(self, address: Ipv4Addr) -> u32 {
        u32::from(address) & !mask(self.prefix)
    }

    fn pod_hosts(self) -> std::ops::Range<u32> {
        2..self.host_part(self.broadcast())
    }

    fn at(self, host: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.network + host)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// Every address of the range is leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    pub subnet: Subnet,
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.subnet.pod_hosts().len();
        write!(
            f,
            "all {count} pod addresses of {} are in use: choose a larger --pod-cidr",
            self.subnet
        )
    }
}

/// The leases of one range.
#[derive(Debug)]
pub struct Pool {
    subnet: Subnet,
    leases: BTreeMap<Uid, Ipv4Addr>,
    owners: BTreeMap<Ipv4Addr, Uid>,
    /// Host part to try next.
    cursor: u32,
}

impl Pool {
    pub fn new(subnet: Subnet) -> Pool {
        Pool {
            subnet,
            leases: BTreeMap::new(),
            owners: BTreeMap::new(),
            cursor: subnet.pod_hosts().start,
        }
    }

    /// The pod's address: the one it has, else the next free one.
    pub fn lease(&mut self, uid: &Uid) -> Result<Ipv4Addr, Exhausted> {
        if let Some(address) = self.leases.get(uid) {
            return Ok(*address);
        }
        let hosts = self.subnet.pod_hosts();
        let free = (self.cursor..hosts.end)
            .chain(hosts.start..self.cursor)
            .find(|host| !self.owners.contains_key(&self.subnet.at(*host)))
            .ok_or(Exhausted {
                subnet: self.subnet,
            })?;
        self.insert(uid, self.subnet.at(free));
        Ok(self.subnet.at(free))
    }

    /// Takes a recorded lease over. `false` if the address is outside the range or has an owner:
    /// the pod then needs a new sandbox.
    pub fn adopt(&mut self, uid: &Uid, address: Ipv4Addr) -> bool {
        let usable = self.subnet.contains(address)
            && self
                .subnet
                .pod_hosts()
                .contains(&self.subnet.host_part(address));
        let free = self.owners.get(&address).is_none_or(|owner| owner == uid);
        if usable && free {
            self.insert(uid, address);
        }
        usable && free
    }

    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Gives the pod's address back, if it has one.
    pub fn release(&mut self, uid: &Uid) -> Option<Ipv4Addr> {
        let address = self.leases.remove(uid)?;
        self.owners.remove(&address);
        Some(address)
    }

    fn insert(&mut self, uid: &Uid, address: Ipv4Addr) {
        if let Some(earlier) = self.leases.insert(uid.clone(), address) {
            self.owners.remove(&earlier);
        }
        self.owners.insert(address, uid.clone());
        let hosts = self.subnet.pod_hosts();
        let after = self.subnet.host_part(address) + 1;
        self.cursor = if after < hosts.end {
            after
        } else {
            hosts.start
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(n: u32) -> Uid {
        Uid::new(&format!("pod-{n}")).expect("a safe name")
    }

    fn pool(cidr: &str) -> Pool {
        Pool::new(Subnet::parse(cidr).expect("a valid range"))
    }

    #[test]
    fn ranges_are_parsed_strictly() {
        for (text, gateway) in [
            ("10.88.0.0/24", Some("10.88.0.1")),
            ("10.88.0.0/16", Some("10.88.0.1")),
            ("192.168.7.4/30", Some("192.168.7.5")),
            ("10.88.0.1/24", None),
            ("10.0.0.0/8", None),
            ("10.88.0.0/31", None),
            ("10.88.0.0", None),
            ("fd00::/64", None),
            ("10.88.0/24", None),
        ] {
            let got = Subnet::parse(text).map(|subnet| subnet.gateway().to_string());
            assert_eq!(got.ok().as_deref(), gateway, "{text}");
        }
    }

    #[test]
    fn overlap_looks_at_the_shorter_prefix() {
        let subnet = Subnet::parse("10.88.0.0/24").unwrap();
        for (address, prefix, overlaps) in [
            ("10.88.0.7", 32, true),
            ("10.0.0.1", 8, true),
            ("10.88.1.1", 24, false),
            ("10.88.1.1", 16, true),
            ("192.168.0.1", 24, false),
            ("1.2.3.4", 0, true),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(
                subnet.overlaps(address, prefix),
                overlaps,
                "{address}/{prefix}"
            );
        }
    }

    #[test]
    fn a_pod_keeps_its_address_and_others_get_the_next() {
        let mut pool = pool("10.88.0.0/24");
        assert_eq!(pool.lease(&uid(1)).unwrap().to_string(), "10.88.0.2");
        assert_eq!(pool.lease(&uid(2)).unwrap().to_string(), "10.88.0.3");
        assert_eq!(pool.lease(&uid(1)).unwrap().to_string(), "10.88.0.2");
    }

    #[test]
    fn a_released_address_waits_until_the_range_went_round() {
        let mut pool = pool("10.88.0.0/29");
        let first = pool.lease(&uid(0)).unwrap();
        pool.release(&uid(0));
        let later: Vec<_> = (1..=5).map(|n| pool.lease(&uid(n)).unwrap()).collect();
        assert_eq!(later.iter().position(|a| *a == first), Some(4));
    }

    #[test]
    fn an_exhausted_range_says_so_and_recovers() {
        let mut pool = pool("10.88.0.0/30");
        pool.lease(&uid(1)).unwrap();
        let error = pool.lease(&uid(2)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "all 1 pod addresses of 10.88.0.0/30 are in use: choose a larger --pod-cidr"
        );
        pool.release(&uid(1));
        assert!(pool.lease(&uid(2)).is_ok());
    }

    #[test]
    fn adoption_refuses_foreign_and_doubled_addresses() {
        let mut pool = pool("10.88.0.0/24");
        assert!(pool.adopt(&uid(1), "10.88.0.9".parse().unwrap()));
        assert!(pool.adopt(&uid(1), "10.88.0.9".parse().unwrap()));
        assert!(!pool.adopt(&uid(2), "10.88.0.9".parse().unwrap()));
        assert!(!pool.adopt(&uid(2), "10.89.0.9".parse().unwrap()));
        assert!(!pool.adopt(&uid(2), "10.88.0.1".parse().unwrap()));
        assert!(!pool.adopt(&uid(2), "10.88.0.255".parse().unwrap()));
        assert_eq!(pool.lease(&uid(2)).unwrap().to_string(), "10.88.0.10");
    }
}
