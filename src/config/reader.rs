//! Reads a TOML file key by key and collects everything that is wrong with it.
//!
//! Owns: which keys were asked for (all others are unknown), types, ranges, and
//! where in the file a problem is. Does not own: what the keys mean; that is
//! [`super::sections`].

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong in a configuration, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigProblem {
    /// The key's path, such as `api.http_listen`; empty for the file as a whole.
    pub key: String,
    /// The line in the file, from 1, where there is one.
    pub line: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl ConfigProblem {
    /// Where and what, without the remedy.
    #[must_use]
    pub fn fact(&self) -> String {
        let line = self.line.map(|line| format!("line {line}: "));
        let key = (!self.key.is_empty()).then(|| format!("{}: ", self.key));
        format!(
            "{}{}{}",
            line.unwrap_or_default(),
            key.unwrap_or_default(),
            self.what
        )
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.fact(), self.fix)
    }
}

/// One reading of one file.
pub(super) struct Reading<'s> {
    source: &'s str,
    base: &'s Path,
    problems: RefCell<Vec<ConfigProblem>>,
    keys: RefCell<BTreeSet<String>>,
}

impl<'s> Reading<'s> {
    /// Reads `source`; relative paths in it are resolved against `base`.
    pub(super) fn new(source: &'s str, base: &'s Path) -> Self {
        Self {
            source,
            base,
            problems: RefCell::default(),
            keys: RefCell::default(),
        }
    }

    /// Notes a problem.
    pub(super) fn problem(
        &self,
        key: impl Into<String>,
        at: Option<usize>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.problems.borrow_mut().push(ConfigProblem {
            key: key.into(),
            line: at.map(|offset| self.line_of(offset)),
            what: what.into(),
            fix: fix.into(),
        });
    }

    /// All problems, in the order of the file, those without a line last.
    pub(super) fn into_problems(self) -> Vec<ConfigProblem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        problems
    }

    /// Every key that was asked for, as a path.
    #[cfg(test)]
    pub(super) fn known_keys(&self) -> BTreeSet<String> {
        self.keys.borrow().clone()
    }

    fn line_of(&self, offset: usize) -> usize {
        let before = self.source.bytes().take(offset);
        before
            .filter(|byte| *byte == b'\n')
            .count()
            .saturating_add(1)
    }
}

