//! What goes wrong on purpose: a node that dies while it pulls, and a byte that is
//! not what its publisher signed.

use std::time::{Duration, Instant};

use super::acts::{GENERATED, size};
use super::ask::{Node, metric, until};
use super::input;
use super::stage::{Stage, millis, per_second};
use super::tamper::Hostile;
use super::world::{Who, World};
use crate::cli::error::CliError;
use crate::cli::output::{count, duration};

/// The set that is served with a byte that is wrong.
const LATE: &str = "northstar/late";
/// Its entries.
const LATE_ENTRIES: u64 = 2_000;
/// The metric that counts what peers sent and was refused.
const REJECTIONS: &str = "hashpact_rejections_total";

/// The metric that counts what a node pulled since it started.
const PULLED: &str = "hashpact_pulled_leaves_total";

/// Harbor's node is killed while it pulls, started again, and checked whole.
pub(super) async fn crash(world: &mut World, stage: &Stage<'_>) -> Result<(), CliError> {
    stage.step("Crash: harbor's node is killed while it pulls")?;
    let mut lumen = world.node(Who::Lumen).await?;
    let set = lumen.feed(GENERATED).await?.unwrap_or_default();
    let mut harbor = world.node(Who::Harbor).await?;
    let (_, short) = GENERATED.split_once('/').unwrap_or(("", GENERATED));
    let granted = world.at_meanwhile(Who::Lumen, &["set", "grant", short, "harbor"]);
    let seen = a_fifth_stored(&mut harbor, &set.feed_id, set.head).await?;
    world.kill(Who::Harbor);
    granted.await.map_err(CliError::failed)??;
    // With the leaf that says the grant.
    let leaves = size(world, Who::Lumen, GENERATED).await?;
    let id = data_encoding::HEXLOWER.encode(&set.feed_id);
    let kept = stored_at_rest(world, &id).await?;
    let hit = 0 < kept && kept < leaves;
    stage.told(
        if hit {
            "SIGKILL; its store, read at rest, holds"
        } else {
            "SIGKILL missed the middle; its store holds"
        },
        format_args!(
            "{} of {} leaves, {} %",
            count(kept),
            count(leaves),
            kept.saturating_mul(100) / leaves.max(1)
        ),
    )?;
    let began = Instant::now();
    world.start(Who::Harbor)?;
    let mut harbor = world.ready(Who::Harbor).await?;
    let ready = began.elapsed();
    harbor.caught_up(GENERATED, leaves).await?;
    let caught_up = began.elapsed();
    stage.told("started again, and answers", duration(ready))?;
    // The node has pulled nothing else since it started.
    let pulled = pulled(world.member(Who::Harbor).http).await?;
    let missing = leaves.saturating_sub(kept);
    let again = pulled.saturating_sub(missing);
    stage.told(
        format_args!("caught up, going on from leaf {}", count(kept)),
        duration(caught_up),
    )?;
    let spared = kept.saturating_sub(again);
    stage.told("  leaves that were not pulled again", count(spared))?;
    stage.told("  leaves that it pulled, by its own metric", count(pulled))?;
    let verified = world.at(Who::Harbor, &["verify"]).await?;
    stage.told(
        "hashpact verify recomputes every feed from its leaves: clean",
        duration(verified.took),
    )?;
    stage.figure("crash_stored_seen", seen);
    stage.figure("crash_stored_after", kept);
    stage.figure("crash_leaves", leaves);
    stage.figure("crash_hit_the_middle", hit);
    stage.figure("crash_pulled_after", pulled);
    stage.figure("crash_pulled_again", again);
    stage.figure("crash_ready_ms", millis(ready));
    stage.figure("crash_caught_up_ms", millis(caught_up));
    stage.figure("verify_ms", millis(verified.took));
    stage.figure("verify_clean", true);
    stage.figure("crash_rest_per_s", per_second(pulled, caught_up));
    stage.sum(
        format_args!("killed at leaf {}, caught up, verify clean", count(kept)),
        duration(caught_up),
    );
    Ok(())
}

/// Waits until a fifth of a feed is durable, or all of it. Its name is not known
/// before the first head took effect, so it is found by its id.
async fn a_fifth_stored(node: &mut Node, id: &[u8], leaves: u64) -> Result<u64, CliError> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        let feeds = node.feeds().await?;
        let found = feeds.iter().find(|feed| feed.feed_id == id);
        let stored = found.map_or(0, |feed| feed.stored);
        if stored >= leaves / 5 {
            return Ok(stored);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Err(CliError::failed("harbor does not pull"))
}

