//! One turn of publishing: append, then sign.

use hashpact_core::checkpoint::{self, Checkpoint, Origin, SignedCheckpoint};
use hashpact_core::leaf::RawLeaf;
use hashpact_core::verified::Verified;
use hashpact_store::sign_state::SignedState;
use hashpact_store::{FeedInfo, FeedWriter, Head, HeadRef};

use super::Publisher;
use crate::error::NodeError;
use crate::hub::Change;

/// Holds the feed's one writer. Dropped before [`Session::sign`], what was
/// appended is unsigned and goes at the next start, or at the next turn.
pub(crate) struct Session<'a> {
    publisher: &'a Publisher,
    pub(crate) writer: FeedWriter,
    info: FeedInfo,
}

impl Publisher {
    /// Begins a turn on an open feed.
    pub(crate) fn session(&self, feed: &FeedInfo) -> Result<Session<'_>, NodeError> {
        self.follow_epoch(feed)?;
        self.require_open(feed)?;
        let mut session = self.session_unchecked(feed)?;
        session.drop_unsigned()?;
        Ok(session)
    }

    /// Begins a turn for the gate itself.
    pub(super) fn session_unchecked(&self, feed: &FeedInfo) -> Result<Session<'_>, NodeError> {
        let writer = self.store.writer(feed.no)?;
        let info = writer.info();
        Ok(Session {
            publisher: self,
            writer,
            info,
        })
    }
}

impl Publisher {
    /// Signs a state that was recorded as signed just before.
    pub(crate) fn sign_checkpoint(
        &self,
        checkpoint: &Checkpoint,
    ) -> Result<Verified<SignedCheckpoint>, NodeError> {
        let signer = self.feed_key.load_full();
        let note = checkpoint::sign(checkpoint, &signer);
        let key = signer.public();
        let origin = &checkpoint.origin;
        let verified = checkpoint::verify(&note, &origin.coalition, &origin.feed, |_| vec![key])?;
        Ok(verified)
    }
}

impl<'a> Session<'a> {
    /// Takes up a turn again whose writer was given away.
    pub(super) const fn resume(
        publisher: &'a Publisher,
        writer: FeedWriter,
        info: FeedInfo,
    ) -> Self {
        Self {
            publisher,
            writer,
            info,
        }
    }

    /// Gives the writer away, to append elsewhere.
    pub(super) fn into_writer(self) -> (FeedWriter, FeedInfo) {
        (self.writer, self.info)
    }

    /// Leaves that an earlier turn appended and did not sign are dropped: nobody
    /// was told of them.
    fn drop_unsigned(&mut self) -> Result<(), NodeError> {
        let signed = self.publisher.sign_state().state(&self.info.id);
        let signed_size = signed.map_or(0, |state| state.size);
        if self.writer.size() > signed_size {
            self.writer.truncate_unsigned(signed_size)?;
        }
        Ok(())
    }

    /// The feed as it stood when the turn began.
    pub(crate) const fn info(&self) -> &FeedInfo {
        &self.info
    }

    /// Leaves appended so far, which is the next leaf's index.
    pub(crate) const fn size(&self) -> u64 {
        self.writer.size()
    }

    /// Appends leaves; they count once signed.
    pub(crate) fn append(&mut self, leaves: &[RawLeaf]) -> Result<u64, NodeError> {
        Ok(self.writer.append(leaves)?)
    }

    /// Signs what was appended, stores the head and announces it.
    pub(crate) fn sign(mut self) -> Result<HeadRef, NodeError> {
        self.sign_all()
    }

    /// Signs, and then drops what the erase leaves that were signed name; answers how
    /// many payloads went.
    pub(crate) fn sign_and_drop(mut self) -> Result<(HeadRef, u64), NodeError> {
        let head = self.sign_all()?;
        Ok((head, self.writer.drop_erased()?))
    }

    fn sign_all(&mut self) -> Result<HeadRef, NodeError> {
        let size = self.writer.sync()?;
        // The root is that of what the disk holds, not of what memory thinks.
        let root = self.publisher.store.root_at(self.info.no, size)?;
        self.record_and_sign(SignedState {
            epoch: self.info.epoch,
            size,
            root,
        })
    }

    /// Signs the recorded state again after a crash: the identical head.
    pub(super) fn resign(mut self, signed: SignedState) -> Result<HeadRef, NodeError> {
        self.record_and_sign(signed)
    }

    fn record_and_sign(&mut self, new: SignedState) -> Result<HeadRef, NodeError> {
        let publisher = self.publisher;
        // What is signed for an epoch that was closed meanwhile is void.
        let open = publisher.membership.epoch(self.info.id);
        if new.epoch != open {
            return Err(NodeError::PublishingClosed {
                set: crate::words::name_of(&self.info),
                why: format!("the roster has opened epoch {open} of it; begin again"),
            });
        }
        {
            let mut sign_state = publisher.sign_state();
            let recorded = sign_state.state(&self.info.id);
            let at_recorded = publisher
                .store
                .frontier(self.info.no, recorded.map_or(0, |state| state.size))?;
            sign_state
                .advance(&self.info.id, recorded, new, &at_recorded)
                .map_err(|error| NodeError::Internal(error.to_string()))?;
        }
        // Crash here: the state is recorded and not signed; the next start signs
        // the identical one.
        let checkpoint = Checkpoint {
            origin: Origin {
                coalition: publisher.membership.coalition()?,
                feed: self.info.id,
                epoch: new.epoch,
            },
            size: new.size,
            root: new.root,
        };
        let verified = publisher.sign_checkpoint(&checkpoint)?;
        let head = Head::new(&verified, publisher.clock.now());
        self.writer.commit_head(&head)?;
        publisher.hub.tell(Change::Head(self.info.id));
        Ok(head.at())
    }
}
