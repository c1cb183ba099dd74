//! What clients may hold at one time: places, so many for all and so many of them for
//! each; and how long one that takes nothing may hold a thread.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hashpact_node::caller::Who;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// For a client to take what waits for it, or to send on.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(30);

/// Places of one sort.
#[derive(Clone)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    held: Arc<Mutex<HashMap<Who, usize>>>,
    client_max: usize,
}

/// A place, until it is dropped.
pub(crate) struct Place {
    who: Who,
    held: Arc<Mutex<HashMap<Who, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many for all, and of them so many for one client.
    pub(crate) fn new(all: usize, client_max: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(all)),
            held: Arc::default(),
            client_max,
        }
    }

    /// Takes a place, if there is one.
    pub(crate) fn take(&self, who: &Who) -> Option<Place> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let before = held.get(who).copied().unwrap_or(0);
        let now = before
            .checked_add(1)
            .filter(|now| *now <= self.client_max)?;
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        held.insert(who.clone(), now);
        Some(Place {
            who: who.clone(),
            held: Arc::clone(&self.held),
            _permit: permit,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let left = held.get(&self.who).map_or(0, |held| held.saturating_sub(1));
        if left == 0 {
            held.remove(&self.who);
        } else {
            held.insert(self.who.clone(), left);
        }
    }
}

/// Hands something to a client from a thread that may wait; answers false where it is
/// gone, or takes nothing for [`STALLED_AFTER`].
pub(crate) fn hand<T>(to: &mpsc::Sender<T>, what: T) -> bool {
    hand_within(STALLED_AFTER, to, what)
}

fn hand_within<T>(limit: Duration, to: &mpsc::Sender<T>, what: T) -> bool {
    let what = match to.try_send(what) {
        Ok(()) => return true,
        Err(mpsc::error::TrySendError::Closed(_)) => return false,
        Err(mpsc::error::TrySendError::Full(what)) => what,
    };
    // Not by the runtime's timers: those panic once it shuts down, as it does under a
    // command whose reader went away.
    let deadline = Instant::now() + limit;
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut sending = pin!(to.send(what));
    loop {
        if let Poll::Ready(sent) = sending.as_mut().poll(&mut Context::from_waker(&waker)) {
            return sent.is_ok();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::park_timeout(left);
    }
}

/// Wakes the thread that waits for room.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_takes_its_share_and_gives_it_back() {
        let places = Places::new(3, 2);
        let (one, other) = (Who::Socket { uid: Some(1) }, Who::Loopback);
        let mut held: Vec<_> = std::iter::from_fn(|| places.take(&one)).collect();
        assert_eq!(held.len(), 2);
        let last = places.take(&other).unwrap();
        assert!(places.take(&Who::Process).is_none(), "all are taken");
        drop(last);
        held.pop();
        assert!(places.take(&one).is_some());
        drop(held);
        assert!(places.held.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (sender, mut receiver) = mpsc::channel(1);
        let soon = Duration::from_millis(1);
        let handing = move || {
            let given = hand_within(soon, &sender, 1);
            (given, hand_within(soon, &sender, 2), sender)
        };
        let (first, second, sender) = tokio::task::spawn_blocking(handing).await.unwrap();
        assert_eq!((first, second), (true, false));
        // One that is slow is waited for.
        let handing = tokio::task::spawn_blocking(move || hand(&sender, 3));
        assert_eq!(receiver.recv().await, Some(1));
        assert!(handing.await.unwrap());
        drop(receiver);
    }

    #[test]
    fn who_waits_for_a_client_ends_quietly_with_the_runtime() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let (sender, mut receiver) = mpsc::channel(1);
        let (tell, told) = std::sync::mpsc::channel();
        runtime.spawn_blocking(move || {
            tell.send(hand(&sender, 1)).unwrap();
            tell.send(hand(&sender, 2)).unwrap();
        });
        runtime.spawn(async move {
            std::future::pending::<()>().await;
            receiver.recv().await
        });
        assert_eq!(told.recv_timeout(STALLED_AFTER), Ok(true));
        runtime.shutdown_background();
        // The receiver went with the runtime, and the thread with a plain answer.
        assert_eq!(told.recv_timeout(STALLED_AFTER), Ok(false));
    }
}
