//! `[quarantine]` and `[hygiene]`: what is held back though members publish it, and what
//! becomes of doubts that the node has by itself.

use std::path::PathBuf;

use hashpact_core::id::SetName;
use serde::Serialize;

use super::reader::Section;
use super::sections::note_file;
use super::{Files, files};

/// `[quarantine]`: what is held back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Quarantine {
    /// Files of hashes that never match.
    pub allow_lists: Vec<PathBuf>,
    /// The folder of those that `hashpact allow-list` keeps; it need not be there.
    pub allow_list_dir: PathBuf,
    /// Sets whose living entries never match.
    #[serde(serialize_with = "as_texts")]
    pub allow_sets: Vec<SetName>,
}

fn as_texts<S: serde::Serializer>(sets: &[SetName], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(sets.iter().map(ToString::to_string))
}

/// `[hygiene]`: doubts of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hygiene {
    /// A signal that so many of 100 distinct values of a minute match is held at review;
    /// 0 for none.
    pub flood_share_percent: u64,
    /// Of fewer distinct values none is.
    pub flood_min_values: u64,
    /// How long it is held, and let alone once it was released.
    pub flood_hold_h: u64,
    /// What becomes of entries of one signal whose classifications exclude each other.
    pub class_conflicts: ClassConflicts,
    /// Whether publishers are told what of their sets is held back here.
    pub tell_publishers: bool,
}

/// What becomes of entries of one signal whose classifications exclude each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassConflicts {
    /// They are told, and at most review.
    Review,
    /// They are told.
    Show,
}

pub(super) fn quarantine(section: Section<'_, '_>, files: Files) -> Option<Quarantine> {
    let allow_lists = section.paths("allow_lists");
    if files == Files::Check {
        for path in &allow_lists {
            note_file(&section, "allow_lists", files::check_public(path));
        }
    }
    let allow_list_dir = section.path_or("allow_list_dir", "allow-lists");
    let allow_sets = section.list("allow_sets", SetName::parse, "write MEMBER/SET");
    section.finish();
    Some(Quarantine {
        allow_lists,
        allow_list_dir: allow_list_dir?,
        allow_sets,
    })
}

pub(super) fn read(section: Section<'_, '_>) -> Option<Hygiene> {
    let class_conflicts = section.parsed_or(
        "class_conflicts",
        ClassConflicts::Review,
        |text| match text {
            "review" => Ok(ClassConflicts::Review),
            "show" => Ok(ClassConflicts::Show),
            _ => Err("this is neither"),
        },
        "write \"review\" or \"show\"",
    );
    let hygiene = Hygiene {
        flood_share_percent: section.whole("flood_share_percent", 10, 0..=100),
        flood_min_values: section.whole("flood_min_values", 200, 10..=65_536),
        flood_hold_h: section.whole("flood_hold_h", 24, 1..=8_760),
        class_conflicts: class_conflicts?,
        tell_publishers: section.flag("tell_publishers", true),
    };
    section.finish();
    Some(hygiene)
}
