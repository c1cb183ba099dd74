//! What happens, step by step, until everybody holds everything.

use std::path::Path;
use std::time::{Duration, Instant};

use hashpact_api::wire::Signal;
use hashpact_core::signal::SignalKind;

use super::ask::{Node, until};
use super::input::{self, Packages};
use super::stage::{Stage, millis, per_second, rate};
use super::world::{COALITION, Who, World, make};
use crate::cli::error::CliError;
use crate::cli::output::{count, duration};

/// The sets: whose, and what they are called.
pub(super) const PACKAGES: &str = "northstar/packages";
const REPORTS: &str = "harbor/reports";
pub(super) const GENERATED: &str = "lumen/generated";
/// Files shown as a person would ask for them.
const SHOWN_FILES: usize = 3;

/// The administrator founds, the members enrol, three nodes run.
pub(super) async fn found(world: &mut World, stage: &Stage<'_>) -> Result<(), CliError> {
    stage.step("Founding")?;
    let began = Instant::now();
    let admin = world.admin().display().to_string();
    let mut founding = vec!["coalition", "init", "--name", COALITION, "--dir", &admin];
    founding.push("--no-passphrase");
    let founded = world.call(&founding).await?.json()?;
    let genesis = founded["genesis"].as_str().unwrap_or_default().to_owned();
    let short = genesis.get(..16).unwrap_or_default();
    stage.told(
        format_args!("an administrator founds {COALITION}"),
        format_args!("genesis {short}…"),
    )?;
    for who in Who::FOUNDERS {
        init(world, who, &genesis).await?;
    }
    stage.say("northstar, harbor and lumen make their keys and ask to be enrolled")?;
    let requests = Who::FOUNDERS.map(|who| world.member(who).request().display().to_string());
    let mut line = vec!["coalition", "add", "--dir", &admin, "--yes"];
    line.extend(requests.iter().map(String::as_str));
    let added = world.call(&line).await?.json()?;
    stage.told(
        "the administrator checks every key and signs the roster",
        format_args!("version {}", added["version"]),
    )?;
    stage.figure("founding_ms", millis(began.elapsed()));
    start_all(world, stage).await
}

async fn init(world: &World, who: Who, genesis: &str) -> Result<(), CliError> {
    let member = world.member(who);
    let dir = member.dir.display().to_string();
    let listen = format!("127.0.0.1:{}", member.port);
    let http = format!("127.0.0.1:{}", member.http);
    let roster = world.admin().join("roster.hashpact").display().to_string();
    let mail = format!("desk@{}.example", who.slug());
    let line = [
        "init",
        "--dir",
        &dir,
        "--coalition",
        COALITION,
        "--genesis",
        genesis,
        "--member",
        who.slug(),
        "--display-name",
        who.display_name(),
        "--organisation",
        who.organisation(),
        "--listen",
        &listen,
        "--advertise",
        &listen,
        "--http-listen",
        &http,
        "--roster-file",
        &roster,
        "--allow-loopback-endpoints",
        "--contact-name",
        "Trust and safety desk",
        "--contact-email",
        &mail,
    ];
    world.call(&line).await?;
    if who == Who::Harbor {
        small_steps(&member.config())?;
    }
    Ok(())
}

/// Makes what a node pulls durable in small steps: it is to be killed in the middle
/// of a pull, which may be short.
fn small_steps(config: &Path) -> Result<(), CliError> {
    let fail = |error: std::io::Error| CliError::failed(format!("{}: {error}", config.display()));
    let text = std::fs::read_to_string(config).map_err(fail)?;
    let steps = text.replace("sync_every_mib = 32", "sync_every_mib = 1");
    std::fs::write(config, steps).map_err(fail)
}

async fn start_all(world: &mut World, stage: &Stage<'_>) -> Result<(), CliError> {
    let began = Instant::now();
    for who in Who::FOUNDERS {
        world.start(who)?;
    }
    for who in Who::FOUNDERS {
        let node = world.ready(who).await?;
        until("the nodes to connect", || {
            let mut node = node.clone();
            async move {
                let connected = node.status().await?.peers_connected;
                Ok((connected >= 2).then_some(()))
            }
        })
        .await?;
    }
    let took = began.elapsed();
    stage.told(
        "three nodes run, each connected to the other two over mutual TLS 1.3",
        duration(took),
    )?;
    stage.figure("start_ms", millis(took));
    Ok(())
}

