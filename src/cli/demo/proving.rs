//! One entry is proved by a member that only read it, and the proof is verified where
//! there is no node.

use super::input::Packages;
use super::stage::{Stage, millis};
use super::world::{Who, World};
use crate::cli::error::CliError;
use crate::cli::output::{bytes, duration};

/// Proves what harbor matched a file by, verifies it offline, and once more damaged.
pub(super) async fn prove(
    world: &World,
    packages: &Packages,
    stage: &Stage<'_>,
) -> Result<(), CliError> {
    stage.step("Proof: harbor shows what northstar published, to whoever asks")?;
    let Some(file) = packages.files.first() else {
        return Err(CliError::failed("there is no file to prove anything of"));
    };
    let path = file.path.display().to_string();
    let found = world
        .at(Who::Harbor, &["lookup", "--hash-of", &path])
        .await?
        .json()?;
    let entry = found["matches"][0]["entry"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let proof = world.dir.join("match.proof");
    let out = proof.display().to_string();
    let made = world
        .at(Who::Harbor, &["prove", &entry, "--out", &out])
        .await?;
    let size = std::fs::metadata(&proof).map_or(0, |about| about.len());
    stage.told(
        format_args!("{entry}: {} with roster, card, head and path", bytes(size)),
        duration(made.took),
    )?;
    // What founding told, as a court is told by somebody it trusts.
    let genesis = made.json()?["genesis"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let line = ["proof", "verify", &out, "--genesis", &genesis];
    let verified = world.call(&line).await?;
    let shown = verified.json()?;
    let publisher = shown["publisher"]["slug"].as_str().unwrap_or_default();
    let (state, leaves) = (&shown["state"], &shown["head"]["size"]);
    stage.told(
        format_args!("verified without a node: by {publisher}, below {leaves} leaves"),
        duration(verified.took),
    )?;
    if shown["entry"] != entry.as_str() || state != "published" {
        return Err(CliError::failed("the proof shows something else"));
    }
    let damaged = world.dir.join("damaged.proof");
    damage(&proof, &damaged)?;
    let name = damaged.display().to_string();
    let refused = world
        .call(&["proof", "verify", &name, "--genesis", &genesis])
        .await;
    if refused.is_ok() {
        return Err(CliError::failed("a damaged proof was accepted"));
    }
    stage.told("one bit of it changed", "refused")?;
    stage.figure("proof_bytes", size);
    stage.figure("proof_made_ms", millis(made.took));
    stage.figure("proof_verified_ms", millis(verified.took));
    stage.figure("proof_damaged_refused", true);
    Ok(())
}

fn damage(proof: &std::path::Path, damaged: &std::path::Path) -> Result<(), CliError> {
    let mut bytes = std::fs::read(proof).map_err(CliError::failed)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    std::fs::write(damaged, bytes).map_err(CliError::failed)
}
