//! Everything recomputed: leaves by the store, heads by the keys that their feeds had.

use hashpact_core::card::CardBook;
use hashpact_core::checkpoint;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::RosterChain;
use hashpact_store::{FeedInfo, Head, VerifyReport};

use crate::error::NodeError;
use crate::node::Node;
use crate::{re_anchor, views};

impl Node {
    /// Recomputes every feed from its leaves; `progress` is told leaves done and
    /// leaves in all. Blocking. Nothing is to be published or pulled meanwhile.
    ///
    /// # Errors
    /// What the store answers; what is wrong with the data is in the report.
    pub fn verify(&self, progress: impl FnMut(u64, u64)) -> Result<VerifyReport, NodeError> {
        let former = re_anchor::former(self.store())?;
        let check = |feed: &FeedInfo, head: &Head| self.check_head(&former, feed, head);
        let report = self.store().verify(check, progress)?;
        Ok(report)
    }

    /// Checks a stored head with every key that its feed ever had, under the coalition's
    /// roster or one that the node went by before.
    fn check_head(
        &self,
        former: &[(RosterChain, CardBook)],
        feed: &FeedInfo,
        head: &Head,
    ) -> Result<(), Rejection> {
        let state = self.membership().state();
        let unknown = || Rejection::Unknown {
            what: "roster",
            why: "a head cannot be checked without it".to_owned(),
        };
        let chain = state.chain.as_ref().ok_or_else(unknown)?;
        let set = views::describe_of(feed).map(|describe| describe.name.set);
        let check = |chain: &RosterChain, cards: &CardBook| {
            let roster = chain.roster();
            checkpoint::verify(head.note(), &roster.coalition, &feed.id, |epoch| {
                set.as_ref().map_or_else(Vec::new, |set| {
                    cards.feed_keys(feed.publisher, set, feed.id, epoch, roster)
                })
            })
            .map(|_| ())
        };
        let mut checked = check(chain, &state.cards);
        for (chain, cards) in former {
            if checked.is_err() {
                checked = check(chain, cards).or(checked);
            }
        }
        checked
    }
}
