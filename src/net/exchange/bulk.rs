//! Threads for what is pulled and served: chunks are verified, stored and read for others
//! there.
//!
//! None of it keeps waiting who asks this node: with nothing else to do it has the whole
//! machine, beside look-ups it gives way. What is large is verified and read by threads
//! that do so wholly; what is small, a retraction of today say, and all that writes, still
//! gets a tenth of a busy core, so that no crowd of callers keeps it out. As many work at
//! once as there are cores, and a few more may wait for the disk.

use std::sync::Arc;

use hashpact_priority::{give_way, give_way_wholly};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::error::NetError;

/// Pieces of one size that are read for others at once, over all pulls: one takes a few
/// milliseconds, and the queue is fair.
const READERS_MAX: usize = 4;
/// Leaves of one piece of work from which on it is large: some 10 ms of work.
const LARGE_LEAVES: u64 = 4_096;
/// Threads at most: each feed that is written and each chunk that is read for a peer
/// or verified may hold one, and some of these wait for the disk.
const THREADS_MAX: usize = 64;

/// How much work something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
}

impl Size {
    /// Of work on so many leaves.
    pub(crate) const fn of(leaves: u64) -> Self {
        if leaves < LARGE_LEAVES {
            Self::Small
        } else {
            Self::Large
        }
    }
}

/// The threads of one exchange.
#[derive(Debug)]
pub struct Bulk {
    small: Threads,
    large: Threads,
}

impl Bulk {
    /// Prepares the threads; each begins when it is needed.
    ///
    /// # Errors
    /// [`NetError::Connect`] where the system has no thread left.
    pub fn start() -> Result<Arc<Self>, NetError> {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Arc::new(Self {
            small: Threads::start("small", give_way, cores)?,
            large: Threads::start("bulk", give_way_wholly, cores)?,
        }))
    }

    /// Runs what may block.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        size: Size,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.handle(size).spawn_blocking(work)
    }

    /// Where such work is tracked.
    pub(crate) const fn handle(&self, size: Size) -> &Handle {
        &self.threads(size).handle
    }

    /// Chunks that are verified at one time. ⚠ What is small never waits for what is
    /// large, which may wait for a core itself.
    pub(crate) const fn verifiers(&self, size: Size) -> &Arc<Semaphore> {
        &self.threads(size).verifiers
    }

    /// Pieces that are read for others at one time.
    pub(crate) const fn readers(&self, size: Size) -> &Arc<Semaphore> {
        &self.threads(size).readers
    }

    const fn threads(&self, size: Size) -> &Threads {
        match size {
            Size::Small => &self.small,
            Size::Large => &self.large,
        }
    }
}

/// Threads of one priority.
#[derive(Debug)]
struct Threads {
    /// Taken when it is dropped, and only then.
    runtime: Option<Runtime>,
    handle: Handle,
    verifiers: Arc<Semaphore>,
    readers: Arc<Semaphore>,
}

impl Threads {
    fn start(name: &str, give_way: fn(), cores: usize) -> Result<Self, NetError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(THREADS_MAX)
            .thread_name(name)
            .on_thread_start(give_way)
            .build()
            .map_err(NetError::Connect)?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
            verifiers: Arc::new(Semaphore::new(cores)),
            readers: Arc::new(Semaphore::new(READERS_MAX)),
        })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropped by whoever holds it last, which may be one of its own threads.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use hashpact_priority::NICENESS;

    use super::*;

    /// What `sched_getscheduler` answers.
    #[cfg(target_os = "linux")]
    const IDLE: i32 = 5;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn bulk_work_gives_way_and_other_work_does_not() {
        // After the name field 16 is the priority, 17 the niceness, 39 the policy.
        let how = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let (_, fields) = stat.rsplit_once(") ").unwrap();
            let field = |n: usize| fields.split(' ').nth(n).unwrap().parse::<i32>().unwrap();
            (field(16), field(38))
        };
        let bulk = Bulk::start().unwrap();
        let (before, policy) = how();
        let small = bulk.run(Size::Small, how).await.unwrap();
        assert_eq!(small, ((before + NICENESS).min(19), policy));
        let (_, large) = bulk.run(Size::Large, how).await.unwrap();
        assert_eq!(large, IDLE);
        let other = tokio::task::spawn_blocking(how).await.unwrap();
        assert_eq!(other, (before, policy));
    }
}
