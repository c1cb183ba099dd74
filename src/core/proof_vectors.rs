//! The golden vectors of proof and evidence files: `tests/vectors/proof.json`.
//! `tests/verify_proof_file.py --vectors` reads them by the documents alone.

use bytes::Bytes;
use data_encoding::HEXLOWER;

use crate::evidence_file::{EvidenceFile, tests as evidence};
use crate::id::Digest;
use crate::proof::{Proof, tests as proof};

/// A file's name, the file, and what the other implementation says of it.
type Case = (&'static str, Vec<u8>, String);

fn proof_case(name: &'static str, proof: &Proof, named_by: &str, size: u64) -> Case {
    let shows = format!(
        r#"{{"kind": "proof", "entry": "north/confirmed#2", "size": {size}, "epoch": 0, "named_by": {named_by}, "cosigned": {}, "threshold": 3, "roster": 3}}"#,
        proof.cosignatures.len()
    );
    (name, proof.encode().unwrap(), shows)
}

fn cases() -> (Digest, Vec<Case>) {
    let (genesis, erased) = proof::sample();
    let (_, published) = proof::proof_at(proof::ENTRY, 4, &[], &[]);
    let mut cases = vec![
        proof_case("published", &published, "[]", 4),
        proof_case("erased", &erased, "[4, 7, 8]", 9),
    ];
    // Of two cosignatures one is by a replaced identity key, as the head is.
    let replaced = r#"{"kind": "proof", "entry": "north/confirmed#2", "size": 9, "epoch": 0, "named_by": [4], "cosigned": 1, "threshold": 3, "roster": 4, "identity_replaced_in": 4}"#;
    let file = proof::replaced::sample().encode().unwrap();
    cases.push(("by a replaced identity key", file, replaced.to_owned()));
    let revoked = r#"{"kind": "proof", "entry": "north/confirmed#2", "size": 9, "epoch": 0, "named_by": [4, 7, 8], "cosigned": 3, "threshold": 3, "roster": 4, "epoch_closed_in": 4, "key_revoked_in": 4}"#;
    let file = proof::revoked::sample().encode().unwrap();
    cases.push(("by a revoked feed key", file, revoked.to_owned()));
    let fork = r#"{"kind": "fork", "member": "north", "set": "confirmed", "sizes": [60, 100], "epoch": 0}"#;
    let cards = r#"{"kind": "node-cards", "member": "north", "version": 3}"#;
    let rosters = r#"{"kind": "rosters", "version": 3}"#;
    let closed =
        r#"{"kind": "node-cards", "member": "north", "version": 3, "identity_replaced_in": 3}"#;
    let stolen = r#"{"kind": "fork", "member": "north", "set": "confirmed", "sizes": [60, 100], "epoch": 0, "epoch_closed_in": 3, "key_revoked_in": 3}"#;
    let evidence: [(&str, (Digest, EvidenceFile), &str); 5] = [
        ("fork", evidence::forked(), fork),
        (
            "fork by a revoked feed key",
            evidence::by_a_revoked_key(),
            stolen,
        ),
        ("two cards", evidence::two_cards(), cards),
        (
            "two cards of a replaced identity key",
            evidence::rotated(evidence::two_cards()),
            closed,
        ),
        ("two rosters", evidence::two_rosters(), rosters),
    ];
    for (name, (of, file), shows) in evidence {
        assert_eq!(of, genesis, "one coalition");
        cases.push((name, file.encode(), shows.to_owned()));
    }
    (genesis, cases)
}

#[test]
fn the_vectors_of_proofs_and_evidence_are_what_this_version_writes() {
    let (genesis, cases) = cases();
    for (name, file, _) in &cases {
        let file = Bytes::copy_from_slice(file);
        let proof = Proof::decode(&file).map(|proof| proof.verify(&genesis).is_ok());
        let evidence = EvidenceFile::decode(&file).map(|file| file.verify(&genesis).is_ok());
        assert!(proof == Ok(true) || evidence == Ok(true), "{name}");
    }
    let files = cases.iter().map(|(name, file, shows)| {
        let file = HEXLOWER.encode(file);
        format!("    \"{name}\": {{\n      \"shows\": {shows},\n      \"file\": \"{file}\"\n    }}")
    });
    let files = files.collect::<Vec<_>>().join(",\n");
    let text = format!("{{\n  \"genesis\": \"{genesis}\",\n  \"files\": {{\n{files}\n  }}\n}}\n");
    let path = crate::here().join("../../tests/vectors/proof.json");
    if std::env::var_os("HASHPACT_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
}
