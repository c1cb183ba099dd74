//! Appending on a thread of its own, while an import prepares the entries that follow.
//!
//! Both take about half of an import's work. Entries keep their order; at most
//! [`WAITING_MAX`] batches wait.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use hashpact_core::leaf::RawLeaf;
use hashpact_store::{FeedWriter, StoreError};

use crate::error::NodeError;

/// Batches that wait for the thread: enough that neither side waits for long.
const WAITING_MAX: usize = 2;

/// A writer at work on its own thread. Dropped before [`Appender::finish`], it ends
/// the thread, waits for it and frees the feed.
pub(super) struct Appender {
    batches: Option<SyncSender<Vec<RawLeaf>>>,
    thread: Option<JoinHandle<Result<FeedWriter, StoreError>>>,
}

impl Appender {
    /// Starts the thread.
    pub(super) fn start(mut writer: FeedWriter) -> Result<Self, NodeError> {
        let (batches, waiting) = sync_channel::<Vec<RawLeaf>>(WAITING_MAX);
        let work = move || {
            for batch in waiting {
                writer.append(&batch)?;
            }
            Ok(writer)
        };
        let thread = std::thread::Builder::new()
            .name("import-append".to_owned())
            .spawn(work)
            .map_err(|error| NodeError::Internal(format!("a thread for an import: {error}")))?;
        Ok(Self {
            batches: Some(batches),
            thread: Some(thread),
        })
    }

    /// Hands leaves on. What goes wrong with them is told by a later call.
    pub(super) fn append(&mut self, leaves: Vec<RawLeaf>) -> Result<(), NodeError> {
        let sent = self.batches.as_ref().map(|batches| batches.send(leaves));
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) | None => self.end().map(|_| ()).and(Err(lost())),
        }
    }

    /// Waits until everything is appended; gives the writer back.
    pub(super) fn finish(mut self) -> Result<FeedWriter, NodeError> {
        self.end()
    }

    fn end(&mut self) -> Result<FeedWriter, NodeError> {
        self.batches = None;
        let thread = self.thread.take().ok_or_else(lost)?;
        Ok(thread.join().map_err(|_| lost())??)
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        // An import that is given up: what was appended counts for nothing.
        let _ = self.end();
    }
}

fn lost() -> NodeError {
    NodeError::Internal("the import's writer was lost".to_owned())
}
