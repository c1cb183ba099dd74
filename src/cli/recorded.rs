//! Acts that a command does by itself, in files: recorded in the audit feed of the node
//! that is configured on this machine, if one is.
//!
//! Where none is, as on an administrator's own machine, the signed documents are the
//! record. Where one is and cannot be reached, standard error says that nothing was
//! recorded, and the command goes on: a ceremony must not hang on a node's store.

use hashpact_api::wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::Context;
use super::client::{Client, connect_or_embed, failed};
use super::error::CliError;
use super::output::note;

/// An act that the node has noted.
struct Noted {
    client: Client,
    say: mpsc::Sender<wire::RecordRequest>,
    answers: Streaming<wire::RecordResponse>,
}

/// Does `work`, recorded under the name of the command. `work` must not open the node:
/// where none runs, this process holds its store meanwhile.
///
/// # Errors
/// Those of `work`.
pub(super) fn recorded<T>(
    context: &Context,
    details: &[(&str, String)],
    work: impl FnOnce() -> Result<T, CliError>,
) -> Result<T, CliError> {
    // Nothing is configured here: there is nothing to record in.
    if !context.config_path.exists() {
        return work();
    }
    let noted = match begin(context, details) {
        Ok(noted) => noted,
        Err(error) => {
            note("this is not recorded in the audit feed of the node configured here:");
            note(error);
            return work();
        }
    };
    let done = work();
    if let Err(error) = noted.end(done.is_err()) {
        note("how this ended is not recorded in the audit feed:");
        note(error);
    }
    done
}

fn begin(context: &Context, details: &[(&str, String)]) -> Result<Noted, CliError> {
    let client = connect_or_embed(context)?;
    let (say, said) = mpsc::channel(1);
    let details = details.iter();
    let first = wire::RecordRequest {
        act: context.command.join("."),
        details: details
            .map(|(name, text)| wire::AuditDetail {
                name: (*name).to_owned(),
                text: text.clone(),
            })
            .collect(),
        ..Default::default()
    };
    let answers = client.wait(async {
        // The channel has room for one.
        let _ = say.send(first).await;
        let answers = client.node().record(ReceiverStream::new(said)).await;
        let mut answers = answers.map_err(|status| failed(&status))?.into_inner();
        answers.message().await.map_err(|status| failed(&status))?;
        Ok::<_, CliError>(answers)
    })?;
    Ok(Noted {
        client,
        say,
        answers,
    })
}

impl Noted {
    fn end(self, failed: bool) -> Result<(), CliError> {
        let Self {
            client,
            say,
            mut answers,
        } = self;
        let last = wire::RecordRequest {
            failed,
            ..Default::default()
        };
        client.wait(async {
            let gone = |_| CliError::failed("the node went away");
            say.send(last).await.map_err(gone)?;
            let answer = answers.message().await;
            answer.map_err(|status| super::client::failed(&status))?;
            Ok(())
        })
    }
}
