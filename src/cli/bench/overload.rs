//! More calls at once than the node lets in: what it accepts must be answered as soon as
//! ever, and the rest be told when to come again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashpact_api::wire::node_client::NodeClient;
use hashpact_api::{RETRY_AFTER_MS, wire};
use serde::Serialize;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::latency::{Latency, Times};
use super::lookup::{check, connect};
use super::{per_second, seconds};
use crate::cli::client;
use crate::cli::error::CliError;

/// Callers for each processor: four times the calls that one client may have waiting.
const PER_PROCESSOR: usize = 64;

/// What became of calls of which there were too many.
#[derive(Debug, Serialize)]
pub(super) struct Overload {
    /// Callers, each of which has one call under way or was told to wait.
    callers: usize,
    signals_per_call: u32,
    accepted: u64,
    refused: u64,
    elapsed_s: f64,
    pub(super) lookups_per_s: f64,
    /// Of accepted calls.
    pub(super) latency_ms: Latency,
}

/// Asks with too many callers at once for so long.
pub(super) async fn overload(
    path: &Path,
    requests: Arc<Vec<wire::LookupRequest>>,
    signals_per_call: u32,
    time: Duration,
) -> Result<Overload, CliError> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let callers = processors.saturating_mul(PER_PROCESSOR);
    let began = Instant::now();
    let mut asking = Vec::with_capacity(callers);
    let mut node = connect(path).await?;
    for caller in 0..callers {
        // Streams of one connection are bounded.
        if caller % PER_PROCESSOR == 0 {
            node = connect(path).await?;
        }
        let requests = Arc::clone(&requests);
        let call = call(node.clone(), requests, caller, began + time);
        asking.push(tokio::spawn(call));
    }
    let (mut times, mut refused) = (Times::default(), 0_u64);
    for caller in asking {
        let (accepted, others) = caller.await.map_err(CliError::failed)??;
        times.add(accepted);
        refused = refused.saturating_add(others);
    }
    let elapsed = began.elapsed();
    let lookups = times.count().saturating_mul(u64::from(signals_per_call));
    Ok(Overload {
        callers,
        signals_per_call,
        accepted: times.count(),
        refused,
        elapsed_s: seconds(elapsed),
        lookups_per_s: per_second(lookups, elapsed),
        latency_ms: times.latency(),
    })
}

async fn call(
    mut node: NodeClient<Channel>,
    requests: Arc<Vec<wire::LookupRequest>>,
    from: usize,
    until: Instant,
) -> Result<(Times, u64), CliError> {
    let (mut times, mut refused) = (Times::default(), 0_u64);
    for request in requests.iter().cycle().skip(from) {
        let began = Instant::now();
        if began >= until {
            break;
        }
        match node.lookup(request.clone()).await {
            Ok(answered) => {
                check(request, &answered.into_inner())?;
                times.push(began.elapsed());
            }
            Err(status) if status.code() == Code::ResourceExhausted => {
                refused = refused.saturating_add(1);
                tokio::time::sleep(retry_after(&status)?).await;
            }
            Err(status) => return Err(client::failed(&status)),
        }
    }
    Ok((times, refused))
}

/// How long the node says to wait; it says so of every call that it turns away.
fn retry_after(status: &Status) -> Result<Duration, CliError> {
    let hint = status.metadata().get(RETRY_AFTER_MS);
    let hint = hint.and_then(|hint| hint.to_str().ok()?.parse().ok());
    let hint = hint.map(Duration::from_millis);
    hint.ok_or_else(|| CliError::failed("a call was turned away without a word when to come again"))
}
