//! The synthetic sample files, and bad input of every kind, through the readers.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::Read;

use hashpact_core::signal::{Signal, SignalKind};
use hashpact_formats::{FatalError, Format, Item, Options, Reader, Record, Reject};

const SET_CSV: &[u8] = include_bytes!("../../../tests/data/set.csv");
const SET_JSONL: &[u8] = include_bytes!("../../../tests/data/set.jsonl");
const SHA256SUM: &[u8] = include_bytes!("../../../tests/data/sha256sum.txt");
const VICS_MEDIA: &[u8] = include_bytes!("../../../tests/data/vics-2.0-media.json");
const VICS_CASES: &[u8] = include_bytes!("../../../tests/data/vics-1.3-cases.json");
const MD5: &str = "00112233445566778899aabbccddeeff";

struct Outcome {
    records: Vec<Record>,
    rejects: Vec<Reject>,
    warnings: Vec<String>,
    counters: hashpact_formats::Counters,
}

fn read_with(input: impl Read, name: &str, options: Options) -> Result<Outcome, FatalError> {
    let mut reader = Reader::detect(input, name, options)?;
    let (mut records, mut rejects) = (Vec::new(), Vec::new());
    for item in &mut reader {
        match item? {
            Item::Record(record) => records.push(record),
            Item::Reject(reject) => rejects.push(reject),
        }
    }
    let counters = reader.counters();
    assert!(counters.is_balanced(), "{counters:?}");
    assert_eq!(counters.records, records.len() as u64);
    assert_eq!(counters.rejects, rejects.len() as u64);
    let warnings = reader.warnings().iter().map(ToString::to_string).collect();
    Ok(Outcome {
        records,
        rejects,
        warnings,
        counters,
    })
}

fn read(input: &[u8], name: &str) -> Outcome {
    read_with(input, name, Options::default()).unwrap()
}

fn codes(read: &Outcome) -> Vec<(u64, &'static str)> {
    let code = |reject: &Reject| (reject.line, reject.reason.code());
    read.rejects.iter().map(code).collect()
}

fn class(record: &Record) -> Option<String> {
    record.classification.as_ref().map(ToString::to_string)
}

#[test]
fn the_csv_sample_is_read() {
    let read = read(SET_CSV, "set.csv");
    assert_eq!(codes(&read), [(5, "withdrawn"), (6, "bad_signal")]);
    assert_eq!(read.warnings, ["columns that are not imported: case_note"]);
    let first = &read.records[0];
    assert_eq!(first.reference.as_deref(), Some("syn-0001"));
    assert_eq!(class(first), Some("tc:A1".to_owned()));
    assert_eq!(first.first_seen_ms, Some(1_767_607_200_000));
    let kinds: Vec<_> = first
        .signals
        .iter()
        .map(|s| (s.kind(), s.quality()))
        .collect();
    assert_eq!(
        kinds,
        [
            (SignalKind::Md5, None),
            (SignalKind::Sha256, None),
            (SignalKind::Pdq, Some(90))
        ]
    );
    assert_eq!(read.records[1].signals.len(), 5);
}

#[test]
fn the_json_lines_sample_is_read() {
    let read = read(SET_JSONL, "set.jsonl");
    assert!(read.rejects.is_empty());
    assert_eq!(read.warnings, ["columns that are not imported: weather"]);
    assert_eq!(read.records[0].labels, ["one", "two; three"]);
    assert_eq!(read.records[0].signals[0].quality(), Some(88));
    assert_eq!(read.records[1].labels, ["one", "two"]);
}

#[test]
fn what_sha256sum_prints_is_read_without_names() {
    let read = read(SHA256SUM, "SHA256SUMS");
    assert!(read.rejects.is_empty(), "{:?}", read.rejects);
    assert_eq!(read.records.len(), 4);
    for record in &read.records {
        assert_eq!(record.signals[0].kind(), SignalKind::Sha256);
        assert_eq!(record.reference, None);
    }
}

#[test]
fn a_vics_set_of_media_is_read() {
    let read = read(VICS_MEDIA, "vics.json");
    assert_eq!(codes(&read), [(3, "bad_signal")]);
    let first = &read.records[0];
    assert_eq!(first.reference.as_deref(), Some("1001"));
    assert_eq!(class(first), Some("vics-us:1".to_owned()));
    assert_eq!(
        first.labels,
        [
            "synthetic",
            "second",
            "series:synthetic-series-1",
            "victim-identified",
            "distributed"
        ]
    );
    assert_eq!(first.signals.len(), 3);
    assert_eq!(read.records[1].classification, None);
}

#[test]
fn a_vics_set_of_cases_is_read() {
    let read = read(VICS_CASES, "vics.json");
    assert!(read.rejects.is_empty(), "{:?}", read.rejects);
    let classes: Vec<_> = read.records.iter().filter_map(class).collect();
    assert_eq!(classes, ["vics:2", "vics:0", "vics:1"]);
    let kinds: Vec<_> = read.records[0].signals.iter().map(Signal::kind).collect();
    assert_eq!(kinds, [SignalKind::PhotoDna, SignalKind::Md5]);
}

