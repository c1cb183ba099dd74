//! The Unix socket: made so that nobody but its owner can open it.
//!
//! The socket is bound under a name of its own, closed to others, and then renamed
//! into place. So nobody ever meets it open, and the socket of a node that crashed
//! is replaced in one step, after nobody answered at it.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use hashpact_node::caller::Caller;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::UdsConnectInfo;

use crate::error::ApiError;
use crate::service::NodeService;
use crate::serving::{DoorLimits, serve_incoming};

/// Nobody but the owner may open it.
const MODE: u32 = 0o600;
/// Write permission of the group and of others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// The system's own user, which may own the folder too.
const ROOT: u32 = 0;

/// The local API's socket; removed when dropped.
#[derive(Debug)]
pub struct Socket {
    listener: Option<UnixListener>,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Makes the socket at `path`. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`ApiError::InUse`] where a node answers; [`ApiError::NotASocket`];
    /// [`ApiError::Folder`] where others could replace it; what the system says.
    pub async fn bind(path: &Path) -> Result<Self, ApiError> {
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        require_free(path).await?;
        let io = |at: &Path| {
            let path = at.display().to_string();
            move |source| ApiError::Io { path, source }
        };
        let temporary = folder.join(format!(".hashpact.{}", std::process::id()));
        remove(&temporary).map_err(io(&temporary))?;
        let listener = UnixListener::bind(&temporary).map_err(io(&temporary))?;
        let placed = place(&temporary, folder, path);
        if placed.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        let inode = placed?;
        Ok(Self {
            listener: Some(listener),
            path: path.to_owned(),
            inode,
        })
    }

    /// Serves until `shutdown`, then lets calls that are under way end.
    ///
    /// # Errors
    /// [`ApiError::Server`].
    pub async fn serve(
        mut self,
        service: NodeService,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ApiError> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        tracing::info!(path = %self.path.display(), "the local API answers");
        let incoming = UnixListenerStream::new(listener);
        serve_incoming(incoming, service, caller, DoorLimits::LOCAL, shutdown).await
    }
}

/// Whoever could open the socket, by the system's word.
fn caller(connection: &UdsConnectInfo) -> Caller {
    Caller::socket(connection.peer_cred.map(|user| user.uid()))
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Not one that another node has put there since.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Nothing lies at `path`, or a socket at which nobody answers.
async fn require_free(path: &Path) -> Result<(), ApiError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(ApiError::Io {
                path: path.display().to_string(),
                source,
            });
        }
    };
    if !found.file_type().is_socket() {
        return Err(ApiError::NotASocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) => Err(ApiError::InUse {
            path: path.to_owned(),
        }),
        Err(source) => Err(ApiError::Io {
            path: path.display().to_string(),
            source,
        }),
    }
}

/// Closes the socket to others and gives it its name; returns its inode.
fn place(temporary: &Path, folder: &Path, path: &Path) -> Result<u64, ApiError> {
    let io = |at: &Path| {
        let path = at.display().to_string();
        move |source| ApiError::Io { path, source }
    };
    fs::set_permissions(temporary, Permissions::from_mode(MODE)).map_err(io(temporary))?;
    let socket = fs::symlink_metadata(temporary).map_err(io(temporary))?;
    let holder = fs::metadata(folder).map_err(io(folder))?;
    // The socket that was made just now belongs to this process' user.
    let is_ours = holder.uid() == socket.uid() || holder.uid() == ROOT;
    if !is_ours || holder.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(ApiError::Folder {
            folder: folder.to_owned(),
        });
    }
    fs::rename(temporary, path).map_err(io(path))?;
    Ok(socket.ino())
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        let path = folder.path().join("api.sock");
        (folder, path)
    }

    #[tokio::test]
    async fn the_socket_is_its_owners_alone_and_goes_with_it() {
        let (_folder, path) = folder(0o700);
        let socket = Socket::bind(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_at_which_somebody_answers_is_not_replaced() {
        let (_folder, path) = folder(0o700);
        let first = Socket::bind(&path).await.unwrap();
        let second = Socket::bind(&path).await;
        assert!(matches!(second, Err(ApiError::InUse { .. })));
        drop(first);
    }

    #[tokio::test]
    async fn a_socket_that_a_crash_left_is_replaced() {
        let (_folder, path) = folder(0o700);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = Socket::bind(&path).await.unwrap();
        assert!(UnixStream::connect(&path).await.is_ok());
        drop(socket);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let (_folder, path) = folder(0o700);
        fs::write(&path, "precious").unwrap();
        let bound = Socket::bind(&path).await;
        assert!(matches!(bound, Err(ApiError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_folder_that_others_may_write_to_is_refused() {
        let (folder, path) = folder(0o777);
        let bound = Socket::bind(&path).await;
        assert!(matches!(bound, Err(ApiError::Folder { .. })));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
