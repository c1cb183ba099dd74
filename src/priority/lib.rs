//! Threads that give way: what is pulled, served and indexed in bulk keeps nobody waiting
//! who asks this node.
//!
//! On Linux each thread has its own priority; elsewhere only [`let_others`] has an effect. Where
//! the system refuses, that is said once and the work goes on.

#![forbid(unsafe_code)]

use std::cell::Cell;
#[cfg(target_os = "linux")]
use std::sync::Once;
use std::time::{Duration, Instant};

/// How much less than others threads that give way get of a busy core: at 10, about a
/// tenth of what a thread of normal priority gets.
pub const NICENESS: i32 = 10;

/// How long a thread works on before it lets others have its core.
const STRETCH: Duration = Duration::from_micros(200);
/// Who did not call for so long waited for something, and begins anew.
const PAUSE: Duration = Duration::from_millis(5);

/// Lets those that wait for the core have it, if this thread had it for long. ⚠ Not while a
/// lock is held that they may wait for.
///
/// A system that favours throughput (`PREEMPT_NONE`, say) lets a thread finish its slice, 4 ms
/// often, whoever wakes meanwhile and however low the thread's own priority is: only where a
/// thread enters the system by itself does it look who else is there. So whatever works for
/// long calls this every few dozen microseconds; a call costs some 30 ns.
pub fn let_others() {
    thread_local! {
        static BEGUN: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    BEGUN.with(
        |begun| match begun.get().map(|at| now.saturating_duration_since(at)) {
            Some(worked) if worked < STRETCH => {}
            Some(worked) if worked < PAUSE => {
                std::thread::yield_now();
                begun.set(Some(Instant::now()));
            }
            Some(_) | None => begun.set(Some(now)),
        },
    );
}

/// As [`let_others`], for what is called for each of millions of small things: only one call
/// of 256 looks at the clock.
pub fn let_others_at_times() {
    thread_local! {
        static CALLS: Cell<u8> = const { Cell::new(0) };
    }
    let calls = CALLS.with(|calls| calls.replace(calls.get().wrapping_add(1)));
    if calls == u8::MAX {
        let_others();
    }
}

/// Lowers the priority of the thread that calls, for good, and of those that it starts
/// from now on: it gets about a tenth of a busy core, and is let finish what it began.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        refused(&error);
    }
}

/// The same for what may take minutes: it gets what nobody else wants (`SCHED_IDLE`). Whoever
/// wakes takes the core from it, where the system lets it at once; else see [`let_others`].
pub fn give_way_wholly() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::{
            NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
            set_thread_priority_and_policy, thread_native_id,
        };

        let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
        let me = thread_native_id();
        if let Err(error) = set_thread_priority_and_policy(me, ThreadPriority::Min, idle) {
            refused(&format_args!("{error:?}"));
        }
    }
}

/// Each thread meets the same.
#[cfg(target_os = "linux")]
fn refused(error: &dyn std::fmt::Display) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            %error,
            "bulk work runs at normal priority, and look-ups wait for it: let the node call \
             setpriority and sched_setscheduler (under systemd no SystemCallFilter=~@resources)"
        );
    });
}
