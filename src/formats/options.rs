//! What the operator says about a file that the file does not say itself.

use hashpact_core::signal::SignalKind;

use crate::field::Field;

/// Settings of a [`crate::Reader`]. The default fits most files.
#[derive(Debug, Clone)]
pub struct Options {
    /// The delimiter of a CSV file; `None` takes the most frequent of `,` `;` tab
    /// and `|` in the header.
    pub delimiter: Option<u8>,
    /// Whether the first row of a CSV file names the columns. Without one, columns
    /// are named by their number from 1.
    pub has_header: bool,
    /// The kind of bare values in a plain list, and of a `value` column without a
    /// `kind` column.
    pub kind: Option<SignalKind>,
    /// The country whose categories a VICS file uses, where its context does not
    /// say so.
    pub vics_country: Option<String>,
    /// Whether rejects of a list of links keep the line. ⚠ A link is content-like.
    pub keep_links: bool,
    /// Columns (by name, letter case does not matter) to fields, before the names
    /// of [`Field::parse`].
    pub(crate) columns: Vec<(String, Field)>,
    /// Values for fields that a row leaves empty.
    pub(crate) constants: Vec<(Field, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            delimiter: None,
            has_header: true,
            kind: None,
            vics_country: None,
            keep_links: false,
            columns: Vec::new(),
            constants: Vec::new(),
        }
    }
}

/// Says what is wrong with a setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Not of the form `name=field`.
    #[error("it is not of the form NAME=FIELD")]
    Form,
    /// The right side is no field.
    #[error("{0:?} is no field")]
    UnknownField(String),
    /// A field that cannot be the same in every row.
    #[error("the {0} cannot be the same in every row")]
    NotConstant(&'static str),
}

impl Options {
    /// Takes a `--column NAME=FIELD`; `ignore` as the field leaves the column out.
    ///
    /// # Errors
    /// No `=`, an empty name, or a field that is not known.
    pub fn column(&mut self, setting: &str) -> Result<(), OptionsError> {
        let (name, field) = halves(setting.rsplit_once('='))?;
        let field = Field::parse(field).ok_or_else(|| unknown(field))?;
        self.columns.push((name.to_lowercase(), field));
        Ok(())
    }

    /// Takes a `--constant FIELD=VALUE`, for rows that leave the field empty.
    ///
    /// # Errors
    /// No `=`, a field that is not known, or one that differs from row to row.
    pub fn constant(&mut self, setting: &str) -> Result<(), OptionsError> {
        let (field, value) = halves(setting.split_once('='))?;
        let field = Field::parse(field).ok_or_else(|| unknown(field))?;
        match field {
            Field::MediaKind
            | Field::Classification
            | Field::ClassScheme
            | Field::Labels
            | Field::Basis
            | Field::FirstSeen
            | Field::Expires
            | Field::Kind => self.constants.push((field, value.to_owned())),
            Field::Reference
            | Field::Signal(_)
            | Field::PdqQuality
            | Field::Value
            | Field::Signals
            | Field::State
            | Field::Ignored => return Err(OptionsError::NotConstant(field.name())),
        }
        Ok(())
    }

    /// The field of the column `name`.
    pub(crate) fn field(&self, name: &str) -> Option<Field> {
        let lower = name.to_lowercase();
        let named = self.columns.iter().find(|(column, _)| *column == lower);
        named.map_or_else(|| Field::parse(name), |(_, field)| Some(*field))
    }
}

fn halves<'a>(parts: Option<(&'a str, &'a str)>) -> Result<(&'a str, &'a str), OptionsError> {
    let (left, right) = parts.ok_or(OptionsError::Form)?;
    let (left, right) = (left.trim(), right.trim());
    if left.is_empty() || right.is_empty() {
        return Err(OptionsError::Form);
    }
    Ok((left, right))
}

/// A field's name as given, unless it is long enough to be a signal's value.
fn unknown(field: &str) -> OptionsError {
    OptionsError::UnknownField(field.chars().take(24).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_renamed_or_left_out() {
        let mut options = Options::default();
        options.column("Hash A=md5").unwrap();
        options.column("md5=ignore").unwrap();
        assert_eq!(options.field("hash a"), Field::parse("md5"));
        assert_eq!(options.field("MD5"), Some(Field::Ignored));
        assert_eq!(options.field("sha1"), Field::parse("sha1"));
    }

    #[test]
    fn wrong_settings_are_refused() {
        let mut options = Options::default();
        assert_eq!(options.column("md5"), Err(OptionsError::Form));
        assert_eq!(options.column("=md5"), Err(OptionsError::Form));
        assert!(matches!(
            options.column("a=colour"),
            Err(OptionsError::UnknownField(_))
        ));
        assert!(matches!(
            options.constant("md5=00"),
            Err(OptionsError::NotConstant(_))
        ));
    }
}
