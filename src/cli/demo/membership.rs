//! A fourth member joins while the others run, and is cut off.

use std::time::Instant;

use super::acts::{PACKAGES, md5};
use super::ask::until;
use super::input::Packages;
use super::stage::{Stage, millis};
use super::world::{COALITION, Who, World};
use crate::cli::error::CliError;
use crate::cli::output::duration;

/// Whose node the administrator hands documents to.
const HANDED_TO: Who = Who::Northstar;
const NEWCOMER: Who = Who::Tidepool;

/// From the request to the first entry that the newcomer answers for.
pub(super) async fn onboard(
    world: &mut World,
    packages: &Packages,
    stage: &Stage<'_>,
) -> Result<(), CliError> {
    stage.step("Onboarding: tidepool joins while the others run")?;
    let began = Instant::now();
    let words = request(world).await?;
    stage.say("tidepool makes its keys and reads twelve words out over the telephone")?;
    let few: Vec<&str> = words.split(' ').take(4).collect();
    stage.told("", format_args!("{} …", few.join(" ")))?;

    let admin = world.admin().display().to_string();
    let key = world.admin().join("admin.key").display().to_string();
    let asked = world.member(NEWCOMER).request().display().to_string();
    let admit = ["coalition", "admit", &asked, "--fingerprint", &words];
    world
        .call(&[&admit[..], &["--dir", &admin]].concat())
        .await?;
    let sign = ["coalition", "sign", "--key", &key, "--yes", "--dir", &admin];
    world.call(&sign).await?;
    let publish = ["coalition", "publish", "--to-node", "--dir", &admin];
    let published = world.at(HANDED_TO, &publish).await?.json()?;
    stage.told(
        "the administrator compares them, signs, and publishes it",
        format_args!("version {}", published["version"]),
    )?;

    let genesis = published["genesis"].as_str().unwrap_or_default().to_owned();
    let address = format!("northstar=127.0.0.1:{}", world.member(HANDED_TO).port);
    let accept = ["enrol", "accept", "--genesis", &genesis, "--address"];
    world
        .at(NEWCOMER, &[&accept[..], &[&address]].concat())
        .await?;
    world.start(NEWCOMER)?;
    world.ready(NEWCOMER).await?;
    let known = packages.files.first().map(|file| md5(&file.md5));
    let known = known.ok_or_else(|| CliError::failed("there is no file to ask for"))?;
    let node = world.node(NEWCOMER).await?;
    until("tidepool to answer", || {
        let (mut node, known) = (node.clone(), known.clone());
        async move {
            let sets = node.lookup(vec![known]).await?.concat();
            Ok(sets.iter().any(|set| set == PACKAGES).then_some(()))
        }
    })
    .await?;
    let took = began.elapsed();
    stage.told(
        "from the request to the first entry that it answers for",
        duration(took),
    )?;
    stage.figure("onboarding_ms", millis(took));
    stage.sum("a member onboarded, request to first entry", duration(took));
    Ok(())
}

/// The newcomer's keys and request; answers the words of its fingerprint.
async fn request(world: &World) -> Result<String, CliError> {
    let shown = ["coalition", "show"];
    let roster = world.admin().join("roster.hashpact").display().to_string();
    let shown = world.call(&[&shown[..], &[&roster]].concat()).await?;
    let shown = shown.json()?;
    let genesis = shown["genesis"].as_str().unwrap_or_default();
    let member = world.member(NEWCOMER);
    let dir = member.dir.display().to_string();
    let listen = format!("127.0.0.1:{}", member.port);
    let http = format!("127.0.0.1:{}", member.http);
    let who = [
        "enrol",
        "request",
        "--dir",
        &dir,
        "--coalition",
        COALITION,
        "--genesis",
        genesis,
        "--member",
        NEWCOMER.slug(),
        "--display-name",
        NEWCOMER.display_name(),
        "--organisation",
        NEWCOMER.organisation(),
    ];
    let place = [
        "--listen",
        &listen,
        "--advertise",
        &listen,
        "--http-listen",
        &http,
        "--allow-loopback-endpoints",
        "--contact-name",
        "Trust and safety desk",
        "--contact-email",
        "desk@tidepool.example",
    ];
    let made = world.call(&[&who[..], &place].concat()).await?.json()?;
    Ok(made["words"].as_str().unwrap_or_default().to_owned())
}

/// One administrator cuts the newcomer off, everywhere at once.
pub(super) async fn suspend(
    world: &World,
    packages: &Packages,
    stage: &Stage<'_>,
) -> Result<(), CliError> {
    stage.step("Suspension: one administrator cuts tidepool off")?;
    let slug = NEWCOMER.slug();
    for who in Who::FOUNDERS {
        cut_off(world, who, false).await?;
    }
    let admin = world.admin().display().to_string();
    let key = world.admin().join("admin.key").display().to_string();
    let line = ["coalition", "suspend", slug, "--reason", "a stolen laptop"];
    let by = ["--key", &key, "--to-node", "--dir", &admin];
    let began = Instant::now();
    world.at(HANDED_TO, &[&line[..], &by].concat()).await?;
    for who in Who::FOUNDERS {
        cut_off(world, who, true).await?;
    }
    let took = began.elapsed();
    stage.told("no node talks with it any longer", duration(took))?;
    stage.figure("suspension_everywhere_ms", millis(took));
    stage.sum(
        "one member suspended, until nobody talks with it",
        duration(took),
    );
    // It changes access, and takes nothing away: what it holds goes on matching there.
    let known = packages.files.first().map(|file| md5(&file.md5));
    let held = world.node(NEWCOMER).await?;
    let sets = held.clone().lookup(known.into_iter().collect()).await?;
    let answers = sets.concat().iter().any(|set| set == PACKAGES);
    stage.figure("suspended_member_keeps_matching", answers);
    if answers {
        return stage.say("what tidepool held before goes on matching there");
    }
    Err(CliError::failed("a suspended member lost what it held"))
}

/// Waits until a founder's node is, or is not, connected with the newcomer.
async fn cut_off(world: &World, who: Who, cut: bool) -> Result<(), CliError> {
    let node = world.node(who).await?;
    until("a connection to come or go", || {
        let mut node = node.clone();
        async move {
            let connected = node.is_connected(NEWCOMER.slug()).await?;
            Ok((connected != cut).then_some(()))
        }
    })
    .await
}
