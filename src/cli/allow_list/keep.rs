//! The folder of lists: one file each, replaced as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use hashpact_core::signal::Signal;
use hashpact_formats::{WARNINGLIST_MAX_BYTES, warninglist};
use serde::Serialize;

use super::read::{self, VALUES_MAX};
use crate::cli::error::CliError;

/// What a list's file ends with.
const ENDING: &str = "list";
/// What its first line begins with; the title follows.
const TITLE: &str = "# ";
/// Characters of a name.
const NAME_MAX: usize = 64;
/// Bytes of a first line.
const LINE_MAX: u64 = 1_024;

/// What was read of a file that is to become a list.
pub(super) struct Taken {
    pub(super) title: String,
    pub(super) signals: Vec<Signal>,
    pub(super) skipped: BTreeMap<&'static str, u64>,
}

/// A list that is kept.
#[derive(Serialize)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) values: u64,
}

/// Reads a file of hashes, or a warninglist.
pub(super) fn take(path: &Path, misp: bool) -> Result<Taken, CliError> {
    let fail = |why: String| CliError::usage(format!("{}: {why}", path.display()));
    if !misp {
        let signals = read::file(path).map_err(|why| {
            fail(why).next("one hash a line: KIND:VALUE, or a bare value; --misp for a warninglist")
        })?;
        return Ok(Taken {
            title: String::new(),
            signals,
            skipped: BTreeMap::new(),
        });
    }
    let file = File::open(path).map_err(|error| fail(error.to_string()))?;
    let limit = u64::try_from(WARNINGLIST_MAX_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| fail(error.to_string()))?;
    if bytes.len() > WARNINGLIST_MAX_BYTES {
        return Err(fail("it is larger than 64 MiB".to_owned()));
    }
    let list = warninglist(&bytes).map_err(|error| {
        fail(error.to_string()).next("lists of MISP are at github.com/MISP/misp-warninglists")
    })?;
    if list.signals.is_empty() {
        let why = "nothing in it is a digest, a link or a host";
        return Err(fail(why.to_owned()));
    }
    let skipped = list.skipped.iter();
    Ok(Taken {
        title: format!("{}, version {}", list.name, list.version),
        skipped: skipped.map(|(why, count)| (why.code(), *count)).collect(),
        signals: list.signals,
    })
}

/// What a list is called: as asked for, or after its file.
pub(super) fn name(asked: Option<&str>, path: &Path) -> Result<String, CliError> {
    let name = match asked {
        Some(name) => name.to_owned(),
        None => path
            .file_stem()
            .map(|stem| stem.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default(),
    };
    checked(&name)?;
    Ok(name)
}

fn checked(name: &str) -> Result<(), CliError> {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good = (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(letter);
    if good {
        return Ok(());
    }
    let why = "a list's name has 1 to 64 of a to z, 0 to 9 and -";
    Err(CliError::usage(why).next("give it one with --name"))
}

/// Puts a list in place, as a whole. Crash: the old one or the new one is there.
pub(super) fn put(dir: &Path, name: &str, list: &Taken) -> Result<(), CliError> {
    let path = file_of(dir, name);
    let others: usize = all(dir)?
        .iter()
        .filter(|kept| kept.name != name)
        .map(|kept| usize::try_from(kept.values).unwrap_or(usize::MAX))
        .fold(0, usize::saturating_add);
    if others.saturating_add(list.signals.len()) > VALUES_MAX {
        let why = format!("more than {VALUES_MAX} values in all lists");
        return Err(CliError::usage(why).next("hashpact allow-list remove makes room"));
    }
    crate::cli::open::private_folder(dir, "quarantine.allow_list_dir")?;
    let new = path.with_extension("new");
    let written = write(&new, list).and_then(|()| fs::rename(&new, &path));
    let written = written.and_then(|()| File::open(dir)?.sync_all());
    written.map_err(|error| {
        // What is half written is nothing.
        let _ = fs::remove_file(&new);
        failed(&path, &error)
    })
}

fn write(path: &Path, list: &Taken) -> io::Result<()> {
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = io::BufWriter::new(options.open(path)?);
    writeln!(file, "{TITLE}{}", list.title)?;
    for signal in &list.signals {
        writeln!(file, "{}:{}", signal.kind(), signal.to_text())?;
    }
    file.into_inner()
        .map_err(io::IntoInnerError::into_error)?
        .sync_all()
}

/// All lists, by name; none where there is no folder.
pub(super) fn all(dir: &Path) -> Result<Vec<Kept>, CliError> {
    let mut lists = Vec::new();
    for path in files(dir)? {
        let name = path.file_stem().map(|stem| stem.to_string_lossy());
        let (title, values) = counts(&path).map_err(|error| failed(&path, &error))?;
        lists.push(Kept {
            name: name.unwrap_or_default().into_owned(),
            title,
            values,
        });
    }
    Ok(lists)
}

fn counts(path: &Path) -> io::Result<(String, u64)> {
    let mut file = BufReader::new(File::open(path)?);
    let mut first = String::new();
    (&mut file).take(LINE_MAX).read_line(&mut first)?;
    let title = first.strip_prefix(TITLE).unwrap_or_default().trim();
    let values = file.split(b'\n').count();
    Ok((title.to_owned(), u64::try_from(values).unwrap_or(u64::MAX)))
}

/// The files of the lists, in the order of their names.
pub(super) fn files(dir: &Path) -> Result<Vec<PathBuf>, CliError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| failed(dir, &error))?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| failed(dir, &error))?.path();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

