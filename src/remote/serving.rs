//! The certificate of the kubelet's port, signed by the cluster: `--rotate-server-certificates`.
//!
//! Somebody has to approve the request, and until then the port shows a certificate of the node's
//! own. A new one is asked for in time, and when the node has an address that the old one is not for.
//! Source: Kubernetes, "Certificate Signing Requests", kubernetes.io/kubelet-serving.

use std::rc::Rc;
use std::time::Duration;

use super::certificates::NodeCertificate;
use super::link::Link;

/// Between two looks at the node's addresses, in memory.
const LOOK_PERIOD: Duration = Duration::from_secs(600);

pub struct Serving {
    pub certificate: NodeCertificate,
    pub link: Rc<Link>,
    /// Takes chain and key.
    pub show: Box<dyn Fn(&str)>,
}

impl Serving {
    /// Never ends.
    pub async fn run(self) {
        loop {
            let Some((held, text)) = self.certificate.kept_text().await else {
                while !self.link.is_up() {
                    self.link.turned().await;
                }
                self.certificate.obtain().await;
                continue;
            };
            (self.show)(&text);
            self.certificate.settle().await;
            self.certificate.renew(held, self.outdated()).await;
        }
    }

    /// Resolves when the node has a name that the certificate is not for. A new address is a call
    /// without an answer.
    async fn outdated(&self) {
        while self.certificate.kept().await.is_some() {
            futures_lite::future::or(self.link.wait(LOOK_PERIOD), self.link.turned()).await;
        }
    }
}
