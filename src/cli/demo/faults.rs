//! What goes wrong on purpose: a node that dies while it pulls, and a byte that is
//! not what its publisher signed.

use std::time::{Duration, Instant};

use super::acts::{GENERATED, size};
use super::ask::{metric, until};
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

/// Harbor's node is killed while it pulls, started again, and checked whole.
pub(super) async fn crash(world: &mut World, stage: &Stage<'_>) -> Result<(), CliError> {
    stage.step("Crash: harbor's node is killed while it pulls")?;
    let (_, short) = GENERATED.split_once('/').unwrap_or(("", GENERATED));
    let mut harbor = world.node(Who::Harbor).await?;
    world
        .at(Who::Lumen, &["set", "grant", short, "harbor"])
        .await?;
    let leaves = size(world, Who::Lumen, GENERATED).await?;
    let stored = pulled_some(&mut harbor, leaves).await?;
    world.kill(Who::Harbor);
    let share = stored.saturating_mul(100) / leaves.max(1);
    let when = if stored < leaves {
        format!(
            "SIGKILL with {} of {} leaves stored",
            count(stored),
            count(leaves)
        )
    } else {
        "SIGKILL just after the last leaf (too few entries to hit the middle)".to_owned()
    };
    stage.told(when, format_args!("{share} %"))?;
    let began = Instant::now();
    world.start(Who::Harbor)?;
    let mut harbor = world.ready(Who::Harbor).await?;
    let ready = began.elapsed();
    let kept = harbor.feed(GENERATED).await?.map_or(0, |feed| feed.stored);
    harbor.caught_up(GENERATED, leaves).await?;
    let caught_up = began.elapsed();
    stage.told("started again, and answers", duration(ready))?;
    stage.told(
        format_args!("caught up, going on from leaf {}", count(kept)),
        duration(caught_up),
    )?;
    let verified = world.at(Who::Harbor, &["verify"]).await?;
    stage.told(
        "hashpact verify recomputes every feed from its leaves: clean",
        duration(verified.took),
    )?;
    stage.figure("crash_stored_before", stored);
    stage.figure("crash_stored_after", kept);
    stage.figure("crash_leaves", leaves);
    stage.figure("crash_ready_ms", millis(ready));
    stage.figure("crash_caught_up_ms", millis(caught_up));
    stage.figure("verify_ms", millis(verified.took));
    stage.figure("verify_clean", true);
    let rest = leaves.saturating_sub(kept);
    stage.figure("crash_rest_per_s", per_second(rest, caught_up));
    stage.sum(
        "killed while pulling: caught up, verify clean",
        duration(caught_up),
    );
    Ok(())
}

/// Waits until a fifth is stored, or all of it.
async fn pulled_some(node: &mut super::ask::Node, leaves: u64) -> Result<u64, CliError> {
    let some = leaves / 5;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        let stored = node.feed(GENERATED).await?.map_or(0, |feed| feed.stored);
        if stored >= some {
            return Ok(stored);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Err(CliError::failed("harbor does not pull"))
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
        "northstar publishes {LATE}, {} leaves; lumen has it and may relay it",
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
