//! `hashpact opine`: what this member thinks of an entry.

use clap::{Args, ValueEnum};
use hashpact_api::wire;
use hashpact_api::wire::opine_request::About;
use hashpact_core::leaf::{REASONS, Stance};
use hashpact_core::signal::{Signal, SignalKind};
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::output::{note, table};
use super::values::SetReference;

/// Say what this member thinks of an entry; the others see it with every match
///
/// A negative opinion makes the entry disputed at every member that may read it. Said
/// again it replaces what was said before. It stands in a set of this member's own,
/// which is made on first use and granted to nobody: hashpact set grant opinions WHO.
#[derive(Debug, Args)]
pub struct OpineArgs {
    /// MEMBER/SET#INDEX, or KIND:VALUE of a signal that this member publishes
    #[arg(value_name = "ENTRY", required_unless_present = "reasons")]
    pub subject: Option<String>,
    /// What it thinks
    #[arg(
        value_name = "STANCE",
        required_unless_present_any = ["withdraw", "reasons"],
        conflicts_with = "withdraw"
    )]
    pub stance: Option<StanceArg>,
    /// Why: a name or number of --reasons
    #[arg(
        long,
        value_name = "REASON",
        required_unless_present_any = ["withdraw", "reasons"],
        conflicts_with = "withdraw"
    )]
    pub reason: Option<String>,
    /// How sure, 0 to 100
    #[arg(long, value_name = "NUMBER", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(0..=100))]
    pub confidence: u32,
    /// Only of the entry's signals of this kind, such as PDQ
    #[arg(long, value_name = "KIND", value_parser = kind)]
    pub kind: Option<SignalKind>,
    /// A note for the other members; at most 500 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Take back what was said
    #[arg(long)]
    pub withdraw: bool,
    /// The own set of opinions to write to [default: the only one]
    #[arg(long, value_name = "SET")]
    pub set: Option<SetReference>,
    /// List the reasons that there are, and do nothing else
    #[arg(long, conflicts_with_all = ["subject", "stance", "reason", "withdraw"])]
    pub reasons: bool,
}

/// What is thought of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StanceArg {
    /// It is what its publisher says
    Positive,
    /// Worth investigating
    Seed,
    /// It is not what its publisher says
    Negative,
}

impl StanceArg {
    const fn stance(self) -> Stance {
        match self {
            Self::Positive => Stance::Positive,
            Self::Seed => Stance::Seed,
            Self::Negative => Stance::Negative,
        }
    }
}

#[derive(Serialize)]
struct ReasonObject {
    id: u32,
    name: &'static str,
    says: &'static str,
    stances: Vec<&'static str>,
}

#[derive(Serialize)]
struct ReasonList {
    reasons: Vec<ReasonObject>,
}

#[derive(Serialize)]
struct Said {
    set: String,
    set_is_new: bool,
    granted: bool,
    index: Option<u64>,
    withdrawn: bool,
    replaced: u64,
    head_size: u64,
}

/// Runs the command.
///
/// # Errors
/// When the entry is not held or no longer stands, or the signal is somebody else's.
pub fn run(args: &OpineArgs, context: &Context) -> Result<(), CliError> {
    let Some(subject) = args.subject.as_deref().filter(|_| !args.reasons) else {
        return list_reasons(context);
    };
    let client = connect_or_embed(context)?;
    let own = &client.config().member.slug;
    let set = args.set.as_ref().map(|set| set.own(own)).transpose()?;
    let request = wire::OpineRequest {
        about: Some(about(subject)?),
        kind: args.kind.map(SignalKind::number).unwrap_or_default(),
        stance: args
            .stance
            .map(|stance| stance.stance().name().to_owned())
            .unwrap_or_default(),
        reason: args.reason.clone().unwrap_or_default(),
        confidence: Some(args.confidence),
        note: args.note.clone(),
        withdraw: args.withdraw,
        set: set.map(|set| set.to_string()).unwrap_or_default(),
    };
    let said = client.call(client.node().opine(request))?;
    report(said, args, context)
}

fn about(subject: &str) -> Result<About, CliError> {
    if subject.contains('#') {
        return Ok(About::Entry(subject.to_owned()));
    }
    let signal = Signal::parse_spec(subject).map_err(|error| {
        CliError::usage(error).next("write MEMBER/SET#INDEX, or KIND:VALUE of an own signal")
    })?;
    Ok(About::Signal(wire::Signal {
        kind: signal.kind().number(),
        value: signal.value().clone(),
        quality: None,
    }))
}

fn report(said: wire::OpineResponse, args: &OpineArgs, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    match (said.index, args.withdraw) {
        (None, _) => output.line(format_args!("{}: said already, nothing changed", said.set))?,
        (Some(index), true) => {
            output.line(format_args!("{}: withdrawn, by leaf {index}", said.set))?;
        }
        (Some(index), false) => {
            let changed = if said.replaced > 0 { "changed" } else { "said" };
            output.line(format_args!("{}: {changed}, as leaf {index}", said.set))?;
        }
    }
    if !said.granted && !args.withdraw {
        let set = said.set.split('/').next_back().unwrap_or_default();
        note(format_args!(
            "nobody may read {} yet: hashpact set grant {set} WHO lets them",
            said.set
        ));
    }
    output.json(&Said {
        withdrawn: args.withdraw,
        set: said.set,
        set_is_new: said.set_is_new,
        granted: said.granted,
        index: said.index,
        replaced: said.replaced,
        head_size: said.head_size,
    })
}

fn list_reasons(context: &Context) -> Result<(), CliError> {
    let mut shown = table(&["ID", "REASON", "SAYS", "FOR"], &[0]);
    let mut reasons = Vec::new();
    for reason in &REASONS {
        let stances: Vec<_> = reason.stances.iter().map(|stance| stance.name()).collect();
        shown.add_row([
            reason.id.to_string(),
            reason.name.to_owned(),
            reason.says.to_owned(),
            stances.join(", "),
        ]);
        reasons.push(ReasonObject {
            id: reason.id,
            name: reason.name,
            says: reason.says,
            stances,
        });
    }
    context.output.table(&shown)?;
    context.output.json(&ReasonList { reasons })
}

fn kind(text: &str) -> Result<SignalKind, String> {
    SignalKind::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_an_entry_or_a_signal() {
        let md5 = "MD5:00112233445566778899aabbccddeeff";
        assert!(matches!(about("north/a#7"), Ok(About::Entry(_))));
        assert!(matches!(about(md5), Ok(About::Signal(signal)) if signal.kind == 1));
        assert!(about("north/a").is_err());
    }

    #[test]
    fn reasons_fit_the_page() {
        let (mut context, printed) = Context::for_test(false);
        context.output = context.output.with_columns(80);
        list_reasons(&context).unwrap();
        assert!(
            printed
                .text()
                .lines()
                .all(|line| line.chars().count() <= 80)
        );
        assert!(printed.text().contains("false-positive"));
    }
}
