//! Acts as the audit feed has them: noted before they begin, recorded once they ended.
//!
//! A command of the command line says which it is in the user agent of its calls. What
//! a person asks through a command is an administrator's look-up and is recorded; what
//! a program of the upload path asks is counted in the metrics alone. The word is the
//! caller's own and gives no permission.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{BoxStream, once};
use futures_util::{Stream, StreamExt as _};
use hashpact_core::leaf::audit::{Act, OK};
use hashpact_core::signal::SignalKind;
use hashpact_node::audit::Ticket;
use hashpact_node::caller::{Caller, Role, Who};
use hashpact_node::model::{Grantee, RosterImport};
use hashpact_node::{Node, NodeError};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use crate::error::{CODE, lost, status};
use crate::wire;

/// What the user agent of a command's calls begins with; the command follows, its
/// words joined by `-`.
pub const COMMAND_AGENT: &str = "hashpact-command/";
/// The longest name of a command.
const COMMAND_MAX_BYTES: usize = 64;
/// Entries that the record of a look-up names.
const ENTRIES_NAMED: usize = 16;

/// Who asks, and through which command.
pub(crate) struct Asked {
    caller: Caller,
    command: Option<String>,
}

impl Asked {
    pub(crate) fn of<T>(request: &Request<T>) -> Self {
        let caller = request.extensions().get::<Caller>().cloned();
        Self {
            // No door lets anything in without one.
            caller: caller.unwrap_or_else(Caller::loopback),
            command: command(request.metadata()),
        }
    }

    /// Who asks.
    pub(crate) const fn who(&self) -> &Who {
        &self.caller.who
    }

    /// In which role.
    pub(crate) const fn role(&self) -> Role {
        self.caller.role
    }

    /// An act of this caller.
    pub(crate) fn act(&self, code: &str) -> Act {
        Act::new(
            code,
            self.caller
                .actor(self.command.as_deref().unwrap_or_default()),
        )
    }

    /// The act by which documents came: that of the command, where it is one that does
    /// nothing else. What cuts somebody off is always found under one name, whatever
    /// the command calls itself.
    pub(crate) fn roster_act(&self, documents: &wire::ImportRosterRequest) -> Act {
        if !documents.suspensions.is_empty() {
            return self.act("coalition.suspend");
        }
        self.act(match self.command.as_deref() {
            Some("card-publish") => "card.publish",
            Some("coalition-publish") => "coalition.publish",
            Some("enrol-accept") => "enrol.accept",
            Some(_) | None => "roster.import",
        })
    }

    /// Whether its look-ups are an administrator's.
    pub(crate) const fn is_person(&self) -> bool {
        match self.caller.who {
            Who::Process | Who::Socket { .. } => self.command.is_some(),
            Who::Certificate { .. } => matches!(self.caller.role, Role::Administer),
            Who::Loopback => false,
        }
    }

    /// Notes a look-up of signals of these kinds, if it is an administrator's. Nothing
    /// is asked by a question about no signal: whether near matches are loaded.
    pub(crate) async fn look_up(&self, node: &Arc<Node>, kinds: &[u32]) -> Result<LookUp, Status> {
        if kinds.is_empty() {
            return Ok(LookUp(None));
        }
        self.look_ups(node).await
    }

    /// Notes a stream of look-ups, if they are an administrator's.
    pub(crate) async fn look_ups(&self, node: &Arc<Node>) -> Result<LookUp, Status> {
        let ticket = if self.is_person() {
            Some(begin(node, self.act("lookup")).await?)
        } else {
            None
        };
        Ok(LookUp(ticket.map(|ticket| {
            let outcome = OK.to_owned();
            Arc::new(Mutex::new(Told {
                ticket: Some(ticket),
                outcome,
                named: 0,
            }))
        })))
    }
}

/// The command that the user agent names, if it is one word of `a` to `z` and `-`.
fn command(metadata: &MetadataMap) -> Option<String> {
    let agent = metadata.get("user-agent")?.to_str().ok()?;
    // tonic puts its own name after ours.
    let name = agent.strip_prefix(COMMAND_AGENT)?.split(' ').next()?;
    let word = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    (word && (1..=COMMAND_MAX_BYTES).contains(&name.len())).then(|| name.to_owned())
}

/// Does an act, recorded. Blocking.
pub(crate) fn recorded<T>(
    node: &Node,
    act: Act,
    work: impl FnOnce(&mut Act) -> Result<T, NodeError>,
) -> Result<T, NodeError> {
    let mut ticket = node.audit().begin(act)?;
    let done = work(ticket.act());
    ticket.finish(done.as_ref().map_or_else(NodeError::code, |_| OK));
    done
}

/// Notes that an act begins, on a thread that may wait for the disk.
pub(crate) async fn begin(node: &Arc<Node>, act: Act) -> Result<Ticket, Status> {
    let audit = Arc::clone(node.audit());
    let begun = tokio::task::spawn_blocking(move || audit.begin(act));
    let begun = begun.await.map_err(|_| lost("noting an act"))?;
    begun.map_err(|error| status(&error))
}

/// Records how an act ended, on a thread that may wait for the disk.
pub(crate) async fn finish(ticket: Ticket, outcome: String) {
    // A thread that dies with it leaves the note.
    let _ = tokio::task::spawn_blocking(move || ticket.finish(&outcome)).await;
}

