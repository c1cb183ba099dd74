//! What a hostile peer could send: every field of a message changed in several
//! ways, generated from the message descriptors, so that a field that is added is
//! tested without a word here.
//!
//! The changes are made to the encoded bytes, not to decoded messages: an encoder
//! would repair half of them. Included by the tests of every crate that reads
//! messages from outside.

use std::path::PathBuf;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, Kind, MessageDescriptor};

/// All messages that are signed or travel between members.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("tests are run by cargo");
    let root = PathBuf::from(here).join("../../proto");
    let files = [
        "hashpact/core/v1/leaf.proto",
        "hashpact/core/v1/document.proto",
        "hashpact/core/v1/evidence.proto",
        "hashpact/core/v1/proof.proto",
        "hashpact/federation/v1/federation.proto",
    ];
    let set = protox::compile(files, [root]).unwrap();
    DescriptorPool::from_file_descriptor_set(set).unwrap()
});

pub(crate) fn message(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(&format!("hashpact.{name}"))
        .unwrap()
}

/// One changed message, with the field and what was done to it.
pub(crate) struct Mutation {
    pub(crate) what: String,
    pub(crate) bytes: Vec<u8>,
}

const VARINT: u8 = 0;
const DELIMITED: u8 = 2;
/// A length that is far beyond the message.
const HUGE_LENGTH: u64 = u32::MAX as u64;

/// One field as it stands in the bytes. All our fields are varints or delimited.
#[derive(Clone)]
pub(super) struct Record {
    number: u32,
    wire_type: u8,
    /// The varint's value or the delimited bytes.
    pub(super) value: Value,
}

#[derive(Clone)]
pub(super) enum Value {
    Varint(u64),
    Bytes(Vec<u8>),
}

impl Record {
    pub(super) fn varint(number: u32, value: u64) -> Self {
        let (wire_type, value) = (VARINT, Value::Varint(value));
        Self {
            number,
            wire_type,
            value,
        }
    }

    pub(super) fn delimited(number: u32, bytes: &[u8]) -> Self {
        let (wire_type, value) = (DELIMITED, Value::Bytes(bytes.to_vec()));
        Self {
            number,
            wire_type,
            value,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = key(self.number, self.wire_type);
        match &self.value {
            Value::Varint(value) => bytes.extend(varint(*value)),
            Value::Bytes(value) => {
                bytes.extend(varint(value.len() as u64));
                bytes.extend(value);
            }
        }
        bytes
    }
}

pub(super) fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}

pub(super) fn key(number: u32, wire_type: u8) -> Vec<u8> {
    varint(u64::from(number) << 3 | u64::from(wire_type))
}

fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// Takes a message that we encoded apart.
pub(super) fn records(mut bytes: &[u8]) -> Vec<Record> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes);
        let number = u32::try_from(tag >> 3).unwrap();
        let value = take_varint(&mut bytes);
        found.push(match (tag & 7) as u8 {
            VARINT => Record::varint(number, value),
            DELIMITED => {
                let (value, rest) = bytes.split_at(usize::try_from(value).unwrap());
                bytes = rest;
                Record::delimited(number, value)
            }
            other => panic!("wire type {other}"),
        });
    }
    found
}

/// The message with the record at `at` written as `instead`.
fn with(records: &[Record], at: usize, instead: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, record) in records.iter().enumerate() {
        if index == at {
            bytes.extend(instead);
        } else {
            bytes.extend(record.encode());
        }
    }
    bytes
}

/// Changes every field of a message, and of the messages in it, in several ways.
pub(crate) fn mutations(descriptor: &MessageDescriptor, bytes: &[u8]) -> Vec<Mutation> {
    let found = records(bytes);
    let mut all = Vec::new();
    let mut put = |what: String, bytes| all.push(Mutation { what, bytes });
    for (at, record) in found.iter().enumerate() {
        let field = descriptor.get_field(record.number).unwrap();
        let name = format!("{}#{at}", field.full_name());
        for (how, instead) in changes(record) {
            put(format!("{name} {how}"), with(&found, at, &instead));
        }
        if let (Kind::Message(inner), Value::Bytes(value)) = (field.kind(), &record.value) {
            for change in mutations(&inner, value) {
                let instead = Record::delimited(record.number, &change.bytes).encode();
                put(
                    format!("{name} > {}", change.what),
                    with(&found, at, &instead),
                );
            }
        }
    }
    for field in descriptor.fields() {
        if found.iter().all(|record| record.number != field.number()) {
            for (how, more) in additions(field.number()) {
                let what = format!("{} {how}", field.full_name());
                put(what, [bytes, &more].concat());
            }
        }
    }
    for (how, more) in additions(1_000) {
        put(
            format!("unknown field {how}"),
            [bytes, more.as_slice()].concat(),
        );
    }
    put("a group that nothing ends".to_owned(), {
        [bytes, &key(1, 3)].concat()
    });
    put("field number 0".to_owned(), [bytes, &[0x02, 0x00]].concat());
    put("cut by a byte".to_owned(), {
        bytes[..bytes.len().saturating_sub(1)].to_vec()
    });
    all.retain(|change| change.bytes != bytes);
    all
}

