//! `hashpact demo`: three members, one more that joins, and an administrator on this
//! machine.

mod acts;
mod ask;
mod faults;
mod input;
mod membership;
mod pictures;
mod process;
mod proving;
mod stage;
mod tamper;
mod world;

use std::path::PathBuf;

use clap::Args;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::Context;
use super::error::{CliError, Exit};
use super::output::note;
use stage::Stage;
use world::{Who, World};

/// Show three members exchanging hash sets, on this machine
///
/// Real processes, mutual TLS and stores in a temporary folder; every step is
/// shown with its rate. Ends by itself. With --json the last line is one JSON
/// object with every figure.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Entries of the generated set
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    pub entries: u64,
    /// Folder to work in, which must be empty [default: a temporary one]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the nodes running, and say how to ask them
    #[arg(long)]
    pub keep: bool,
}

/// Runs the command.
///
/// # Errors
/// When a step fails. The nodes' logs are kept then, and named.
pub fn run(args: DemoArgs, context: &Context) -> Result<(), CliError> {
    let runtime = Runtime::new().map_err(CliError::failed)?;
    let mut world = World::new(args.dir.as_deref(), args.keep)?;
    let ended = runtime.block_on(async {
        tokio::select! {
            played = play(&args, &mut world, context) => played,
            stopped = interrupted() => Err(stopped),
        }
    });
    // What still runs on a thread of its own has nothing to wait for.
    runtime.shutdown_background();
    match ended {
        Ok(()) => Ok(()),
        Err(CliError::OutputClosed) => {
            world.remove();
            Err(CliError::OutputClosed)
        }
        Err(error) => Err(fail(error, &mut world)),
    }
}

async fn play(args: &DemoArgs, world: &mut World, context: &Context) -> Result<(), CliError> {
    let stage = Stage::new(&context.output);
    stage.line("hashpact demo: three members and an administrator on this machine")?;
    stage.line(format_args!("folder {}", world.dir.display()))?;
    stage.figure("entries", args.entries);
    stage.figure("dir", world.dir.display().to_string());
    acts::found(world, &stage).await?;
    let packages = acts::import(world, args.entries, &stage).await?;
    acts::exchange(world, &stage).await?;
    acts::look_up(world, &packages, &stage).await?;
    pictures::look_up(world, &stage).await?;
    acts::retract(world, &packages, &stage).await?;
    proving::prove(world, &packages, &stage).await?;
    membership::onboard(world, &packages, &stage).await?;
    membership::suspend(world, &packages, &stage).await?;
    faults::crash(world, &stage).await?;
    faults::tampered(world, &stage).await?;
    if args.keep {
        stage.end()?;
        keep(world, &stage, &packages)?;
    } else {
        close(world, &stage).await?;
        stage.end()?;
    }
    Ok(())
}

/// Every node stops when asked to.
async fn close(world: &mut World, stage: &Stage<'_>) -> Result<(), CliError> {
    for who in Who::ALL {
        world.stop(who).await?;
    }
    stage.figure("ended_well", true);
    if world.is_temporary() {
        world.remove();
    }
    Ok(())
}

/// Leaves the nodes running, and says how to ask and how to stop them.
fn keep(world: &mut World, stage: &Stage<'_>, packages: &input::Packages) -> Result<(), CliError> {
    let program = world.program.display().to_string();
    let file = packages
        .files
        .first()
        .map(|file| file.path.display().to_string());
    let ids: Vec<String> = world
        .members()
        .filter_map(|member| member.id().map(|id| id.to_string()))
        .collect();
    let shown = world.dir.display().to_string();
    world.leave();
    stage.line("")?;
    stage.line("The nodes run on. Ask harbor about a file of this machine:")?;
    stage.line(format_args!(
        "  export HASHPACT_CONFIG={shown}/harbor/hashpact.toml"
    ))?;
    stage.line(format_args!(
        "  {program} lookup --hash-of {}",
        file.unwrap_or_default()
    ))?;
    stage.line(format_args!(
        "  {program} status     (peers, feeds, verify)"
    ))?;
    stage.line("Stop them and remove everything:")?;
    stage.line(format_args!(
        "  kill {} && sleep 2 && rm -r {shown}",
        ids.join(" ")
    ))
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> CliError {
    let signals = signal(SignalKind::interrupt()).and_then(|int| {
        let term = signal(SignalKind::terminate())?;
        Ok((int, term))
    });
    let (mut int, mut term) = match signals {
        Ok(signals) => signals,
        Err(error) => return CliError::failed(error),
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
    CliError::failed("stopped before the end")
}

/// Ends the nodes and says where their logs are.
fn fail(error: CliError, world: &mut World) -> CliError {
    for who in Who::ALL {
        world.kill(who);
    }
    if error.exit() != Exit::Usage {
        note("the nodes' logs are kept:");
        for member in world.members().filter(|member| member.log().exists()) {
            note(format_args!("  {}", member.log().display()));
        }
    }
    error
}