/// Records that something with no end of its own has begun, or why it has not.
pub(crate) async fn begun(ticket: Option<Ticket>, refused: Option<&Status>) {
    if let Some(ticket) = ticket {
        finish(ticket, refused.map_or_else(|| OK.to_owned(), code_of)).await;
    }
}

/// The stable code of a status.
pub(crate) fn code_of(status: &Status) -> String {
    let code = status.metadata().get(CODE);
    let code = code.and_then(|code| code.to_str().ok());
    code.map_or_else(|| format!("{:?}", status.code()), str::to_owned)
}

/// A look-up that is recorded, or one that is not. Clones are of one look-up.
#[derive(Clone)]
pub(crate) struct LookUp(Option<Arc<Mutex<Told>>>);

pub(crate) struct Told {
    ticket: Option<Ticket>,
    outcome: String,
    /// Entries named so far.
    named: usize,
}

impl LookUp {
    /// Counts what was asked and answered; no value stands in it.
    pub(crate) fn count(&self, signals: &[u32], answered: Result<&[wire::Answer], &Status>) {
        let Some(told) = &self.0 else {
            return;
        };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let Told {
            ticket,
            outcome,
            named,
        } = &mut *told;
        let Some(act) = ticket.as_mut().map(Ticket::act) else {
            return;
        };
        act.add("asked", u64::try_from(signals.len()).unwrap_or(u64::MAX));
        for kind in signals {
            let kind = SignalKind::from_number(*kind);
            let name = kind.map_or_else(|| "other".to_owned(), |kind| kind.name().to_owned());
            act.add(&format!("asked {name}"), 1);
        }
        match answered {
            Ok(answers) => {
                for answer in answers {
                    act.add("known", u64::from(!answer.matches.is_empty()));
                    for found in &answer.matches {
                        if *named < ENTRIES_NAMED {
                            *named = named.saturating_add(1);
                            act.detail("entry", &found.entry);
                        }
                    }
                }
            }
            Err(status) => *outcome = code_of(status),
        }
    }

    /// Records it; what its callers are told comes after.
    pub(crate) async fn end(self) {
        let Some(told) = self.0 else {
            return;
        };
        let (ticket, outcome) = {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            (told.ticket.take(), told.outcome.clone())
        };
        if let Some(ticket) = ticket {
            finish(ticket, outcome).await;
        }
    }

    /// Lets a stream end once the look-up is recorded. A stream that is given up
    /// records it as interrupted.
    pub(crate) fn around<T: Send + 'static>(
        self,
        answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, Status>> {
        let end = once(self.end()).filter_map(|()| std::future::ready(None));
        answers.chain(end).boxed()
    }
}

/// The kinds of the signals of a request.
pub(crate) fn kinds(signals: &[wire::Signal]) -> Vec<u32> {
    signals.iter().map(|signal| signal.kind).collect()
}

/// Who was granted, once they are known to exist.
pub(crate) fn granted(act: &mut Act, grants: &[Grantee]) {
    act.count("grants", u64::try_from(grants.len()).unwrap_or(u64::MAX));
    for grant in grants {
        let relay = if grant.relay { ":relay" } else { "" };
        act.detail("grant", format_args!("{}{relay}", grant.who));
    }
}

/// What came of documents that were handed in.
pub(crate) fn imported(act: &mut Act, outcome: &RosterImport) {
    act.count("roster_version", outcome.version);
    act.count("accepted", outcome.accepted.into());
    act.count("known", outcome.known.into());
    let refused = u64::try_from(outcome.refused.len()).unwrap_or(u64::MAX);
    act.count("refused", refused);
    for (what, digest) in &outcome.taken_in {
        act.detail(what, digest);
    }
    for member in &outcome.suspended {
        if act.member.is_empty() {
            act.member = member.to_string();
        } else {
            act.detail("member", member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(agent: &'static str, caller: Option<Caller>) -> Asked {
        let mut request = Request::new(());
        let metadata = request.metadata_mut();
        metadata.insert("user-agent", agent.parse().unwrap());
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller);
        }
        Asked::of(&request)
    }

    #[test]
    fn a_look_up_is_an_administrators_by_command_or_by_role() {
        let socket = || Some(Caller::socket(Some(0)));
        let command = "hashpact-command/lookup tonic/0.14.9";
        assert!(asked(command, socket()).is_person());
        for agent in ["tonic/0.14.9", "hashpact-command/", "hashpact-command/A!"] {
            assert!(!asked(agent, socket()).is_person(), "{agent}");
        }
        let client = |role| {
            let key = hashpact_core::id::Digest([1; 32]);
            Some(Caller::certificate("uploads".to_owned(), key, role))
        };
        assert!(!asked(command, client(Role::Read)).is_person());
        assert!(asked("tonic/0.14.9", client(Role::Administer)).is_person());
        assert!(!asked(command, Some(Caller::loopback())).is_person());
        assert!(!asked(command, None).is_person());
    }

    #[test]
    fn an_act_names_who_and_through_which_command() {
        let act = asked(
            "hashpact-command/card-publish x",
            Some(Caller::socket(Some(9))),
        );
        let suspension = wire::ImportRosterRequest {
            suspensions: vec![bytes::Bytes::new()],
            ..wire::ImportRosterRequest::default()
        };
        assert_eq!(act.roster_act(&suspension).act, "coalition.suspend");
        let act = act.roster_act(&wire::ImportRosterRequest::default());
        assert_eq!(act.act, "card.publish");
        assert_eq!(
            (act.actor.uid, act.actor.command.as_str()),
            (Some(9), "card-publish")
        );
    }
}