#[test]
fn file_names_and_exif_of_vics_reach_nothing() {
    for sample in [VICS_MEDIA, VICS_CASES] {
        let read = read(sample, "vics.json");
        let records = format!("{:?}", read.records);
        assert!(!records.contains("secret"));
        for reject in read.rejects {
            let original = String::from_utf8(reject.original).unwrap();
            assert!(!original.contains("secret"), "{original}");
            assert!(original.contains("XYZ"));
        }
    }
}

#[test]
fn every_cut_of_a_vics_file_keeps_what_was_whole_and_says_where_it_ends() {
    let whole = read(VICS_MEDIA, "vics.json").records;
    for cut in 3..VICS_MEDIA.trim_ascii_end().len() {
        let mut reader = Reader::new(Format::Vics, &VICS_MEDIA[..cut], Options::default());
        let items: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        assert!(reader.counters().is_balanced());
        if cut > 3 {
            let Some(Item::Reject(reject)) = items.last() else {
                panic!("the cut at {cut} is not reported");
            };
            assert_eq!(reject.reason.code(), "truncated", "at {cut}");
        }
        let records = items.into_iter().filter_map(|item| match item {
            Item::Record(record) => Some(record),
            Item::Reject(_) => None,
        });
        assert!(records.zip(&whole).all(|(cut, whole)| cut == *whole));
    }
}

#[test]
fn an_empty_file_has_no_items_in_any_format() {
    for format in [Format::Csv, Format::JsonLines, Format::List, Format::Vics] {
        let mut reader = Reader::new(format, &b""[..], Options::default());
        assert!(reader.next().is_none());
        assert_eq!(reader.counters().lines, 0);
    }
}

#[test]
fn mark_crlf_blank_and_comment_lines_are_counted_and_skipped() {
    let text = format!("\u{feff}# made by x\r\nid,md5\r\n\r\na,{MD5}\r\nb,{MD5}");
    let read = read(text.as_bytes(), "x.csv");
    assert_eq!(read.records.len(), 2);
    let counters = read.counters;
    let skipped = (counters.comments, counters.header, counters.blank);
    assert_eq!((counters.lines, skipped), (5, (1, 1, 1)));
}

#[test]
fn bad_rows_are_refused_one_by_one() {
    let rows = format!(
        "id,md5,pdq_quality,first_seen,labels\n\
         a,{MD5},,,\n\
         b,0011,,,\n\
         c,zz112233445566778899aabbccddeeff,,,\n\
         d,{MD5},101,,\n\
         e,{MD5},,yesterday,\n\
         f,{MD5}\n\
         g,,,,\n\
         h\0,{MD5},,,\n\
         i,\"{MD5}\"x,,,\n\
         k,\"{MD5},,,\n\
         l,{MD5},,,\n"
    );
    let mut rows = rows.into_bytes();
    rows.extend(b"m\xff,00112233445566778899aabbccddeeff,,,\n");
    let read = read(&rows, "x.csv");
    assert_eq!(
        codes(&read),
        [
            (3, "bad_signal"),
            (4, "bad_signal"),
            (5, "bad_quality"),
            (6, "bad_time"),
            (7, "cell_count"),
            (8, "no_signal"),
            (9, "control_character"),
            (10, "text_after_quote"),
            (11, "unclosed_quote"),
            (13, "not_utf8"),
        ]
    );
    assert_eq!(read.records.len(), 2);
    for reject in &read.rejects {
        let reason = reject.reason.to_string();
        assert!(
            !reason.contains("0011") && !reason.contains("zz11"),
            "{reason}"
        );
    }
}

#[test]
fn a_row_with_a_good_and_a_bad_signal_is_refused_whole() {
    let text = format!("md5,sha1\n{MD5},0011\n");
    assert_eq!(codes(&read(text.as_bytes(), "x.csv")), [(2, "bad_signal")]);
}

#[test]
fn a_quoted_cell_may_have_line_breaks() {
    let text = format!("note,md5\n\"a\nb\nc\",{MD5}\nx,{MD5}\n");
    let read = read(text.as_bytes(), "x.csv");
    assert_eq!(read.records.len(), 2);
    assert_eq!((read.counters.continued, read.counters.lines), (2, 5));
    assert_eq!(read.records[1].line, 5);
}

#[test]
fn a_header_without_a_signal_ends_the_import() {
    let read = read_with(&b"name,colour\na,b\n"[..], "x.csv", Options::default());
    assert_eq!(read.err().unwrap().code(), "no_signal_column");
}