/// Other bytes in place of one field.
fn changes(record: &Record) -> Vec<(&'static str, Vec<u8>)> {
    let number = record.number;
    let mut all = vec![
        ("removed", Vec::new()),
        ("twice", record.encode().repeat(2)),
        ("endless", [key(number, VARINT), vec![0xff; 11]].concat()),
        ("as 64 bits", [key(number, 1), vec![1; 8]].concat()),
        ("as 32 bits", [key(number, 5), vec![1; 4]].concat()),
        (
            "too long for the message",
            [key(number, DELIMITED), varint(HUGE_LENGTH)].concat(),
        ),
    ];
    match &record.value {
        Value::Varint(value) => {
            let low = Record::varint(number, value ^ 1).encode();
            let high = Record::varint(number, value ^ (1 << 20)).encode();
            // Protobuf reads only the low half into a type of 32 bits.
            let beyond = Record::varint(number, value ^ (1 << 40)).encode();
            all.extend([
                ("lowest bit flipped", low),
                ("a high bit flipped", high),
                ("bit 40 flipped", beyond),
                ("zero", Record::varint(number, 0).encode()),
                ("huge", Record::varint(number, u64::MAX).encode()),
                ("as bytes", Record::delimited(number, &[1]).encode()),
                (
                    "not canonical",
                    [key(number, VARINT), not_canonical(*value)].concat(),
                ),
            ]);
        }
        Value::Bytes(value) => {
            let (mut first, mut last, mut longer) = (value.clone(), value.clone(), value.clone());
            first.iter_mut().take(1).for_each(|byte| *byte ^= 1);
            last.iter_mut().rev().take(1).for_each(|byte| *byte ^= 0x80);
            longer.push(b'x');
            let shorter = &value[..value.len().saturating_sub(1)];
            all.extend(
                [
                    ("first bit flipped", Record::delimited(number, &first)),
                    ("last bit flipped", Record::delimited(number, &last)),
                    ("longer", Record::delimited(number, &longer)),
                    ("shorter", Record::delimited(number, shorter)),
                    ("empty", Record::delimited(number, &[])),
                    ("large", Record::delimited(number, &[b'x'; 9_000])),
                    ("as a number", Record::varint(number, 1)),
                ]
                .map(|(how, record)| (how, record.encode())),
            );
        }
    }
    all
}

/// A varint with a byte more than it needs.
fn not_canonical(value: u64) -> Vec<u8> {
    let mut bytes = varint(value);
    if let Some(last) = bytes.last_mut() {
        *last |= 0x80;
    }
    bytes.push(0);
    bytes
}

/// A field that was absent, with values of each shape.
fn additions(number: u32) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("added as 1", Record::varint(number, 1).encode()),
        ("added as huge", Record::varint(number, u64::MAX).encode()),
        ("added empty", Record::delimited(number, &[]).encode()),
        ("added as text", Record::delimited(number, b"x").encode()),
        (
            "added as 32 bytes",
            Record::delimited(number, &[7; 32]).encode(),
        ),
    ]
}

/// Names the fields of a sample, and of the messages in it, that it leaves out, so
/// that a test sees when a new field is not in its sample.
pub(crate) fn absent(descriptor: &MessageDescriptor, bytes: &[u8]) -> Vec<String> {
    let found = records(bytes);
    let mut missing = Vec::new();
    for field in descriptor.fields() {
        let of_field: Vec<_> = found
            .iter()
            .filter(|record| record.number == field.number())
            .collect();
        if of_field.is_empty() && field.containing_oneof().is_none() {
            missing.push(field.full_name().to_owned());
        }
        if let Kind::Message(inner) = field.kind() {
            // A field counts where any one of the repeated messages has it.
            let of_each = of_field.iter().filter_map(|record| match &record.value {
                Value::Bytes(value) => Some(absent(&inner, value)),
                Value::Varint(_) => None,
            });
            let common = of_each.reduce(|a, b| a.into_iter().filter(|x| b.contains(x)).collect());
            missing.extend(common.unwrap_or_default());
        }
    }
    missing
}
