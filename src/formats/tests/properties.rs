//! No input panics, every line is accounted for, and an export is read again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::naive_bytecount,
    reason = "a failed unwrap is a failed test"
)]

use hashpact_core::leaf::{Basis, Classification, MediaKind};
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_formats::{
    CsvExport, ExportRow, Format, Item, JsonExport, Options, Reader, Record, State,
};
use proptest::prelude::*;

const FORMATS: [Format; 5] = [
    Format::Csv,
    Format::JsonLines,
    Format::List,
    Format::Vics,
    Format::Urls,
];

/// Text made of what the formats are made of, so that it gets deep into them.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop::sample::select(vec![
        "md5",
        "sha256",
        "pdq,",
        "id,md5\n",
        ",",
        ";",
        "\n",
        "\r\n",
        "\"",
        "\"\"",
        "#",
        ":",
        "=",
        "{",
        "}",
        "[",
        "]",
        "\\",
        " ",
        "  *",
        "(",
        ") = ",
        "null",
        "true",
        "1",
        "\0",
        "\u{feff}",
        "00112233445566778899aabbccddeeff",
        "\"value\":[",
        "\"Media\":[",
        "\"MD5\":",
        "\"MediaID\":",
        "\"odata.metadata\":\"x#Cases\"",
        "PDQ:",
        "MD5 (",
        "https://",
        "a.example",
        "/b?c",
        "é",
    ]);
    prop::collection::vec(fragment, 0..60).prop_map(|parts| parts.concat().into_bytes())
}

fn check(format: Format, input: &[u8]) -> Result<(), TestCaseError> {
    let mut reader = Reader::new(format, input, Options::default());
    let mut failed = false;
    while let Some(item) = reader.next() {
        failed = item.is_err();
        prop_assert!(failed || reader.counters().is_balanced());
    }
    if !failed && format != Format::Vics {
        let text = input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input);
        let ends = text.iter().filter(|byte| **byte == b'\n').count();
        let open = !input.is_empty() && !input.ends_with(b"\n");
        prop_assert_eq!(reader.counters().lines, (ends + usize::from(open)) as u64);
    }
    Ok(())
}

fn signal() -> impl Strategy<Value = Signal> {
    let kinds = prop::sample::select(vec![
        (SignalKind::Md5, 16),
        (SignalKind::Sha1, 20),
        (SignalKind::Sha256, 32),
        (SignalKind::Pdq, 32),
        (SignalKind::PhotoDna, 144),
        (SignalKind::Vpdq, 37),
        (SignalKind::Netclean, 9),
    ]);
    (kinds, any::<u8>(), prop::option::of(0..=100_u8)).prop_map(
        |((kind, length), byte, quality)| {
            let byte = if kind == SignalKind::Vpdq {
                byte % 101
            } else {
                byte
            };
            let quality = quality.filter(|_| kind == SignalKind::Pdq);
            Signal::new(kind, vec![byte; length].into(), quality).unwrap()
        },
    )
}

fn row() -> impl Strategy<Value = ExportRow> {
    let text = r#"['=+@a;\\",ü#:-]([a-z ;,'"\\=]{0,8}[a-z'"=])?"#;
    let signals = prop::collection::vec(signal(), 1..6);
    let media = prop::sample::select(vec![None, Some(MediaKind::Image), Some(MediaKind::Url)]);
    let basis = prop::sample::select(vec![None, Some(Basis::Human), Some(Basis::Inherited)]);
    let times = prop::option::of(1..4_000_000_000_000_u64);
    (
        (
            signals,
            prop::option::of(text),
            prop::collection::vec(text, 0..4),
        ),
        (media, basis, times.clone(), times),
    )
        .prop_map(
            |((mut signals, reference, mut labels), (media_kind, basis, first, last))| {
                signals.sort();
                signals.dedup_by(|a, b| a.kind() == b.kind() && a.value() == b.value());
                labels.sort();
                labels.dedup();
                ExportRow {
                    set: "northstar/confirmed".into(),
                    entry: "northstar/confirmed#1".into(),
                    publisher: "northstar".into(),
                    state: State::Active,
                    reference,
                    media_kind,
                    signals,
                    classification: Classification::parse("tc:A1").ok(),
                    labels,
                    basis,
                    first_seen_ms: first,
                    expires_ms: last,
                    verdict: None,
                }
            },
        )
}

fn expected(row: &ExportRow) -> Record {
    Record {
        line: 0,
        reference: row.reference.clone(),
        signals: row.signals.clone(),
        media_kind: row.media_kind,
        classification: row.classification.clone(),
        labels: row.labels.clone(),
        basis: row.basis,
        first_seen_ms: row.first_seen_ms,
        expires_ms: row.expires_ms,
    }
}