#[test]
fn columns_are_renamed_numbered_and_completed() {
    let mut options = Options::default();
    options.column("Prüfsumme=md5").unwrap();
    options.constant("class=A1").unwrap();
    options.constant("class_scheme=tc").unwrap();
    let text = format!("Prüfsumme;x\n{MD5};y\n");
    let read = read_with(text.as_bytes(), "x.csv", options).unwrap();
    assert_eq!(class(&read.records[0]), Some("tc:A1".to_owned()));

    let mut options = Options::default();
    options.has_header = false;
    options.column("2=md5").unwrap();
    let text = format!("a,{MD5}\nb,{MD5}\n");
    let read = read_with(text.as_bytes(), "x.csv", options).unwrap();
    assert_eq!((read.records.len(), read.counters.header), (2, 0));
}

#[test]
fn kind_and_value_columns_make_a_signal() {
    let text = format!("kind,value\nMD5,{MD5}\nCRC,{MD5}\n,{MD5}\nMD5,\n");
    let read = read(text.as_bytes(), "x.csv");
    assert_eq!(read.records.len(), 1);
    assert_eq!(
        codes(&read),
        [(3, "unknown_kind"), (4, "half_signal"), (5, "half_signal")]
    );
}

#[test]
fn plain_lists_are_read_and_ambiguous_values_are_not_guessed() {
    use SignalKind::{Md5, Pdq, Sha1, Sha256};

    let long = MD5.repeat(2);
    let text = format!(
        "# list\n{MD5}\n{}\nPDQ:{long}\npdq {long}\nPDQ:{long}#80\n{long}\nnonsense\nfoo:{MD5}\nMD5 (a) = {MD5}\n{long}  a b\n",
        "0".repeat(40)
    );
    let plain = read(text.as_bytes(), "x");
    let kinds: Vec<_> = plain.records.iter().map(|r| r.signals[0].kind()).collect();
    assert_eq!(kinds, [Md5, Sha1, Pdq, Pdq, Pdq, Md5, Sha256]);
    assert_eq!(
        codes(&plain),
        [
            (7, "ambiguous_kind"),
            (8, "unrecognised"),
            (9, "unknown_kind")
        ]
    );
    let mut options = Options::default();
    options.kind = Some(Pdq);
    let read = read_with(format!("{long}\n").as_bytes(), "x", options).unwrap();
    assert_eq!(read.records[0].signals[0].kind(), Pdq);
}

#[test]
fn names_in_another_encoding_do_not_matter_in_checksum_lists() {
    let mut text = MD5.as_bytes().to_vec();
    text.extend(b"  caf\xe9.jpg\n");
    assert_eq!(read(&text, "md5sums").records.len(), 1);
}

#[test]
fn broken_and_cut_json_lines_are_refused_with_the_place() {
    let text = format!("{{\"md5\":\"{MD5}\"}}\n[1]\n{{\"md5\":{{}}}}\n{{\"md5\":\"{MD5}");
    let read = read(text.as_bytes(), "x.jsonl");
    assert_eq!(
        codes(&read),
        [(2, "bad_json"), (3, "bad_json"), (4, "bad_json")]
    );
    let deep = "[".repeat(60_000);
    let mut reader = Reader::new(Format::JsonLines, deep.as_bytes(), Options::default());
    assert!(matches!(reader.next(), Some(Ok(Item::Reject(_)))));
}

#[test]
fn a_gigabyte_without_a_line_end_is_one_reject() {
    let begin = format!("md5\n{MD5}\n");
    let end = format!("\n{MD5}\n");
    let long = std::io::repeat(b'a').take(1 << 30);
    let input = begin.as_bytes().chain(long).chain(end.as_bytes());
    let read = read_with(input, "x.csv", Options::default()).unwrap();
    assert_eq!(codes(&read), [(3, "line_too_long")]);
    assert_eq!(read.records.len(), 2);
}

#[test]
fn a_huge_or_deep_vics_entry_is_one_reject() {
    let long = "x".repeat(2 << 20);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let text = format!(
        "{{\"odata.metadata\":\"x#Media\",\"other\":\"{long}\",\"value\":[\
         {{\"MediaID\":1,\"Tags\":\"{long}\"}},{{\"MediaID\":2,\"x\":{deep}}},\
         7,{{\"MediaID\":3,\"MD5\":\"{MD5}\"}},{{\"MediaID\":4,\"MD5\":[1]}}]}}"
    );
    let mut reader = Reader::new(Format::Vics, text.as_bytes(), Options::default());
    let codes: Vec<_> = reader
        .by_ref()
        .map(|item| match item.unwrap() {
            Item::Record(_) => "record",
            Item::Reject(reject) => reject.reason.code(),
        })
        .collect();
    assert_eq!(
        codes,
        [
            "entry_too_long",
            "too_deep",
            "bad_json",
            "record",
            "bad_json"
        ]
    );
}

#[test]
fn a_read_that_fails_is_an_error_and_ends_the_reader() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    for format in [Format::Csv, Format::JsonLines, Format::List, Format::Vics] {
        let mut reader = Reader::new(format, Failing, Options::default());
        assert!(matches!(reader.next(), Some(Err(FatalError::Io { .. }))));
        assert!(reader.next().is_none());
    }
}
