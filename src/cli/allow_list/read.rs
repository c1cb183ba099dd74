//! The operator's allow lists as the node takes them: files of hashes that never match.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hashpact_core::signal::Signal;
use hashpact_formats::{Item, Options, Reader};
use hashpact_matching::pdq::DEFAULT_DISTANCE;
use hashpact_matching::pdq::index::PdqIndex;
use hashpact_store::{AllowList, NearAllowed};

use crate::cli::error::CliError;

/// Values of all files together: some 40 MB of memory.
pub(super) const VALUES_MAX: usize = 1_000_000;

/// Reads the files, and those of the folder of lists; every line of them has to be
/// understood.
///
/// # Errors
/// A file that cannot be read, or a line of it, named by the key of the configuration.
pub(in crate::cli) fn read(paths: &[PathBuf], dir: &Path) -> Result<AllowList, CliError> {
    let mut signals: Vec<Signal> = Vec::new();
    let named = paths.iter().map(|path| ("allow_lists", path.clone()));
    let kept = super::keep::files(dir)?.into_iter();
    for (key, path) in named.chain(kept.map(|path| ("allow_list_dir", path))) {
        let fail = |why: String| {
            let what = format!("quarantine.{key}: {}: {why}", path.display());
            CliError::usage(what).next("one hash a line: KIND:VALUE, or a bare value")
        };
        signals.extend(file(&path).map_err(fail)?);
        if signals.len() > VALUES_MAX {
            return Err(fail(format!("more than {VALUES_MAX} values in all lists")));
        }
    }
    let near = |pictures: Vec<[u8; 32]>| -> Arc<dyn NearAllowed> {
        Arc::new(Pictures(PdqIndex::build(pictures, 1)))
    };
    Ok(AllowList::of(&signals).with_near_by(near))
}

/// Reads one file; says what is wrong with it.
pub(super) fn file(path: &Path) -> Result<Vec<Signal>, String> {
    let mut signals = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let name = path.to_string_lossy();
    let reader = Reader::detect(file, &name, Options::default());
    for item in reader.map_err(|error| error.to_string())? {
        match item.map_err(|error| error.to_string())? {
            Item::Record(record) => signals.extend(record.signals),
            Item::Reject(reject) => {
                let (line, why) = (reject.line, reject.reason.code());
                return Err(format!("line {line}: {why}"));
            }
        }
        if signals.len() > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values"));
        }
    }
    Ok(signals)
}

/// The pictures of the lists.
struct Pictures(PdqIndex);

impl NearAllowed for Pictures {
    fn is_near(&self, pdq: &[u8; 32]) -> bool {
        let mut near = false;
        let asked = self.0.query(pdq, DEFAULT_DISTANCE, |_, _| near = true);
        near && asked.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_within_31_bits_of_an_allowed_one_are_near_it() {
        let index = PdqIndex::build([[0x0f; 32]], 1);
        let pictures = Pictures(index);
        let with_bits = |bits: usize| {
            let mut value = [0x0f; 32];
            for bit in 0..bits {
                value[bit / 8] ^= 1 << (bit % 8);
            }
            value
        };
        assert!(pictures.is_near(&with_bits(0)));
        assert!(pictures.is_near(&with_bits(31)));
        assert!(!pictures.is_near(&with_bits(32)));
    }

    #[test]
    fn lists_of_all_files_are_one_and_a_line_that_is_not_understood_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let none = Path::new("no-such-folder");
        let write = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let one = write("one.txt", format!("{}\n", "0a".repeat(16)));
        let two = write("two.txt", format!("SHA256:{}\n", "0b".repeat(32)));
        assert_eq!(read(&[one.clone(), two], none).unwrap().len(), 2);
        assert!(read(&[], none).unwrap().is_empty());
        let bad = write("bad.txt", format!("{}\nnonsense\n", "0a".repeat(16)));
        let error = read(&[one, bad], none).unwrap_err().to_string();
        assert!(error.contains("bad.txt: line 2"), "{error}");
        assert!(!error.contains("nonsense"), "{error}");
    }
}
