//! Room in memory, shared by threads: who needs more than is left waits.

use std::sync::{Condvar, Mutex, PoisonError};

/// So much at one time.
pub(crate) struct Room {
    total: u64,
    left: Mutex<u64>,
    given_back: Condvar,
}

/// A part of it, given back when it goes.
pub(crate) struct Taken<'r> {
    room: &'r Room,
    amount: u64,
}

impl Room {
    pub(crate) fn new(total: u64) -> Self {
        Self {
            total,
            left: Mutex::new(total),
            given_back: Condvar::new(),
        }
    }

    /// Waits for room. Who needs more than there is gets all of it.
    pub(crate) fn take(&self, amount: u64) -> Taken<'_> {
        let amount = amount.min(self.total);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        while *left < amount {
            let waited = self.given_back.wait(left);
            left = waited.unwrap_or_else(PoisonError::into_inner);
        }
        *left = left.saturating_sub(amount);
        Taken { room: self, amount }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let left = self.room.left.lock();
        let mut left = left.unwrap_or_else(PoisonError::into_inner);
        *left = left.saturating_add(self.amount);
        self.room.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn no_more_is_taken_at_one_time_than_there_is() {
        let room = Room::new(10);
        let (taken, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (room, taken, most) = (&room, &taken, &most);
                scope.spawn(move || {
                    for round in 0..200 {
                        // Also more than there is.
                        let amount = (thread + round) % 12;
                        let _room = room.take(amount);
                        let amount = amount.min(10);
                        let now = taken.fetch_add(amount, Ordering::SeqCst) + amount;
                        most.fetch_max(now, Ordering::SeqCst);
                        taken.fetch_sub(amount, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 10);
        assert_eq!(*room.left.lock().unwrap(), 10);
    }
}
