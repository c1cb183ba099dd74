//! `bench mixed`: what a mute and a retraction wait while look-ups and a pull go on.
//!
//! Each is asked for over the local API, then the signal is looked up once: the time is from the
//! command until the answer that shows it. Entries are used that nothing else asks for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hashpact_api::wire;
use hashpact_api::wire::node_client::NodeClient;
use hashpact_node::clock::Clock;
use serde::Serialize;
use tonic::transport::Channel;

use super::entries::{self, Which};
use super::latency::{Latency, Times};
use crate::cli::client;
use crate::cli::error::CliError;

/// Entries that are taken for it: half are muted, half retracted, of which so many a day need
/// no identity key.
pub(super) const ENTRIES: u64 = 128;
/// From one to the next.
const EVERY: Duration = Duration::from_millis(100);
/// How long a mute stands.
const MUTED_MS: u64 = 3_600_000;

/// Times of corrections, from the command until a look-up shows it.
#[derive(Debug, Serialize)]
pub(super) struct Corrections {
    pub(super) mutes: Corrected,
    pub(super) retractions: Corrected,
}

#[derive(Debug, Serialize)]
pub(super) struct Corrected {
    pub(super) calls: u64,
    pub(super) latency_ms: Latency,
}

impl Corrected {
    fn of(times: &Times) -> Self {
        Self {
            calls: times.count(),
            latency_ms: times.latency(),
        }
    }
}

/// Mutes and retracts by turns, until told to stop or all entries from `first` on are used.
///
/// # Errors
/// When a command fails, or the look-up after it does not show it.
pub(super) async fn correct(
    node: NodeClient<Channel>,
    set: String,
    first: u64,
    stop: Arc<AtomicBool>,
) -> Result<Corrections, CliError> {
    let (mut mutes, mut retractions) = (Times::default(), Times::default());
    'all: for turn in 0..ENTRIES / 2 {
        for retract in [false, true] {
            tokio::time::sleep(EVERY).await;
            if stop.load(Ordering::Relaxed) {
                break 'all;
            }
            let signal = wire_signal(first + 2 * turn + u64::from(retract));
            let begun = Instant::now();
            if retract {
                self::retract(node.clone(), &set, signal.clone()).await?;
            } else {
                mute(node.clone(), signal.clone()).await?;
            }
            let answer = look_up(node.clone(), signal).await?;
            let (shows, times) = if retract {
                (answer.matches.is_empty(), &mut retractions)
            } else {
                (answer.verdict == "observe", &mut mutes)
            };
            times.push(begun.elapsed());
            if !shows {
                let what = if retract { "a retraction" } else { "a mute" };
                return Err(CliError::failed(format!(
                    "{what}, number {turn}, is not seen by the look-up after it: {} matches, \
                     verdict {:?}",
                    answer.matches.len(),
                    answer.verdict
                )));
            }
        }
    }
    Ok(Corrections {
        mutes: Corrected::of(&mutes),
        retractions: Corrected::of(&retractions),
    })
}

async fn mute(mut node: NodeClient<Channel>, signal: wire::Signal) -> Result<(), CliError> {
    let request = wire::MuteRequest {
        subject: Some(wire::MuteSubject {
            of: Some(wire::mute_subject::Of::Signal(signal)),
        }),
        case: "bench".to_owned(),
        expires_ms: Clock::system().now().0.saturating_add(MUTED_MS),
        tell: String::new(),
    };
    let muted = node.mute(request).await;
    muted.map(drop).map_err(|status| client::failed(&status))
}

async fn retract(
    mut node: NodeClient<Channel>,
    set: &str,
    signal: wire::Signal,
) -> Result<(), CliError> {
    let selector = wire::Selector {
        by: Some(wire::selector::By::Signal(signal)),
        line: 0,
    };
    let request = wire::RetractRequest {
        set: set.to_owned(),
        reason: "wrong".to_owned(),
        selectors: vec![selector],
        last: true,
        ..wire::RetractRequest::default()
    };
    let answer = node.retract(tokio_stream::once(request)).await;
    let answer = answer.map_err(|status| client::failed(&status))?;
    if answer.get_ref().retracted == 1 {
        Ok(())
    } else {
        Err(CliError::failed("a retraction took nothing back"))
    }
}

async fn look_up(
    mut node: NodeClient<Channel>,
    signal: wire::Signal,
) -> Result<wire::Answer, CliError> {
    let request = wire::LookupRequest {
        signals: vec![signal],
        ..wire::LookupRequest::default()
    };
    let answer = node.lookup(request).await;
    let answer = answer.map_err(|status| client::failed(&status))?;
    let first = answer.into_inner().answers.into_iter().next();
    first.ok_or_else(|| CliError::failed("a look-up was not answered"))
}

fn wire_signal(n: u64) -> wire::Signal {
    wire::Signal {
        kind: Which::Sha256.kind().number(),
        value: entries::value(n, Which::Sha256).to_vec().into(),
        quality: None,
    }
}
