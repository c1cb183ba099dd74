//! Enrolment requests as administrators read them: who, which keys, which words.

use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::path::Path;

use hashpact_core::card::EndpointPolicy;
use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::envelope::{Envelope, PayloadType};
use hashpact_core::id::UnixMillis;
use hashpact_core::limits::REQUEST_MAX_BYTES;
use hashpact_core::reject::Rejection;

use super::args::ComparedArgs;
use crate::cli::Context;
use crate::cli::error::CliError;
use crate::cli::fingerprint::Fingerprint;
use crate::cli::new_files::at;
use crate::cli::output::note;

/// Reads a request and verifies it; `fits` says whether the coalition can take it.
pub(super) fn read<T>(
    path: &Path,
    now: UnixMillis,
    fits: impl FnOnce(&VerifiedRequest) -> Result<T, Rejection>,
) -> Result<(VerifiedRequest, T), CliError> {
    let mut bytes = Vec::new();
    let one_more = REQUEST_MAX_BYTES as u64 + 1;
    let file = File::open(path).map_err(|error| at(path, &error))?;
    let read = file.take(one_more).read_to_end(&mut bytes);
    read.map_err(|error| at(path, &error))?;
    let verified = Envelope::decode(bytes.into(), PayloadType::EnrolmentRequest)
        .and_then(|envelope| VerifiedRequest::verify(envelope, now))
        .and_then(|request| fits(&request).map(|fits| (request, fits)));
    verified.map_err(|rejection| {
        CliError::failed(format!("{} is refused: {rejection}", path.display()))
    })
}

/// Shows a request: who, which keys, and the words that are read out.
pub(super) fn show(context: &Context, verified: &VerifiedRequest) -> Result<(), CliError> {
    let output = &context.output;
    let request = verified.request();
    let card = verified.card();
    let roles: Vec<&str> = request.roles.iter().map(|role| role.as_str()).collect();
    output.line(format_args!("{}  {}", request.slug, request.display_name))?;
    output.line(format_args!("  kind       {}", request.organisation_kind))?;
    output.line(format_args!("  roles      {}", roles.join(", ")))?;
    let contact = &card.contact;
    output.line(format_args!(
        "  contact    {} {} {}",
        contact.name, contact.email, contact.phone
    ))?;
    output.line(format_args!("  identity   {}", request.identity))?;
    for node in &card.nodes {
        let endpoints: Vec<String> = node.endpoints.iter().map(ToString::to_string).collect();
        let reached = if endpoints.is_empty() {
            "only dials".to_owned()
        } else {
            endpoints.join(", ")
        };
        output.line(format_args!("  node       {}: {reached}", node.name))?;
        for digest in &node.tls_keys {
            output.line(format_args!("    TLS      {digest}"))?;
        }
        for feed in &node.feed_keys {
            output.line(format_args!("    feed     {}", feed.key))?;
        }
        for endpoint in &node.endpoints {
            if EndpointPolicy::Public.check(endpoint).is_err() {
                note(format_args!(
                    "note: {endpoint} is local; only nodes that allow that take this card"
                ));
            }
        }
    }
    output.line("  fingerprint, to be read out by the member over another channel:")?;
    Fingerprint::of(&verified.digest()).print(context, "    ")
}

/// Makes sure that the fingerprints were compared: with the words given, or by asking
/// at the terminal; nobody there means no.
pub(super) fn compare(
    requests: &[VerifiedRequest],
    compared: &ComparedArgs,
) -> Result<(), CliError> {
    if compared.yes {
        return Ok(());
    }
    if let Some(words) = &compared.fingerprint {
        let [request] = requests else {
            return Err(CliError::usage("--fingerprint is for one request")
                .next("admit them one by one; they go into the same draft"));
        };
        let here = Fingerprint::of(&request.digest());
        return match here.first_difference(words) {
            None => Ok(()),
            Some(at) => Err(CliError::failed(format!(
                "word {at} of the fingerprint is not the one of this request"
            ))
            .next("ask the member for the request again, over another channel")),
        };
    }
    if !io::stdin().is_terminal() {
        return Err(
            CliError::usage("nobody is at the terminal to compare the fingerprints")
                .next("give the words that the member read out with --fingerprint, or add --yes"),
        );
    }
    ask(
        "Did each member read out these very words over another channel? (yes/no)",
        "nothing was changed",
    )
}

/// Asks at the terminal; anything but "yes" is a no.
pub(super) fn ask(question: &str, otherwise: &str) -> Result<(), CliError> {
    note(question);
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.map_err(CliError::failed)?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(CliError::failed(otherwise))
    }
}
