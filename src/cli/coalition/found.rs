//! `hashpact coalition init` and `key`: administrators' keys and version 1.

use std::path::{Path, PathBuf};

use hashpact_core::envelope::EnvelopeDraft;
use hashpact_core::id::UnixMillis;
use hashpact_core::keys::{Admin, PublicKey, SecretKey};
use hashpact_core::limits::DAY_MS;
use hashpact_core::roster::{Roster, RosterAdmin, RosterChain, RosterDraft};
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::args::{AdminKey, FoundArgs, KeyArgs};
use super::draft::{Draft, draft_path};
use super::state::{State, day};
use super::{ROSTER_FILE, review};
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::new_files::{NewFiles, at, refuse_existing};
use crate::cli::open::private_folder;
use crate::cli::passphrase::{NewPassphraseArgs, PassphraseArgs};
use crate::roster_file;

#[derive(Serialize)]
struct Founded {
    coalition: String,
    genesis: String,
    threshold: usize,
    admins: Vec<FoundedAdmin>,
    expires_ms: u64,
    roster: String,
}

#[derive(Serialize)]
struct FoundedAdmin {
    name: String,
    key: String,
    file: String,
}

/// An administrator's key: the secret half where it is here, with its file.
struct FoundingKey {
    public: PublicKey<Admin>,
    secret: Option<SecretKey<Admin>>,
    file: PathBuf,
}

pub(super) fn run(args: &FoundArgs, context: &Context) -> Result<(), CliError> {
    private_folder(&args.dir, "--dir")?;
    refuse_existing(&args.dir, &[ROSTER_FILE])?;
    let mut files = NewFiles::default();
    let keys = keys(args, &mut files)?;
    let now = Clock::system().now();
    let roster = roster(args, &keys, now)?;
    let refused = |rejection| CliError::usage(format!("no such coalition: {rejection}"));
    let mut draft = roster.to_envelope().map_err(refused)?;
    for key in keys.iter().filter_map(|key| key.secret.as_ref()) {
        draft.sign(key);
    }
    let secrets = keys.iter().filter(|key| key.secret.is_some()).count();
    if secrets < roster.threshold {
        return in_turn(args, &draft, files, now, context);
    }
    let envelope = draft.finish().map_err(refused)?;
    let genesis = envelope.payload_digest();
    let chain = RosterChain::begin(envelope, &genesis, now).map_err(refused)?;
    let path = args.dir.join(ROSTER_FILE);
    State::new(chain).write(&path)?;
    files.keep();
    let admins = args.admins.iter().zip(&keys);
    let founded = Founded {
        coalition: args.name.to_string(),
        genesis: genesis.to_string(),
        threshold: roster.threshold,
        admins: admins
            .map(|(admin, key)| FoundedAdmin {
                name: admin.name.clone(),
                key: key.public.to_string(),
                file: key.file.display().to_string(),
            })
            .collect(),
        expires_ms: roster.expires.0,
        roster: path.display().to_string(),
    };
    print(context, &founded, &day(roster.expires))
}

fn roster(args: &FoundArgs, keys: &[FoundingKey], now: UnixMillis) -> Result<Roster, CliError> {
    let admins = args.admins.iter().zip(keys);
    let admins = admins.map(|(admin, key)| RosterAdmin {
        name: admin.name.clone(),
        key: key.public,
    });
    let life = u64::from(args.days) * DAY_MS;
    let mut roster = match &args.succeeds {
        None => Roster::found(args.name.clone(), admins.collect(), now, life),
        Some(path) => Roster::succeed(&State::read(path)?.chain, admins.collect(), now, life),
    };
    if roster.coalition != args.name {
        let other = &roster.coalition;
        return Err(
            CliError::usage(format!("the roster that it succeeds is of {other}"))
                .next("the name stays: every head that was signed names it"),
        );
    }
    if let Some(threshold) = args.threshold {
        roster.threshold = threshold as usize;
    }
    Ok(roster)
}