/// One table of the file; an absent one is an empty one.
pub(super) struct Section<'r, 's> {
    pub(super) reading: &'r Reading<'s>,
    path: String,
    table: Option<&'r DeTable<'r>>,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'r, 's> Section<'r, 's> {
    /// The file's outermost table.
    pub(super) fn root(reading: &'r Reading<'s>, table: &'r DeTable<'r>) -> Self {
        Self {
            reading,
            path: String::new(),
            table: Some(table),
            asked: RefCell::default(),
        }
    }

    /// The table `name` in this one.
    pub(super) fn section(&self, name: &'static str) -> Section<'r, 's> {
        self.asked.borrow_mut().insert(name);
        let table = self.raw(name).and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                self.wrong_type(
                    name,
                    value,
                    &format!("write it as a table: [{}]", self.key(name)),
                );
            }
            table
        });
        Section {
            reading: self.reading,
            path: self.key(name),
            table,
            asked: RefCell::default(),
        }
    }

    /// The tables of the array `name`, such as `[[coalition.bootstrap]]`.
    pub(super) fn sections(&self, name: &'static str) -> Vec<Section<'r, 's>> {
        let fix = "write a list of tables";
        let Some(value) = self.value(name) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(name, value, fix);
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match item.get_ref().as_table() {
                Some(table) => sections.push(Section {
                    reading: self.reading,
                    path: format!("{}[{index}]", self.key(name)),
                    table: Some(table),
                    asked: RefCell::default(),
                }),
                None => self.wrong_type(name, item, fix),
            }
        }
        sections
    }

    /// Whether the file has the key, whatever its value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// Whether the key is a list without items.
    pub(super) fn is_empty_list(&self, name: &str) -> bool {
        let value = self.raw(name).and_then(|value| value.get_ref().as_array());
        value.is_some_and(|items| items.iter().next().is_none())
    }

    /// A text, parsed; `None` when absent or wrong (then a problem is noted).
    pub(super) fn parsed<T, E: fmt::Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        fix: &str,
    ) -> Option<T> {
        let value = self.value(name)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(name, value, fix);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.wrong(name, value, error.to_string(), fix);
                None
            }
        }
    }

    /// As [`parsed`](Self::parsed), with a default for an absent key.
    pub(super) fn parsed_or<T, E: fmt::Display>(
        &self,
        name: &'static str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, E>,
        fix: &str,
    ) -> Option<T> {
        if self.has(name) {
            self.parsed(name, parse, fix)
        } else {
            self.asked_for(name);
            Some(default)
        }
    }

    /// As [`parsed`](Self::parsed); an absent key is a problem.
    pub(super) fn required<T, E: fmt::Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        fix: &str,
    ) -> Option<T> {
        if !self.has(name) {
            self.asked_for(name);
            self.reading
                .problem(self.key(name), None, "this key is missing", fix);
            return None;
        }
        self.parsed(name, parse, fix)
    }

    /// A list of texts, each parsed; the good ones, with a problem for each other.
    pub(super) fn list<T, E: fmt::Display>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, E>,
        fix: &str,
    ) -> Vec<T> {
        let Some(value) = self.value(name) else {
            return Vec::new();
        };
        let Some(items) = value.get_ref().as_array() else {
            self.wrong_type(name, value, fix);
            return Vec::new();
        };
        let mut parsed = Vec::new();
        for item in items {
            match item.get_ref().as_str().map(&parse) {
                Some(Ok(good)) => parsed.push(good),
                Some(Err(error)) => self.wrong(name, item, error.to_string(), fix),
                None => self.wrong_type(name, item, fix),
            }
        }
        parsed
    }

    /// A whole number within `range`, or the default.
    pub(super) fn whole(
        &self,
        name: &'static str,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let Some(value) = self.value(name) else {
            return default;
        };
        let fix = format!(
            "give a whole number from {} to {}",
            range.start(),
            range.end()
        );
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(name, value, &fix);
            return default;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => number,
            Ok(_) | Err(_) => {
                self.wrong(name, value, format!("{integer} is out of range"), &fix);
                default
            }
        }
    }

    /// `true` or `false`, or the default.
    pub(super) fn flag(&self, name: &'static str, default: bool) -> bool {
        let Some(value) = self.value(name) else {
            return default;
        };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(name, value, "write true or false, without quotes");
            default
        })
    }

    /// A path, relative to the file's folder where it is not absolute.
    pub(super) fn path(&self, name: &'static str) -> Option<PathBuf> {
        let parse = |text: &str| {
            if text.is_empty() {
                Err("the path is empty")
            } else {
                Ok(self.reading.base.join(text))
            }
        };
        self.parsed(
            name,
            parse,
            "give a path, relative to this file's folder or absolute",
        )
    }

    /// A list of paths, each as [`path`](Self::path).
    pub(super) fn paths(&self, name: &'static str) -> Vec<PathBuf> {
        let parse = |text: &str| {
            if text.is_empty() {
                Err("the path is empty")
            } else {
                Ok(self.reading.base.join(text))
            }
        };
        self.list(
            name,
            parse,
            "give paths, relative to this file's folder or absolute",
        )
    }

    /// As [`path`](Self::path), with a default for an absent key.
    pub(super) fn path_or(&self, name: &'static str, default: &str) -> Option<PathBuf> {
        if self.has(name) {
            self.path(name)
        } else {
            self.asked_for(name);
            Some(self.reading.base.join(default))
        }
    }

    /// Notes a problem of the key `name`, at its line where it is in the file.
    pub(super) fn problem(&self, name: &str, what: impl Into<String>, fix: impl Into<String>) {
        let at = self.raw(name).map(|value| value.span().start);
        self.reading.problem(self.key(name), at, what, fix);
    }

    /// Notes every key of this table that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for key in self.table.into_iter().flat_map(DeTable::keys) {
            let name = key.get_ref().as_ref();
            if asked.contains(name) {
                continue;
            }
            let fix = closest(name, &asked).map_or_else(
                || "remove it".to_owned(),
                |near| format!("remove it, or is {near} meant?"),
            );
            self.reading.problem(
                self.key(name),
                Some(key.span().start),
                "there is no such key",
                fix,
            );
        }
    }

    fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn asked_for(&self, name: &'static str) {
        self.asked.borrow_mut().insert(name);
        self.reading.keys.borrow_mut().insert(self.key(name));
    }

    fn value(&self, name: &'static str) -> Option<&'r Spanned<DeValue<'r>>> {
        self.asked_for(name);
        self.raw(name)
    }

    fn raw(&self, name: &str) -> Option<&'r Spanned<DeValue<'r>>> {
        self.table?.get(name)
    }

    fn wrong(&self, name: &str, value: &Spanned<DeValue<'_>>, what: String, fix: &str) {
        self.reading
            .problem(self.key(name), Some(value.span().start), what, fix);
    }

    fn wrong_type(&self, name: &str, value: &Spanned<DeValue<'_>>, fix: &str) {
        let kind = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.wrong(name, value, format!("{kind} does not fit here"), fix);
    }
}

/// The known key that `name` is most likely a slip of.
fn closest(name: &str, known: &BTreeSet<&'static str>) -> Option<&'static str> {
    let near = known.iter().map(|key| (distance(name, key), *key)).min()?;
    (near.0 <= 3 && near.0 < name.len()).then_some(near.1)
}

/// Levenshtein's distance between two short texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut next = vec![i.saturating_add(1)];
        for ((y, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            let left = next.last().copied().unwrap_or(usize::MAX);
            let swap = diagonal.saturating_add(usize::from(x != *y));
            next.push(
                swap.min(above.saturating_add(1))
                    .min(left.saturating_add(1)),
            );
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_character_edits() {
        assert_eq!(distance("data_dri", "data_dir"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("grace_s", "grace_s"), 0);
    }
}
