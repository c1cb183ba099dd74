//! What the members bring: this machine's own package checksums, and two files that
//! are made up. Nothing in them is, or is like, real abuse material.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use data_encoding::{HEXLOWER, HEXUPPER};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::cli::error::CliError;
use crate::cli::media::digests_of;

/// Where dpkg keeps the checksums of what it installed.
const DPKG: &str = "/var/lib/dpkg/info";
/// Entries of the VICS file.
pub(super) const VICS_ENTRIES: u64 = 5_000;
/// Files to hash where there is no dpkg.
const USR_FILES_MAX: usize = 5_000;
/// Files that are looked up.
const LOOKED_UP: usize = 200;
/// Files longer than this are not among them.
const LOOKED_UP_MAX_BYTES: u64 = 1 << 20;

/// The checksums of this machine's own files.
pub(super) struct Packages {
    /// What they are, for people.
    pub(super) source: &'static str,
    /// Lines of the list.
    pub(super) lines: u64,
    /// Files on this machine that the list has.
    pub(super) files: Vec<RealFile>,
}

/// A file of this machine and its MD5.
pub(super) struct RealFile {
    pub(super) path: PathBuf,
    pub(super) md5: Vec<u8>,
}

/// Writes the list as `md5sum` prints it, and picks files to look up.
pub(super) fn packages(list: &Path) -> Result<Packages, CliError> {
    let fail = |error: io::Error| CliError::failed(format!("{}: {error}", list.display()));
    let mut writer = BufWriter::new(File::create(list).map_err(fail)?);
    let named = checksum_files();
    let (source, lines, candidates) = if named.is_empty() {
        let (lines, files) = hash_usr(&mut writer).map_err(fail)?;
        ("hashes of files under /usr", lines, files)
    } else {
        let (lines, files) = copy_checksums(&named, &mut writer).map_err(fail)?;
        ("this machine's package checksums", lines, files)
    };
    writer.flush().map_err(fail)?;
    let files = pick(candidates);
    if files.is_empty() {
        return Err(CliError::failed(
            "this machine has no file that the list covers",
        ));
    }
    Ok(Packages {
        source,
        lines,
        files,
    })
}

fn checksum_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(DPKG).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "md5sums"))
        .collect();
    paths.sort();
    paths
}

/// Files with the MD5 that the list has of each.
type HashedFiles = Vec<(PathBuf, Vec<u8>)>;

fn copy_checksums(named: &[PathBuf], writer: &mut impl Write) -> io::Result<(u64, HashedFiles)> {
    let (mut lines, mut files) = (0, Vec::new());
    for path in named {
        let mut reader = BufReader::new(File::open(path)?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            writer.write_all(&line)?;
            lines += 1;
            files.extend(listed(&line));
            line.clear();
        }
    }
    Ok((lines, files))
}

/// A line of dpkg: the digest, two spaces, the path from the root on.
fn listed(line: &[u8]) -> Option<(PathBuf, Vec<u8>)> {
    let (digest, path) = std::str::from_utf8(line)
        .ok()?
        .trim_end()
        .split_once("  ")?;
    let digest = HEXLOWER.decode(digest.as_bytes()).ok()?;
    Some((Path::new("/").join(path), digest))
}

fn hash_usr(writer: &mut impl Write) -> io::Result<(u64, HashedFiles)> {
    let mut folders = vec![PathBuf::from("/usr")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        if files.len() >= USR_FILES_MAX {
            break;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let path = entry.path();
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && files.len() < USR_FILES_MAX {
                let Ok(hashes) = digests_of(&path) else {
                    continue;
                };
                writeln!(writer, "{}  {}", hashes.md5, path.display())?;
                let digest = HEXLOWER.decode(hashes.md5.as_bytes());
                files.extend(digest.ok().map(|digest| (path, digest)));
            }
        }
    }
    Ok((files.len() as u64, files))
}

/// Files that are there and as they were installed, from all over the list.
fn pick(candidates: Vec<(PathBuf, Vec<u8>)>) -> Vec<RealFile> {
    let step = (candidates.len() / (LOOKED_UP * 4)).max(1);
    let mut files = Vec::new();
    for (path, md5) in candidates.into_iter().step_by(step) {
        let small = fs::symlink_metadata(&path)
            .is_ok_and(|found| found.is_file() && (1..=LOOKED_UP_MAX_BYTES).contains(&found.len()));
        if !small {
            continue;
        }
        let same = digests_of(&path).is_ok_and(|now| now.md5 == HEXLOWER.encode(&md5));
        if same {
            files.push(RealFile { path, md5 });
        }
        if files.len() == LOOKED_UP {
            break;
        }
    }
    files
}