/// Removes a list.
pub(super) fn remove(dir: &Path, name: &str) -> Result<(), CliError> {
    checked(name)?;
    let path = file_of(dir, name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = format!("there is no list {name}");
            Err(CliError::failed(why).next("hashpact allow-list list shows them"))
        }
        other => other.map_err(|error| failed(&path, &error)),
    }
}

fn file_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(name).with_extension(ENDING)
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::failed(format!(
        "quarantine.allow_list_dir: {}: {error}",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn a_warninglist_becomes_a_list_that_the_node_reads_and_can_be_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("allow-lists");
        let text = format!(
            r#"{{"name":"Known files","version":3,"type":"string",
            "matching_attributes":["md5"],"list":["{}","nonsense"]}}"#,
            "0A".repeat(16)
        );
        let misp = write_file(folder.path(), "Known.json", &text);
        assert!(all(&dir).unwrap().is_empty());
        for _ in 0..2 {
            let list = take(&misp, true).unwrap();
            assert_eq!(list.skipped, BTreeMap::from([("no_hash", 1)]));
            put(&dir, &name(None, &misp).unwrap(), &list).unwrap();
        }
        let kept = all(&dir).unwrap();
        assert_eq!((kept.len(), kept[0].values), (1, 1));
        assert_eq!(kept[0].title, "Known files, version 3");
        assert_eq!(read::read(&[], &dir).unwrap().len(), 1);
        let plain = write_file(
            folder.path(),
            "b.txt",
            &format!("SHA256:{}\n", "0b".repeat(32)),
        );
        put(&dir, "b", &take(&plain, false).unwrap()).unwrap();
        assert_eq!(
            read::read(&[misp], &dir).unwrap_err().exit(),
            crate::cli::error::Exit::Usage
        );
        assert_eq!(
            read::read(&[plain], &dir).unwrap().len(),
            2,
            "the same one once"
        );
        remove(&dir, "known").unwrap();
        assert!(remove(&dir, "known").is_err());
        assert!(remove(&dir, "../b").is_err());
        assert_eq!(all(&dir).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_a_list_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let cidr = r#"{"name":"n","version":1,"type":"cidr","list":["10.0.0.0/8"]}"#;
        let cidr = write_file(folder.path(), "cidr.json", cidr);
        let said = take(&cidr, true).map(|_| ()).unwrap_err().to_string();
        assert!(said.contains("type cidr"), "{said}");
        let none = r#"{"name":"n","version":1,"type":"string","list":["x"]}"#;
        let none = write_file(folder.path(), "none.json", none);
        assert!(take(&none, true).is_err());
        assert!(name(None, Path::new("A list.json")).is_err());
        assert_eq!(name(Some("a-list"), Path::new("x")).unwrap(), "a-list");
    }
}
