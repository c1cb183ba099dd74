//! What waits for a conflict of digests, while a node runs.

use hashpact_store::quarantine::Reason;

use super::live::{Live, until, verify};
use super::*;

/// Imports an entry with an MD5 that all of them have.
fn import(node: &Node, set: &str, n: u64) {
    let mut new = entry(n);
    let md5 = Signal::new(SignalKind::Md5, vec![0x5a; 16].into(), None).unwrap();
    new.body.signals.insert(0, md5);
    let mut import = node.import(&slug(set)).unwrap();
    import.push(vec![new]).unwrap();
    import.finish().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_node_lets_in_what_nobody_disputes_any_more() {
    let live = Live::new();
    let north = live.run(NORTH).await;
    for (set, n) in [("one", 1), ("other", 2)] {
        create_set(&north.node, set, &[("all", true)]);
        import(&north.node, set, n);
    }
    let waiting = || {
        let lots = north.node.quarantine(None, Some(Reason::DigestConflict));
        lots.unwrap().iter().map(|lot| lot.held).sum::<u64>()
    };
    assert_eq!(waiting(), 1);
    retract(&north.node, "one", 1..2);
    until("it is let in", || waiting() == 0).await;
    verify(&north.node);
    north.stop().await;
}
