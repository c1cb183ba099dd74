//! Bounds on what a file may contain, each with its reason.

/// A line of a text format, or a CSV record with its line breaks: eight times the
/// largest leaf payload, so no line within it is refused that could be published.
pub const LINE_MAX_BYTES: usize = 64 * 1024;
/// What a reject keeps of its line.
pub const ORIGINAL_MAX_BYTES: usize = 4 * 1024;
/// What [`crate::detect`] wants to see of a file.
pub const DETECT_BYTES: usize = 8 * 1024;
/// Columns of a CSV file: more than any list of the field has.
pub(crate) const COLUMNS_MAX: usize = 1_024;
/// Lines that one CSV record may span, so that a stray quote costs little time.
pub(crate) const RECORD_LINES_MAX: usize = 32;
/// One media entry of a VICS file: one with thousands of file occurrences fits.
pub(crate) const VICS_ENTRY_MAX_BYTES: usize = 1024 * 1024;
/// Nesting within one media entry; the model needs four levels.
pub(crate) const VICS_DEPTH_MAX: u32 = 32;
/// A key of a VICS object, or its context: longer ones are not ours.
pub(crate) const VICS_TEXT_MAX_BYTES: usize = 1_024;
/// Signals of one row or entry, as in a publish leaf.
pub(crate) const SIGNALS_MAX: usize = 32;
/// Labels of one row or entry, as in a publish leaf.
pub(crate) const LABELS_MAX: usize = 32;
/// A label, as in a publish leaf.
pub(crate) const LABEL_MAX_BYTES: usize = 64;
/// A source's reference, as in a publish leaf; longer ones are refused, since a
/// shortened one could name another entry.
pub(crate) const REFERENCE_MAX_BYTES: usize = 256;
/// The read buffer: large enough that a system call costs nothing per line.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;