/// Reads an export; order of signals is not part of an entry.
fn imported(format: Format, input: &[u8]) -> Vec<Record> {
    let reader = Reader::new(format, input, Options::default());
    reader
        .map(|item| match item.unwrap() {
            Item::Record(mut record) => {
                record.line = 0;
                record.signals.sort();
                record
            }
            Item::Reject(reject) => panic!("{reject:?}"),
        })
        .collect()
}

proptest! {
    #[test]
    fn any_bytes_are_accounted_for(input in prop::collection::vec(any::<u8>(), 0..400)) {
        for format in FORMATS {
            check(format, &input)?;
        }
    }

    #[test]
    fn any_fragments_are_accounted_for(input in fragments()) {
        for format in FORMATS {
            check(format, &input)?;
        }
    }

    #[test]
    fn an_export_is_imported_as_it_was(rows in prop::collection::vec(row(), 1..4)) {
        let expected: Vec<Record> = rows.iter().map(expected).collect();
        let mut csv = CsvExport::new(Vec::new()).unwrap();
        let mut json = JsonExport::new(Vec::new());
        for row in &rows {
            csv.write(row).unwrap();
            json.write(row).unwrap();
        }
        let csv = csv.finish().unwrap();
        prop_assert_eq!(&imported(Format::Csv, &csv), &expected);
        let json = json.finish().unwrap();
        prop_assert_eq!(&imported(Format::JsonLines, &json), &expected);
    }
}

fn retracted() -> ExportRow {
    let value = vec![1; 16].into();
    ExportRow {
        set: "a/b".into(),
        entry: "a/b#1".into(),
        publisher: "a".into(),
        state: State::Retracted,
        reference: None,
        media_kind: None,
        signals: vec![Signal::new(SignalKind::Md5, value, None).unwrap()],
        classification: None,
        labels: Vec::new(),
        basis: None,
        first_seen_ms: None,
        expires_ms: None,
        verdict: None,
    }
}

#[test]
fn a_verdict_stands_last_where_it_is_asked_for_and_is_not_imported() {
    let row = ExportRow {
        state: State::Active,
        verdict: Some("enforce".to_owned()),
        ..retracted()
    };
    let mut csv = CsvExport::with_verdicts(Vec::new()).unwrap();
    csv.write(&row).unwrap();
    let csv = csv.finish().unwrap();
    let text = String::from_utf8(csv.clone()).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().ends_with(",expires,verdict"));
    assert!(lines.next().unwrap().ends_with(",enforce"));
    let mut plain = CsvExport::new(Vec::new()).unwrap();
    plain.write(&row).unwrap();
    let plain = plain.finish().unwrap();
    assert!(
        !String::from_utf8(plain.clone())
            .unwrap()
            .contains("enforce")
    );
    let (with, without) = (imported(Format::Csv, &csv), imported(Format::Csv, &plain));
    assert_eq!(with[0].signals, without[0].signals);
    assert_eq!(with[0].labels, without[0].labels);
    let mut json = JsonExport::new(Vec::new());
    json.write(&row).unwrap();
    let json = json.finish().unwrap();
    assert!(
        String::from_utf8(json.clone())
            .unwrap()
            .contains("\"verdict\":\"enforce\"")
    );
    assert_eq!(imported(Format::JsonLines, &json)[0].signals, row.signals);
}

#[test]
fn a_retracted_row_of_an_export_is_not_imported() {
    let row = retracted();
    let mut csv = CsvExport::new(Vec::new()).unwrap();
    csv.write(&row).unwrap();
    let csv = csv.finish().unwrap();
    let mut reader = Reader::new(Format::Csv, &csv[..], Options::default());
    let Some(Ok(Item::Reject(reject))) = reader.next() else {
        panic!("it is imported");
    };
    assert_eq!(reject.reason.code(), "withdrawn");
}

#[test]
fn a_value_that_looks_like_a_formula_survives_its_export() {
    // In base64 these bytes begin with `+`, which a spreadsheet takes for a formula.
    let value = vec![0xfb; 144].into();
    let photodna = Signal::new(SignalKind::PhotoDna, value, None).unwrap();
    assert!(photodna.to_text().starts_with('+'));
    let row = ExportRow {
        signals: vec![photodna.clone()],
        state: State::Active,
        ..retracted()
    };
    let mut csv = CsvExport::new(Vec::new()).unwrap();
    csv.write(&row).unwrap();
    let records = imported(Format::Csv, &csv.finish().unwrap());
    assert_eq!(records[0].signals, [photodna]);
}
