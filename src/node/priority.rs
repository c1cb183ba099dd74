//! Threads that give way: what is pulled, served and indexed in bulk keeps nobody waiting
//! who asks this node.
//!
//! On Linux each thread has its own priority; elsewhere nothing here has an effect. Where
//! the system refuses, that is said once and the work goes on.

#[cfg(target_os = "linux")]
use std::sync::Once;

/// How much less than others threads that give way get of a busy core: at 10, about a
/// tenth of what a thread of normal priority gets.
pub const NICENESS: i32 = 10;

/// Lowers the priority of the thread that calls, for good, and of those that it starts
/// from now on: it gets about a tenth of a busy core, and is let finish what it began.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICENESS) {
        refused(&error);
    }
}

/// The same for what may take minutes: it gets what nobody else wants (`SCHED_IDLE`), and
/// whoever wakes takes the core from it at once.
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
