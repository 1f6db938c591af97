//! `world::Net`: probe targets are the scripts of the containers behind an address.

use std::rc::Rc;
use std::time::Duration;

use lowtide::world::{HttpAnswer, HttpCheck, LocalFuture, Net, NetError};

use crate::host::{Host, boxed, give, question};

pub struct SimNet(pub Rc<Host>);

impl SimNet {
    /// Whether whoever listens at the address is well; `None` if nobody does.
    async fn ask(&self, host: &str, port: u16, timeout: Duration) -> Result<bool, NetError> {
        let (asker, answer) = question();
        let took = self.0.span(Duration::from_millis(2));
        let lost = self.0.luck.chance(self.0.faults.borrow().net_fails);
        let wait = if lost { timeout } else { took.min(timeout) };
        let address = host.to_owned();
        self.0.later_in_agent(wait, move |host| {
            let well = host.judge.probed(host, &address, port, lost);
            give(&asker, if lost { Err(NetError::Timeout) } else { well });
        });
        answer.await
    }
}

impl Net for SimNet {
    fn tcp_check(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> LocalFuture<'_, Result<(), NetError>> {
        let host = host.to_owned();
        boxed(async move {
            match self.ask(&host, port, timeout).await? {
                true => Ok(()),
                false => Err(NetError::Failed("connection refused".to_owned())),
            }
        })
    }

    fn http_check(&self, check: HttpCheck) -> LocalFuture<'_, Result<HttpAnswer, NetError>> {
        boxed(async move {
            let well = self.ask(&check.host, check.port, check.timeout).await?;
            Ok(HttpAnswer {
                status: if well { 200 } else { 503 },
                body: Vec::new(),
                redirected_elsewhere: false,
            })
        })
    }

    fn grpc_check(
        &self,
        host: &str,
        port: u16,
        _: &str,
        timeout: Duration,
    ) -> LocalFuture<'_, Result<u64, NetError>> {
        let host = host.to_owned();
        boxed(async move {
            Ok(if self.ask(&host, port, timeout).await? {
                1
            } else {
                2
            })
        })
    }
}