/// Each member brings its list into a set of its own, which nobody else may read yet.
pub(super) async fn import(
    world: &World,
    entries: u64,
    stage: &Stage<'_>,
) -> Result<Packages, CliError> {
    stage.step("Import: each member publishes a set of its own")?;
    make(&world.dir.join("input"))?;
    let (list, vics, csv) = (
        world.input("packages.md5"),
        world.input("reports.json"),
        world.input("generated.csv"),
    );
    let (a, b, c) = (list.clone(), vics.clone(), csv.clone());
    let made = tokio::task::spawn_blocking(move || {
        input::vics(&b)?;
        input::generated(&c, entries)?;
        input::packages(&a)
    });
    let packages = made.await.map_err(CliError::failed)??;
    let what = format!("{} lines, {}", count(packages.lines), packages.source);
    let sets = [
        (Who::Northstar, PACKAGES, &list, packages.lines, what),
        (
            Who::Harbor,
            REPORTS,
            &vics,
            input::VICS_ENTRIES,
            "a VICS file".to_owned(),
        ),
        (
            Who::Lumen,
            GENERATED,
            &csv,
            entries,
            "CSV with SHA-256 and PDQ".to_owned(),
        ),
    ];
    for (who, set, file, lines, what) in sets {
        let (_, short) = set.split_once('/').unwrap_or(("", set));
        world
            .at(who, &["set", "create", short, "--source", "own"])
            .await?;
        let file = file.display().to_string();
        let mut line = vec!["import", "--set", short, &file];
        if who == Who::Northstar {
            line.extend([
                "--constant",
                "classification=demo:package",
                "--constant",
                "media=other",
            ]);
        }
        let took = world.at(who, &line).await?.took;
        let held = live(&mut world.node(who).await?, set).await?;
        stage.told(format_args!("{set}: {what}"), "")?;
        stage.told(
            format_args!("  {} entries in {}", count(held), duration(took)),
            rate(lines, took),
        )?;
        stage.figure(&format!("{short}_entries"), held);
        stage.figure(&format!("{short}_import_ms"), millis(took));
        stage.figure(
            &format!("{short}_import_lines_per_s"),
            per_second(lines, took),
        );
        if set == GENERATED {
            stage.sum(
                format_args!("import of {} CSV lines", count(lines)),
                rate(lines, took),
            );
        }
    }
    Ok(packages)
}

async fn live(node: &mut Node, set: &str) -> Result<u64, CliError> {
    let feed = node.feed(set).await?;
    Ok(feed.map_or(0, |feed| feed.live_entries))
}

/// How many leaves the publisher's own feed has.
pub(super) async fn size(world: &World, who: Who, set: &str) -> Result<u64, CliError> {
    let feed = world.node(who).await?.feed(set).await?;
    feed.map(|feed| feed.head)
        .ok_or_else(|| CliError::failed(format!("{set} is not there at its publisher")))
}

/// The sets are granted; everybody pulls and verifies.
pub(super) async fn exchange(world: &World, stage: &Stage<'_>) -> Result<(), CliError> {
    stage.step("Exchange: grants, then each pulls and checks every proof itself")?;
    for (who, set) in [(Who::Northstar, PACKAGES), (Who::Harbor, REPORTS)] {
        let readers = Who::FOUNDERS.into_iter().filter(|reader| *reader != who);
        let readers: Vec<Who> = readers.collect();
        let (leaves, took) = granted(world, who, set, "all", &readers).await?;
        let names: Vec<&str> = readers.iter().map(|reader| reader.slug()).collect();
        stage.told(
            format_args!("{set}: {} leaves to {}", count(leaves), names.join(" and ")),
            duration(took),
        )?;
        let (_, short) = set.split_once('/').unwrap_or(("", set));
        stage.figure(&format!("{short}_exchange_ms"), millis(took));
    }
    let northstar = [Who::Northstar];
    let (leaves, took) = granted(world, Who::Lumen, GENERATED, "northstar", &northstar).await?;
    stage.told(
        format_args!("{GENERATED}: {} leaves to northstar", count(leaves)),
        duration(took),
    )?;
    stage.told("  verified, stored and answering", rate(leaves, took))?;
    stage.figure("exchange_leaves", leaves);
    stage.figure("exchange_ms", millis(took));
    stage.figure("exchange_entries_per_s", per_second(leaves, took));
    stage.sum(
        format_args!("exchange of {} entries, verified", count(leaves)),
        rate(leaves, took),
    );
    Ok(())
}

/// Grants a set and waits until its readers answer from all of it.
async fn granted(
    world: &World,
    who: Who,
    set: &str,
    to: &str,
    readers: &[Who],
) -> Result<(u64, Duration), CliError> {
    let (_, short) = set.split_once('/').unwrap_or(("", set));
    let began = Instant::now();
    world.at(who, &["set", "grant", short, to]).await?;
    let leaves = size(world, who, set).await?;
    for reader in readers {
        world.node(*reader).await?.caught_up(set, leaves).await?;
    }
    Ok((leaves, began.elapsed()))
}

