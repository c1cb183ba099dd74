//! `hashpact mute`, `unmute` and `mutes`: the brake.

use clap::Args;
use hashpact_api::wire;
use hashpact_api::wire::mute_subject::Of;
use hashpact_core::signal::Signal;
use hashpact_node::clock::Clock;
use serde::Serialize;

use super::Context;
use super::client::connect_or_embed;
use super::error::CliError;
use super::output::{counted, note, stamp, table, time};

/// Digits of the shortest value of a signal.
const VALUE_DIGITS: usize = 32;

/// Act on a signal, a set or a member no more, at once and until a time
///
/// The brake for something that is wrong while it is looked into: until then what is
/// muted is observed at most, whatever the policy says. It is in force when the
/// command ends, over starts too, and ends by the clock. A signal is muted as what
/// is asked for and as what is found near; it is kept as a keyed digest alone.
/// Other members see nothing of it, unless --tell says so: then a negative opinion
/// for that reason is said of the entries of others that it is about, 64 at most, and
/// taken back when the mute ends.
#[derive(Debug, Args)]
pub struct MuteArgs {
    /// A signal, KIND:VALUE; a set, MEMBER/SET; or a member
    #[arg(value_name = "SIGNAL|SET|MEMBER")]
    what: String,
    /// The case that it belongs to: a ticket, a name; no value of a signal
    #[arg(long, value_name = "REF")]
    case: String,
    /// Until when: so long from now, 30m, 12h, 7d, or 2026-11-30T06:00:00Z; a year
    /// at most
    #[arg(long, value_name = "TIME", value_parser = until)]
    expires: u64,
    /// Tell the others, for this reason; "hashpact opine --reasons" lists them
    #[arg(long, value_name = "REASON")]
    tell: Option<String>,
}

/// End a mute
#[derive(Debug, Args)]
pub struct UnmuteArgs {
    /// What was muted, or as "hashpact mutes" names it
    #[arg(value_name = "SIGNAL|SET|MEMBER")]
    what: String,
}

/// List what is muted
#[derive(Debug, Args)]
pub struct MutesArgs {}

#[derive(Serialize)]
struct Listed {
    mutes: Vec<MuteObject>,
}

#[derive(Serialize)]
struct MuteObject {
    what: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    case: String,
    by: String,
    since: Option<String>,
    expires: Option<String>,
    told: u64,
    unheard: bool,
}

/// Runs `hashpact mute`.
///
/// # Errors
/// When no node can be asked, or it does not know what is meant.
pub fn mute(args: &MuteArgs, context: &Context) -> Result<(), CliError> {
    let subject = subject(&args.what)?;
    let client = connect_or_embed(context)?;
    let request = wire::MuteRequest {
        subject: Some(subject),
        case: args.case.clone(),
        expires_ms: args.expires,
        tell: args.tell.clone().unwrap_or_default(),
    };
    let muted = client.call(client.node().mute(request))?;
    context.output.line(format_args!(
        "{} is observed at most until {}",
        said(&muted),
        time(muted.expires_ms)
    ))?;
    if !muted.not_told.is_empty() {
        let why = &muted.not_told;
        return Err(CliError::failed(format!(
            "it is muted, and that was not told as asked: {why}"
        ))
        .next("the same command once more, when that is mended"));
    }
    if args.tell.is_some() {
        let told = counted(muted.told, "entry", "entries");
        context.output.line(format_args!(
            "an opinion on {told} says so to whom opinions are granted; it ends with the mute"
        ))?;
        if muted.unheard {
            note("nobody may read opinions yet: hashpact set grant opinions WHO lets them");
        }
    }
    context.output.json(&object(muted))
}

/// Runs `hashpact unmute`.
///
/// # Errors
/// When no node can be asked, or nothing such is muted.
pub fn unmute(args: &UnmuteArgs, context: &Context) -> Result<(), CliError> {
    let subject = subject(&args.what)?;
    let client = connect_or_embed(context)?;
    let request = wire::UnmuteRequest {
        subject: Some(subject),
    };
    let muted = client.call(client.node().unmute(request))?;
    let said = said(&muted);
    context
        .output
        .line(format_args!("{said} is muted no more"))?;
    if !muted.not_told.is_empty() {
        let why = &muted.not_told;
        note(format!(
            "the opinions said with it still stand, and are taken back as soon as may be: {why}"
        ));
    }
    context.output.json(&object(muted))
}

