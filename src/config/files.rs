//! Checks the files that a configuration names: secrets must be files that only
//! their owner can read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bits of group and others: any of them lets somebody else at the file.
const OTHERS: u32 = 0o077;

/// What to do where a key of the node is missing.
pub(crate) const KEY_FIX: &str = "hashpact init makes the keys; or correct the path";

/// Checks that `path` is a file of this user that nobody else can open; `fix` says what to do
/// where it is missing.
///
/// # Errors
/// What is wrong, and what to do.
pub(crate) fn check_secret(path: &Path, fix: &str) -> Result<(), (String, String)> {
    let found = metadata(path, fix)?;
    let mode = found.mode() & 0o7777;
    let shown = path.display();
    if mode & OTHERS != 0 {
        return Err((
            format!("{shown} holds a secret and others may open it (mode {mode:04o})"),
            format!("run: chmod 600 {shown}"),
        ));
    }
    let user = rustix::process::geteuid().as_raw();
    if found.uid() != user {
        return Err((
            format!("{shown} holds a secret and belongs to user {}", found.uid()),
            format!("run: chown {user} {shown}"),
        ));
    }
    Ok(())
}

/// Checks that `path` is a file.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) fn check_public(path: &Path) -> Result<(), (String, String)> {
    metadata(path, "correct the path, or remove the key").map(drop)
}

fn metadata(path: &Path, when_missing: &str) -> Result<Metadata, (String, String)> {
    let shown = path.display();
    let found = std::fs::metadata(path)
        .map_err(|error| (format!("{shown}: {error}"), when_missing.to_owned()))?;
    if found.is_file() {
        Ok(found)
    } else {
        Err((
            format!("{shown} is not a file"),
            "give the path of a file".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn with_mode(mode: u32) -> Result<(), (String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        check_secret(&path, KEY_FIX)
    }

    #[test]
    fn a_secret_that_only_its_owner_can_open_is_accepted() {
        assert_eq!(with_mode(0o600), Ok(()));
        assert_eq!(with_mode(0o400), Ok(()));
    }

    #[test]
    fn a_secret_that_group_or_others_can_open_is_refused() {
        for mode in [0o640, 0o604, 0o660, 0o602, 0o601, 0o777] {
            let (what, fix) = with_mode(mode).unwrap_err();
            assert!(what.contains(&format!("{mode:04o}")), "{what}");
            assert!(fix.contains("chmod 600"), "{fix}");
        }
    }

    #[test]
    fn a_folder_is_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        assert!(check_secret(folder.path(), KEY_FIX).is_err());
    }
}
