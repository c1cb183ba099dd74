//! Finding the sign-state file of the own sets, or beginning one.

use std::path::Path;

use hashpact_store::Store;
use hashpact_store::sign_state::{SignState, SignStateError};

use crate::error::NodeError;

/// The name of the sign-state file in its folder.
const SIGN_STATE_FILE: &str = "sign-state.json";

/// A node that has published must find its sign-state file; one that has not makes it.
pub(crate) fn open(dir: &Path, store: &Store) -> Result<SignState, NodeError> {
    let path = dir.join(SIGN_STATE_FILE);
    let internal = |error: SignStateError| NodeError::Internal(error.to_string());
    match SignState::open(&path) {
        Ok(state) => Ok(state),
        // Own feeds that have heads stay closed: the new file does not know them.
        Err(SignStateError::Missing { .. }) => {
            if store.feeds().iter().any(|feed| feed.own) {
                tracing::error!(
                    path = %path.display(),
                    "the sign-state file is gone: own sets are closed until their heads are confirmed"
                );
            }
            std::fs::create_dir_all(dir)
                .map_err(|error| NodeError::Internal(format!("{}: {error}", dir.display())))?;
            SignState::create(&path).map_err(internal)
        }
        Err(error) => Err(internal(error)),
    }
}