/// Writes a VICS 2.0 file: MD5 and SHA-1 of made-up media, with a category.
pub(super) fn vics(path: &Path) -> Result<(), CliError> {
    write(path, |writer| {
        writer.write_all(
            br#"{"@odata.context":"http://github.com/VICSDATAMODEL/ProjectVic/DataModels/2.0.xml/US/$metadata#Media","value":["#,
        )?;
        for number in 0..VICS_ENTRIES {
            let comma = if number == 0 { "" } else { "," };
            let made_up = format!("hashpact demo: media {number} of harbor");
            write!(
                writer,
                r#"{comma}{{"MediaID":{},"Category":{},"MD5":"{}","SHA1":"{}","MediaSize":{}}}"#,
                number + 1,
                number % 3 + 1,
                HEXUPPER.encode(&Md5::digest(&made_up)),
                HEXUPPER.encode(&Sha1::digest(&made_up)),
                1_000 + number
            )?;
        }
        writer.write_all(b"]}\n")
    })
}

/// Writes a CSV file of `entries` rows, each with a SHA-256 and a PDQ.
pub(super) fn generated(path: &Path, entries: u64) -> Result<(), CliError> {
    write(path, |writer| {
        writeln!(
            writer,
            "sha256,pdq,pdq_quality,classification,labels,first_seen"
        )?;
        for number in 0..entries {
            let sha256 = Sha256::digest(format!("hashpact demo: file {number} of lumen"));
            let pdq = Sha256::digest(format!("hashpact demo: picture {number} of lumen"));
            let class = ["A1", "A2", "B1", "B2"]
                .get((number % 4) as usize)
                .unwrap_or(&"B2");
            writeln!(
                writer,
                "{},{},{},{class},generated,2026-01-01T00:00:00Z",
                HEXLOWER.encode(&sha256),
                HEXLOWER.encode(&pdq),
                50 + number % 51
            )?;
        }
        Ok(())
    })
}

/// Writes a plain list of made-up SHA-256 digests.
pub(super) fn late(path: &Path, entries: u64) -> Result<(), CliError> {
    write(path, |writer| {
        for number in 0..entries {
            let digest = Sha256::digest(format!("hashpact demo: late {number} of northstar"));
            writeln!(writer, "SHA256:{}", HEXLOWER.encode(&digest))?;
        }
        Ok(())
    })
}

fn write(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), CliError> {
    let written = File::create(path).and_then(|file| {
        let mut writer = BufWriter::with_capacity(1 << 16, file);
        fill(&mut writer)?;
        writer.flush()
    });
    written.map_err(|error| CliError::failed(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashpact_formats::{Item, Options, Reader};

    fn read(path: &Path) -> (u64, u64) {
        let name = path.display().to_string();
        let mut reader =
            Reader::detect(File::open(path).unwrap(), &name, Options::default()).unwrap();
        let (mut records, mut rejects) = (0, 0);
        for item in &mut reader {
            match item.unwrap() {
                Item::Record(_) => records += 1,
                Item::Reject(_) => rejects += 1,
            }
        }
        (records, rejects)
    }

    #[test]
    fn every_made_up_line_is_one_that_import_takes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        vics(&path("a.json")).unwrap();
        generated(&path("b.csv"), 50).unwrap();
        late(&path("c.txt"), 20).unwrap();
        assert_eq!(read(&path("a.json")), (VICS_ENTRIES, 0));
        assert_eq!(read(&path("b.csv")), (50, 0));
        assert_eq!(read(&path("c.txt")), (20, 0));
    }

    #[test]
    fn a_line_of_dpkg_names_a_file_from_the_root_on() {
        let (path, digest) = listed(b"00112233445566778899aabbccddeeff  usr/bin/ls\n").unwrap();
        assert_eq!(path, Path::new("/usr/bin/ls"));
        assert_eq!(digest.len(), 16);
        assert!(listed(b"no checksum").is_none());
    }
}
