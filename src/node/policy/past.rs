//! What a policy of the past would have made of what was answered then.
//!
//! By the entries and opinions of that moment, for no surface and no region. What stands in
//! no feed does not count: mutes, quarantine, doubts of the node's own, and that a feed or
//! its member was in doubt. Where something is not known that the verdict may hang on,
//! neither is the verdict.

use hashpact_core::id::UnixMillis;
use hashpact_core::policy::{Policy, Question, Verdict, Voice, Witnessed, share_of};
use hashpact_core::signal::Signal;
use hashpact_core::standing::Standing;

use crate::node::Node;
use crate::past::PastAnswer;

/// Why a verdict of the past cannot be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerdictUnknown {
    /// What was answered is not known as a whole.
    Answer,
    /// The policy asks for witnesses, and how far these stood is not kept.
    Witnesses,
    /// Opinions on the signal stood then, and whether their writers published it is not
    /// replayed.
    SignalOpinions,
}

impl VerdictUnknown {
    /// The stable word for it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Witnesses => "witnesses",
            Self::SignalOpinions => "signal_opinions",
        }
    }
}

impl Node {
    /// The verdict on a signal that was answered so at a time; `None` where nothing was
    /// known of it.
    ///
    /// # Errors
    /// Why it cannot be said.
    pub fn past_verdict(
        &self,
        policy: &Policy,
        signal: &Signal,
        answer: &PastAnswer,
        time: UnixMillis,
    ) -> Result<Option<Verdict>, VerdictUnknown> {
        if !answer.unknown.is_empty() {
            return Err(VerdictUnknown::Answer);
        }
        if answer.found.is_empty() {
            return Ok(None);
        }
        if policy.needs_witnesses() {
            return Err(VerdictUnknown::Witnesses);
        }
        if answer.signal_opinions {
            return Err(VerdictUnknown::SignalOpinions);
        }
        let question = Question {
            kind: signal.kind(),
            surface: None,
            region: None,
            now: time,
        };
        let share = share_of(&self.desk().salt, &signal.index_key());
        let voices = answer.found.iter().map(|found| Voice {
            member: found.publisher,
            set: &found.entry.set,
            classification: &found.classification,
            basis: found.said.basis,
            published: found.said.published,
            negatives: found.negatives,
            witnessed: Witnessed::Unknown,
            ceiling: match found.standing {
                Standing::Active | Standing::Disputed => Verdict::Enforce,
                Standing::Review => Verdict::Review,
                Standing::Retracted => Verdict::Ignore,
            },
            share,
        });
        let voices: Vec<Voice<'_>> = voices.collect();
        Ok(policy.verdict(&question, &voices))
    }
}
