//! Until when a log is followed: while the instance that writes it runs.
//!
//! Learnt from the registry's watch of pods, so that nothing wakes while nothing happens. What the
//! container wrote before its end is on disk before its end is published, and read after it.

use async_channel::Receiver;
use async_executor::{LocalExecutor, Task};
use bytes::Bytes;
use futures_lite::{Stream, future, stream};

use super::container_status;
use crate::apiserver::Counted;
use crate::object::{Key, Kind};
use crate::registry::Reader;
use crate::runtime::logs::LogReader;

/// Whose log is followed.
pub struct Instance {
    pub key: Key,
    pub uid: String,
    pub container: String,
    /// Its restart count.
    pub attempt: u64,
}

impl Instance {
    /// A channel that is closed once this instance can write no more. Dropping the task ends the
    /// watch, and closes the channel too.
    pub fn until_ended(
        self,
        reader: Reader,
        executor: &LocalExecutor<'static>,
    ) -> (Receiver<()>, Task<()>) {
        let (running, ended) = async_channel::bounded(1);
        let task = executor.spawn(async move {
            self.ended(&reader).await;
            drop(running);
        });
        (ended, task)
    }

    async fn ended(&self, reader: &Reader) {
        loop {
            // The cursor first: a change between the look and the wait still wakes.
            let cursor = reader.watch(Kind::Pod, reader.version());
            if !self.goes_on(reader) {
                return;
            }
            let Ok(mut cursor) = cursor else {
                continue;
            };
            // Fallen behind history: look again, from its end.
            while cursor.next_packed().await.is_ok() {
                if !self.goes_on(reader) {
                    return;
                }
            }
        }
    }

    fn goes_on(&self, reader: &Reader) -> bool {
        let Some(object) = reader.get_packed(&self.key).filter(|o| o.uid() == self.uid) else {
            return false;
        };
        let pod = object.unpack().body;
        let status = container_status(&pod, &self.container);
        status["state"]["running"].is_object() && status["restartCount"] == self.attempt
    }
}

/// The log as a body. `following` lives as long as somebody reads. An error in the middle ends
/// the stream: the status line has been sent.
pub fn bytes(log: LogReader, following: Option<(Task<()>, Counted)>) -> impl Stream<Item = Bytes> {
    stream::unfold((log, following), |(mut log, following)| async move {
        match log.next().await {
            Ok(Some(bytes)) => Some((Bytes::from(bytes), (log, following))),
            Ok(None) => {
                // The end goes by a write of its own: an API server drops what it reads together
                // with it (k8s.io/streaming, wsstream's messageCopy).
                future::yield_now().await;
                None
            }
            Err(error) => {
                log::warn!("read a log for the api: {error}; the answer ends here");
                None
            }
        }
    })
}