/// What the store of harbor's node, which does not run, holds of a feed.
async fn stored_at_rest(world: &World, id: &str) -> Result<u64, CliError> {
    let listed = world.at(Who::Harbor, &["feeds"]).await?.json()?;
    let feeds = listed["feeds"].as_array().cloned().unwrap_or_default();
    let found = feeds.iter().find(|feed| feed["feed"] == id);
    Ok(found.and_then(|feed| feed["stored"].as_u64()).unwrap_or(0))
}

/// Leaves that a node pulled since it started.
async fn pulled(port: u16) -> Result<u64, CliError> {
    let lines = metric(port, PULLED).await?;
    let values = lines.iter().filter_map(|line| line.rsplit(' ').next());
    Ok(values.filter_map(|value| value.parse::<u64>().ok()).sum())
}

/// Lumen relays a set of northstar, which is away, with a bit that is not as signed.
pub(super) async fn tampered(world: &mut World, stage: &Stage<'_>) -> Result<(), CliError> {
    stage.step("Tampering: lumen relays northstar's set and flips one bit")?;
    let leaves = publish_late(world, stage).await?;
    let hostile = Hostile::start(&world.member(Who::Lumen).config()).await?;
    stage.say("northstar is away; lumen's own keys and store serve it with one bit flipped")?;
    world.start(Who::Harbor)?;
    let mut harbor = world.ready(Who::Harbor).await?;
    let port = world.member(Who::Harbor).http;
    let code = until("the altered leaf to be refused", || refused(port)).await?;
    let held = harbor.feed(LATE).await?.map_or(0, |feed| feed.stored);
    let altered = hostile.altered();
    hostile.stop().await?;
    stage.told(
        format_args!("harbor refuses what it got: {code}"),
        format_args!("{held} leaves stored"),
    )?;
    stage.figure("tampered_code", code);
    stage.figure("tampered_answers", altered);
    stage.figure("tampered_stored", held);
    if held > 0 || altered == 0 {
        return Err(CliError::failed(format!(
            "{altered} altered answers, and {held} leaves of them were stored"
        )));
    }
    recovered(world, leaves, stage).await?;
    stage.sum("one flipped bit", "refused, nothing stored");
    Ok(())
}

/// A set that lumen holds and may relay, and harbor does not know yet. Only harbor's
/// node is to be started after it.
async fn publish_late(world: &mut World, stage: &Stage<'_>) -> Result<u64, CliError> {
    let list = world.input("late.txt");
    input::late(&list, LATE_ENTRIES)?;
    let stopped = world.stop(Who::Harbor).await?;
    stage.told(
        "harbor's node stops when asked to (SIGTERM, exit code 0)",
        duration(stopped),
    )?;
    stage.figure("shutdown_ms", millis(stopped));
    let (_, short) = LATE.split_once('/').unwrap_or(("", LATE));
    let list = list.display().to_string();
    let create = [
        "set",
        "create",
        short,
        "--source",
        "own",
        "--grant",
        "all:relay",
    ];
    world.at(Who::Northstar, &create).await?;
    let import = [
        "import",
        "--set",
        short,
        &list,
        "--kind",
        "sha256",
        "--constant",
        "classification=demo:late",
    ];
    world.at(Who::Northstar, &import).await?;
    let leaves = size(world, Who::Northstar, LATE).await?;
    world
        .node(Who::Lumen)
        .await?
        .caught_up(LATE, leaves)
        .await?;
    stage.say(format_args!(
        "northstar publishes {LATE}, {} leaves, which lumen may relay",
        count(leaves)
    ))?;
    world.stop(Who::Northstar).await?;
    world.stop(Who::Lumen).await?;
    Ok(leaves)
}

/// The publisher comes back, and the set arrives as signed.
async fn recovered(world: &mut World, leaves: u64, stage: &Stage<'_>) -> Result<(), CliError> {
    let began = Instant::now();
    world.start(Who::Northstar)?;
    world.ready(Who::Northstar).await?;
    world
        .node(Who::Harbor)
        .await?
        .caught_up(LATE, leaves)
        .await?;
    let took = began.elapsed();
    stage.told(
        format_args!(
            "northstar is back: harbor has all {} leaves as signed",
            count(leaves)
        ),
        duration(took),
    )?;
    stage.figure("tampered_recovered_ms", millis(took));
    world.start(Who::Lumen)?;
    world.ready(Who::Lumen).await.map(drop)
}

/// The code of what was refused, at a node that was started with nothing refused.
async fn refused(port: u16) -> Result<Option<String>, CliError> {
    let lines = metric(port, REJECTIONS).await?;
    Ok(lines.iter().find_map(|line| label(line, "code")))
}

/// A label's value in a line of metrics.
fn label(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_from_a_line_of_metrics() {
        let line = r#"hashpact_rejections_total{code="root_mismatch",peer="north/main"} 1"#;
        assert_eq!(label(line, "code").as_deref(), Some("root_mismatch"));
        assert_eq!(label(line, "feed"), None);
    }
}
