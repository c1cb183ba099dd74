//! Threads for bulk work: chunks are verified, stored and read for others there.
//!
//! They run at low priority, so that who asks this node is not kept waiting by what it
//! pulls or serves: with nothing else to do they have the whole machine, beside
//! look-ups they give way. As many work at once as there are cores, and a few more
//! may wait for the disk.

use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::Once;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::error::NetError;

/// How much less than others the threads get of a busy core: at 10, about a tenth of
/// what a thread of normal priority gets.
const NICENESS: i32 = 10;
/// Threads at most: each feed that is written and each chunk that is read for a peer
/// or verified may hold one, and some of these wait for the disk.
const THREADS_MAX: usize = 64;

/// The threads of one exchange.
#[derive(Debug)]
pub struct Bulk {
    /// Taken when it is dropped, and only then.
    runtime: Option<Runtime>,
    handle: Handle,
    /// Chunks that are verified at one time: as many as there are cores.
    pub(crate) verifiers: Arc<Semaphore>,
}

impl Bulk {
    /// Prepares the threads; each begins when it is needed.
    ///
    /// # Errors
    /// [`NetError::Connect`] where the system has no thread left.
    pub fn start() -> Result<Arc<Self>, NetError> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(THREADS_MAX)
            .thread_name("bulk")
            .on_thread_start(give_way)
            .build()
            .map_err(NetError::Connect)?;
        Ok(Arc::new(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            verifiers: Arc::new(Semaphore::new(cores)),
        }))
    }

    /// Runs what may block.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle.spawn_blocking(work)
    }

    /// Where such work is tracked.
    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropped by whoever holds it last, which may be one of its own threads.
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of the thread that calls: on Linux a thread has its own.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        // Each thread meets the same.
        static SAID: Once = Once::new();
        SAID.call_once(|| {
            tracing::warn!(
                %error,
                "bulk work runs at normal priority, and look-ups wait for it: let the node call \
                 setpriority (under systemd no SystemCallFilter=~@resources)"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn bulk_work_gives_way_and_other_work_does_not() {
        // Fields 17 and 18 after the name: priority and niceness.
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let (_, fields) = stat.rsplit_once(") ").unwrap();
            fields.split(' ').nth(16).unwrap().parse::<i32>().unwrap()
        };
        let bulk = Bulk::start().unwrap();
        let before = niceness();
        let inside = bulk.run(niceness).await.unwrap();
        assert_eq!(inside, (before + NICENESS).min(19));
        let other = tokio::task::spawn_blocking(niceness).await.unwrap();
        assert_eq!(other, before);
    }
}