/// Runs `hashpact mutes`.
///
/// # Errors
/// When neither a node nor its store can be reached.
pub fn mutes(_args: MutesArgs, context: &Context) -> Result<(), CliError> {
    let client = connect_or_embed(context)?;
    client.note_at_rest();
    let answer = client.call(client.node().list_mutes(wire::ListMutesRequest {}))?;
    if answer.mutes.is_empty() {
        context.output.line("nothing is muted")?;
    } else {
        let mut shown = table(&["MUTED", "KIND", "UNTIL", "CASE"], &[]);
        for mute in &answer.mutes {
            shown.add_row([
                mute.name.clone(),
                if mute.kind.is_empty() {
                    mute.what.clone()
                } else {
                    mute.kind.clone()
                },
                time(mute.expires_ms),
                mute.case.clone(),
            ]);
        }
        context.output.table(&shown)?;
    }
    context.output.json(&Listed {
        mutes: answer.mutes.into_iter().map(object).collect(),
    })
}

fn said(muted: &wire::Muted) -> String {
    match muted.what.as_str() {
        "signal" => format!("a signal of kind {} ({})", muted.kind, muted.name),
        what => format!("the {what} {}", muted.name),
    }
}

fn object(muted: wire::Muted) -> MuteObject {
    MuteObject {
        what: muted.what,
        name: muted.name,
        kind: muted.kind,
        case: muted.case,
        by: muted.by,
        since: stamp(muted.since_ms),
        expires: stamp(muted.expires_ms),
        told: muted.told,
        unheard: muted.unheard,
    }
}

/// What is meant; a value is not repeated.
fn subject(text: &str) -> Result<wire::MuteSubject, CliError> {
    let fix = "write KIND:VALUE, such as PDQ:HEX, MEMBER/SET, or a member's slug";
    let bare = text.len() >= VALUE_DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
    let of = if text.starts_with("signal:") {
        Of::Name(text.to_owned())
    } else if text.contains(':') {
        let signal = Signal::parse_spec(text).map_err(|error| CliError::usage(error).next(fix))?;
        Of::Signal(wire::Signal {
            kind: signal.kind().number(),
            value: signal.value().clone(),
            quality: None,
        })
    } else if bare {
        return Err(CliError::usage("a value without its kind").next(fix));
    } else if text.contains('/') {
        Of::Set(text.to_owned())
    } else {
        Of::Member(text.to_owned())
    };
    Ok(wire::MuteSubject { of: Some(of) })
}

/// Reads a time to come, in milliseconds since 1970.
fn until(text: &str) -> Result<u64, String> {
    let fix = || "write so long from now, 30m, 12h or 7d, or 2026-11-30T06:00:00Z".to_owned();
    for (unit, ms) in [("m", 60_000), ("h", 3_600_000), ("d", 86_400_000_u64)] {
        if let Some(number) = text.strip_suffix(unit) {
            let number: u64 = number.parse().map_err(|_| fix())?;
            return Ok(Clock::system()
                .now()
                .0
                .saturating_add(number.saturating_mul(ms)));
        }
    }
    let instant = text.parse::<jiff::Timestamp>().map_err(|_| fix())?;
    u64::try_from(instant.as_millisecond()).map_err(|_| fix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_muted_is_told_apart_and_a_value_is_not_repeated() {
        let of = |text: &str| subject(text).unwrap().of.unwrap();
        let value = "0a".repeat(16);
        assert!(matches!(of(&format!("md5:{value}")), Of::Signal(_)));
        assert!(matches!(of("north/one"), Of::Set(_)));
        assert!(matches!(of("north"), Of::Member(_)));
        assert!(matches!(of("signal:00ff"), Of::Name(_)));
        for text in [value.clone(), format!("md5:{value}00")] {
            let error = subject(&text).unwrap_err().to_string();
            assert!(!error.contains(&value), "{error}");
        }
    }

    #[test]
    fn an_end_is_so_long_from_now_or_an_instant() {
        let now = Clock::system().now().0;
        let hour = until("1h").unwrap();
        assert!((now + 3_600_000..now + 3_660_000).contains(&hour));
        assert_eq!(until("1970-01-01T00:00:01Z"), Ok(1_000));
        for bad in ["", "h", "tomorrow", "-1d", "7"] {
            assert!(until(bad).is_err(), "{bad}");
        }
    }
}