/// Files of this machine are known at another member than the one that listed them.
pub(super) async fn look_up(
    world: &World,
    packages: &Packages,
    stage: &Stage<'_>,
) -> Result<(), CliError> {
    stage.step("Look-ups: harbor is asked about this machine's own files")?;
    let files: Vec<String> = packages
        .files
        .iter()
        .take(SHOWN_FILES)
        .map(|file| file.path.display().to_string())
        .collect();
    let first = files.first().cloned().unwrap_or_default();
    let asked = world
        .shown_at(Who::Harbor, &["lookup", "--hits-only", "--hash-of", &first])
        .await?;
    stage.say(format_args!(
        "$ hashpact lookup --hits-only --hash-of {first}"
    ))?;
    for line in asked.printed.lines() {
        let clipped: String = line.chars().take(74).collect();
        stage.say(format_args!("  {clipped}"))?;
    }
    let mut line = vec!["lookup", "--hash-of"];
    line.extend(files.iter().map(String::as_str));
    world.at(Who::Harbor, &line).await?;
    let mut node = world.node(Who::Harbor).await?;
    let signals: Vec<Signal> = packages.files.iter().map(|file| md5(&file.md5)).collect();
    let asked = signals.len() as u64;
    let began = Instant::now();
    let answers = node.lookup(signals).await?;
    let took = began.elapsed();
    let known = answers
        .iter()
        .filter(|sets| sets.iter().any(|set| set == PACKAGES));
    let hits = known.count() as u64;
    stage.told(
        format_args!("{hits} of {asked} real files are known at harbor, from {PACKAGES}"),
        duration(took),
    )?;
    let unknown = node.lookup(vec![md5(&[0x5a; 16])]).await?;
    let false_hits: usize = unknown.iter().map(Vec::len).sum();
    stage.figure("lookup_files", asked);
    stage.figure("lookup_hits", hits);
    stage.figure("lookup_ms", millis(took));
    stage.figure("lookup_unknown_hits", false_hits);
    stage.sum(
        "real files known at another member",
        format_args!("{hits} of {asked}"),
    );
    if hits == asked && false_hits == 0 {
        return Ok(());
    }
    Err(CliError::failed(format!(
        "{hits} of {asked} files are known at harbor, and {false_hits} that nobody listed"
    )))
}

/// One entry is taken back; everybody stops matching it.
pub(super) async fn retract(
    world: &World,
    packages: &Packages,
    stage: &Stage<'_>,
) -> Result<(), CliError> {
    stage.step("Retraction: northstar takes one entry back")?;
    let Some(file) = packages.files.last() else {
        return Err(CliError::failed("there is no file to retract"));
    };
    let signal = md5(&file.md5);
    let value = data_encoding::HEXLOWER.encode(&file.md5);
    let readers = [
        world.node(Who::Harbor).await?,
        world.node(Who::Lumen).await?,
    ];
    let [harbor, lumen] = readers.map(|node| node.forgets(signal.clone()));
    let spec = format!("MD5:{value}");
    let line = [
        "retract",
        "--set",
        "packages",
        "--signal",
        &spec,
        "--reason",
        "wrong",
        "--recheck",
        "--yes",
    ];
    let began = Instant::now();
    let retracted = async {
        world.at(Who::Northstar, &line).await?;
        Ok::<_, CliError>(Instant::now())
    };
    let (acknowledged, harbor, lumen) = tokio::try_join!(retracted, harbor, lumen)?;
    let since = |at: Instant| at.saturating_duration_since(began);
    stage.told(
        "northstar's own answer, signed and stored",
        duration(since(acknowledged)),
    )?;
    stage.told("harbor stopped matching", duration(since(harbor)))?;
    stage.told("lumen stopped matching", duration(since(lumen)))?;
    let last = since(harbor.max(lumen));
    stage.figure("retraction_acknowledged_ms", millis(since(acknowledged)));
    stage.figure("retraction_harbor_ms", millis(since(harbor)));
    stage.figure("retraction_lumen_ms", millis(since(lumen)));
    stage.figure("retraction_everywhere_ms", millis(last));
    stage.sum("one retraction, until nobody matched", duration(last));
    receipted(world, stage).await
}

/// What the others sign about it: their receipts, as northstar has them.
async fn receipted(world: &World, stage: &Stage<'_>) -> Result<(), CliError> {
    let leaf = size(world, Who::Northstar, PACKAGES)
        .await?
        .saturating_sub(1);
    let node = world.node(Who::Northstar).await?;
    let receipts = until("receipts of the retraction", || {
        let mut node = node.clone();
        async move {
            let receipts = node.receipts(PACKAGES, leaf).await?;
            let missing = receipts.late.saturating_add(receipts.unreachable);
            Ok((missing == 0 && receipts.done > 0).then_some(receipts))
        }
    });
    let receipts = receipts.await?;
    let names: Vec<&str> = receipts.members.iter().map(|m| m.member.as_str()).collect();
    let p99 = receipts.p99_ms.unwrap_or_default();
    stage.told(
        format_args!(
            "receipts: {} signed that they act on it, all that matches there",
            names.join(" and ")
        ),
        duration(Duration::from_millis(p99)),
    )?;
    stage.figure("retraction_receipts_done", u64::from(receipts.done));
    stage.figure("retraction_receipts_p99_ms", p99);
    Ok(())
}

pub(super) fn md5(value: &[u8]) -> Signal {
    Signal {
        kind: SignalKind::Md5 as u32,
        value: value.to_vec().into(),
        quality: None,
    }
}
