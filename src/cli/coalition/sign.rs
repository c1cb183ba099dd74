//! `hashpact coalition sign`: one administrator's signature on a draft.

use std::io::{self, IsTerminal as _};

use hashpact_core::envelope::EnvelopeDraft;
use hashpact_core::keys::{Admin, SecretKey};
use hashpact_node::clock::Clock;

use super::args::SignArgs;
use super::change::refused;
use super::draft::{Draft, draft_path};
use super::signed::{self, Signed};
use super::state::State;
use super::{newcomer, review};
use crate::cli::Context;
use crate::cli::error::CliError;

pub(super) fn run(args: &SignArgs, context: &Context) -> Result<(), CliError> {
    let now = Clock::system().now();
    let state = State::read_in(&args.folder.dir)?;
    let version = review::next_version(state.as_ref());
    let path = draft_path(&args.folder.dir, args.draft.as_deref(), version);
    let mut draft = Draft::read(&path, state.as_ref(), now)?;
    review::lines(context, state.as_ref(), &draft, &path, now)?;
    if !args.yes {
        confirm()?;
    }
    let key: SecretKey<Admin> = args.passphrase.load(&args.key)?;
    let refuse = |why: String| CliError::failed(format!("{} {why}", args.key.display()));
    if !draft.is_asked(state.as_ref(), &key.public()) {
        let why = "is the key of no administrator of the version in force or of this one";
        return Err(refuse(why.to_owned()));
    }
    if let Some(previous) = draft.roster.previous {
        let this = Signed {
            previous,
            draft: draft.envelope.payload_digest(),
        };
        if !args.instead && signed::other(&args.key, this)? {
            let version = draft.roster.version;
            return Err(
                refuse(format!("has signed another draft of version {version}")).next(
                    "two published rosters of one version split the coalition: make sure that the \
                 other draft is gone everywhere, then add --instead",
                ),
            );
        }
        signed::note(&args.key, this)?;
    }
    let mut envelope = EnvelopeDraft::resume(&draft.envelope);
    draft.envelope = envelope.sign(&key).finish().map_err(refused)?;
    draft.write(&path)?;
    context.output.line("")?;
    review::print(context, state.as_ref(), &draft, &path, now)
}

fn confirm() -> Result<(), CliError> {
    if !io::stdin().is_terminal() {
        return Err(
            CliError::usage("nobody is at the terminal to agree to the changes")
                .next("look at them with hashpact coalition review, then add --yes"),
        );
    }
    let question = "Are these the changes that were agreed? (yes/no)";
    newcomer::ask(question, "nothing was signed")
}