/// The keys lie with their people: what is founded is a draft that they sign.
fn in_turn(
    args: &FoundArgs,
    draft: &EnvelopeDraft,
    files: NewFiles,
    now: UnixMillis,
    context: &Context,
) -> Result<(), CliError> {
    let path = draft_path(&args.dir, None, 1);
    if path.exists() {
        let name = path.display();
        return Err(CliError::failed(format!(
            "{name} exists already and is left as it is"
        )));
    }
    let file = RosterDraft {
        roster: draft.finish().map_err(super::change::refused)?,
        requests: Vec::new(),
    };
    roster_file::write_bytes(&path, &file.encode()).map_err(|error| at(&path, &error))?;
    files.keep();
    let draft = Draft::read(&path, None, now)?;
    review::print(context, None, &draft, &path, now)
}

/// The key of each administrator, in their order.
fn keys(args: &FoundArgs, files: &mut NewFiles) -> Result<Vec<FoundingKey>, CliError> {
    let known = PassphraseArgs {
        passphrase_file: args.passphrase.passphrase_file.clone(),
    };
    let secret = |secret: SecretKey<Admin>, file: PathBuf| FoundingKey {
        public: secret.public(),
        secret: Some(secret),
        file,
    };
    let keys = args.admins.iter().map(|admin| match &admin.key {
        Some(AdminKey::File(path)) => Ok(secret(known.load(path)?, path.clone())),
        Some(AdminKey::Public(digits)) => Ok(FoundingKey {
            public: PublicKey::from_slice(digits.as_bytes()).map_err(CliError::usage)?,
            secret: None,
            file: PathBuf::new(),
        }),
        None => {
            let path = args.dir.join(key_file_name(&admin.name));
            let key = new_key(&path, &admin.name, &args.passphrase, files)?;
            Ok(secret(key, path))
        }
    });
    keys.collect()
}

fn new_key(
    path: &Path,
    whose: &str,
    passphrase: &NewPassphraseArgs,
    files: &mut NewFiles,
) -> Result<SecretKey<Admin>, CliError> {
    match passphrase.choose(whose)? {
        Some(passphrase) => files.sealed_key(path, &passphrase),
        None => files.key(path),
    }
}

/// A name for people as a file's: letters, digits and `-`.
fn key_file_name(name: &str) -> PathBuf {
    let plain = |c: char| if c.is_alphanumeric() { c } else { '-' };
    let stem: String = name.to_lowercase().chars().map(plain).collect();
    Path::new(&stem).with_extension("key")
}

fn print(context: &Context, founded: &Founded, expires: &str) -> Result<(), CliError> {
    let output = &context.output;
    let count = founded.admins.len();
    output.line(format_args!("founded {}", founded.coalition))?;
    output.line(format_args!("  roster      {}", founded.roster))?;
    output.line(format_args!(
        "  approval    {} of {count} administrators",
        founded.threshold
    ))?;
    output.line(format_args!("  expires     {expires}"))?;
    for admin in &founded.admins {
        output.line(format_args!("  {}", admin.name))?;
        output.line(format_args!("    key file  {}", admin.file))?;
    }
    output.line("genesis digest, which every new node is given:")?;
    output.line(format_args!("  {}", founded.genesis))?;
    output.line("")?;
    output.line("next: keep the administrators' keys offline, each with its own person;")?;
    output.line("      members run hashpact enrol request, and you hashpact coalition admit")?;
    output.json(founded)
}

#[derive(Serialize)]
struct MadeKey {
    file: String,
    key: String,
}

/// `hashpact coalition key`: a key that never leaves its person's machine.
pub(super) fn key(args: &KeyArgs, context: &Context) -> Result<(), CliError> {
    let mut files = NewFiles::default();
    let whose = args.file.display().to_string();
    let key = new_key(&args.file, &whose, &args.passphrase, &mut files)?;
    files.keep();
    let public = key.public();
    let output = &context.output;
    output.line(format_args!("made {whose}; its public half is"))?;
    output.line(format_args!("  {public}"))?;
    output.line("")?;
    output.line("next: give the public half to whoever drafts; the file stays with you")?;
    output.json(&MadeKey {
        file: whose,
        key: public.to_string(),
    })
}
