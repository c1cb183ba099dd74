//! `hashpact hash`: MD5, SHA-1 and SHA-256 of files, in one pass over each.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::HEXLOWER;
use md5::Md5;
use serde::Serialize;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::Context;
use super::error::{CliError, Exit};
use super::output::{Progress, bytes, note};

/// What is read at a time: large enough that reads cost nothing beside hashing.
const BLOCK_BYTES: usize = 256 * 1024;

/// Print MD5, SHA-1 and SHA-256 of files
///
/// Reads each file once. A file that cannot be read is reported and the others
/// go on; the exit code is then 3, or 1 when no file could be read.
#[derive(Debug, Args)]
pub struct HashArgs {
    /// Files to read; "-" is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// The hashes of one file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileHashes {
    /// Bytes read.
    pub bytes: u64,
    /// Lower-case hexadecimal, 32 digits.
    pub md5: String,
    /// Lower-case hexadecimal, 40 digits.
    pub sha1: String,
    /// Lower-case hexadecimal, 64 digits.
    pub sha256: String,
}

#[derive(Serialize)]
struct Hashed {
    file: String,
    #[serde(flatten)]
    hashes: FileHashes,
}

#[derive(Serialize)]
struct Failed {
    file: String,
    error: String,
}

#[derive(Serialize)]
struct Summary {
    files: Vec<Hashed>,
    failed: Vec<Failed>,
}

/// Runs the command.
///
/// # Errors
/// When a file could not be read, after all others were; or when printing fails.
pub fn run(args: HashArgs, context: &Context) -> Result<(), CliError> {
    let mut summary = Summary {
        files: Vec::new(),
        failed: Vec::new(),
    };
    let mut hashed_any = false;
    let mut progress = Progress::bytes(total_bytes(&args.files));
    for path in args.files {
        let file = path.display().to_string();
        progress.name(file.clone());
        match hash_path(&path, |read| progress.add(read)) {
            Ok(hashes) => {
                hashed_any = true;
                progress.around(|| print(context, &file, &hashes))?;
                if context.output.is_json() {
                    summary.files.push(Hashed { file, hashes });
                }
            }
            Err(error) => {
                progress.around(|| note(format!("error: {file}: {error}")));
                let error = error.to_string();
                summary.failed.push(Failed { file, error });
            }
        }
    }
    drop(progress);
    context.output.json(&summary)?;
    match (summary.failed.is_empty(), hashed_any) {
        (true, _) => Ok(()),
        (false, true) => Err(CliError::Quiet(Exit::Partial)),
        (false, false) => Err(CliError::Quiet(Exit::Failed)),
    }
}

/// Hashes the file at `path`, or standard input for "-"; `read` is told of every
/// block's bytes.
///
/// # Errors
/// What the file system says; a folder is refused.
pub fn hash_path(path: &Path, read: impl FnMut(u64)) -> io::Result<FileHashes> {
    if path == Path::new("-") {
        return hash_reader(io::stdin().lock(), read);
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    hash_reader(file, read)
}

fn hash_reader(mut reader: impl Read, mut read: impl FnMut(u64)) -> io::Result<FileHashes> {
    let (mut md5, mut sha1, mut sha256) = (Md5::new(), Sha1::new(), Sha256::new());
    let mut block = vec![0_u8; BLOCK_BYTES];
    let mut bytes = 0_u64;
    loop {
        let length = match reader.read(&mut block) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(filled) = block.get(..length) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        md5.update(filled);
        sha1.update(filled);
        sha256.update(filled);
        bytes = bytes.saturating_add(filled.len() as u64);
        read(filled.len() as u64);
    }
    Ok(FileHashes {
        bytes,
        md5: HEXLOWER.encode(&md5.finalize()),
        sha1: HEXLOWER.encode(&sha1.finalize()),
        sha256: HEXLOWER.encode(&sha256.finalize()),
    })
}

fn print(context: &Context, file: &str, hashes: &FileHashes) -> Result<(), CliError> {
    let output = &context.output;
    output.line(format_args!("{file} ({})", bytes(hashes.bytes)))?;
    output.line(format_args!("  MD5     {}", hashes.md5))?;
    output.line(format_args!("  SHA1    {}", hashes.sha1))?;
    output.line(format_args!("  SHA256  {}", hashes.sha256))
}

/// Bytes of all files together, where all are plain files.
fn total_bytes(files: &[PathBuf]) -> Option<u64> {
    files.iter().try_fold(0_u64, |total, path| {
        let found = std::fs::metadata(path).ok()?;
        found.is_file().then(|| total.saturating_add(found.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_standards() {
        let abc = hash_reader(&b"abc"[..], |_| ()).unwrap();
        assert_eq!(abc.bytes, 3);
        assert_eq!(abc.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(abc.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(
            abc.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_file_larger_than_a_block_is_hashed_whole() {
        let content = vec![7_u8; BLOCK_BYTES * 2 + 5];
        let mut seen = 0;
        let hashes = hash_reader(content.as_slice(), |read| seen += read).unwrap();
        assert_eq!(seen, content.len() as u64);
        assert_eq!(hashes.sha256, HEXLOWER.encode(&Sha256::digest(&content)));
    }

    #[test]
    fn a_file_that_cannot_be_read_does_not_stop_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good");
        std::fs::write(&good, "abc").unwrap();
        let missing = folder.path().join("missing");
        let (context, printed) = Context::for_test(true);
        let args = HashArgs {
            files: vec![missing.clone(), folder.path().into(), good],
        };
        assert_eq!(run(args, &context), Err(CliError::Quiet(Exit::Partial)));
        let summary: serde_json::Value = serde_json::from_str(&printed.text()).unwrap();
        assert_eq!(
            summary["files"][0]["md5"],
            "900150983cd24fb0d6963f7d28e17f72"
        );
        assert_eq!(summary["failed"].as_array().map(Vec::len), Some(2));

        let args = HashArgs {
            files: vec![missing],
        };
        assert_eq!(run(args, &context), Err(CliError::Quiet(Exit::Failed)));
    }
}
