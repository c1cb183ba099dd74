//! The two things that a certificate is read for: whose key it carries, and when
//! a company's own runs out.

use hashpact_core::id::{Digest, UnixMillis};
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

/// The SHA-256 of a certificate's `SubjectPublicKeyInfo`, which node cards name.
///
/// # Errors
/// When the bytes are no X.509 certificate.
pub fn spki_digest(certificate: &CertificateDer<'_>) -> Result<Digest, rustls::Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Digest::of(&parsed.subject_public_key_info()))
}

/// When a certificate runs out; for display and alarms, never for a decision.
/// Times before 1970 read as 1970, `None` is a certificate without a time.
#[must_use]
pub fn not_after(certificate: &CertificateDer<'_>) -> Option<UnixMillis> {
    // RFC 5280 4.1: Certificate { TBSCertificate { [0] version, serialNumber,
    // signature, issuer, validity { notBefore, notAfter }, … } … }
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut fields, _) = element(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        (_, fields) = element(fields, VERSION)?;
    }
    let (_, fields) = element(fields, INTEGER)?;
    let (_, fields) = element(fields, SEQUENCE)?;
    let (_, fields) = element(fields, SEQUENCE)?;
    let (validity, _) = element(fields, SEQUENCE)?;
    let (_, after) = any(validity)?;
    let tag = *after.first()?;
    let (time, _) = element(after, tag)?;
    match tag {
        UTC_TIME => {
            let year = digits(time.get(..2)?)?;
            // RFC 5280 4.1.2.5.1: 50 to 99 are 1950 to 1999.
            let year = if year < 50 { year + 2000 } else { year + 1900 };
            instant(year, time.get(2..)?)
        }
        GENERALIZED_TIME => instant(digits(time.get(..4)?)?, time.get(4..)?),
        _ => None,
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// Splits off one DER element of this tag: its content, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    (bytes.first() == Some(&tag)).then(|| any(bytes)).flatten()
}

/// Splits off one DER element of any tag.
fn any(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let first = usize::from(*bytes.get(1)?);
    let (length, header) = if first < 0x80 {
        (first, 2)
    } else {
        let count = first & 0x7f;
        if !(1..=3).contains(&count) {
            return None;
        }
        let length = bytes.get(2..2 + count)?;
        let length = length.iter().fold(0, |n, b| n << 8 | usize::from(*b));
        (length, 2 + count)
    };
    bytes.get(header..)?.split_at_checked(length)
}

/// Reads decimal digits.
fn digits(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads `MMDDhhmmssZ` of a year.
fn instant(year: i64, rest: &[u8]) -> Option<UnixMillis> {
    let mut parts = [0; 5];
    for (part, text) in parts.iter_mut().zip(rest.chunks(2)) {
        *part = digits(text)?;
    }
    let [month, day, hour, minute, second] = parts;
    let days = days_from_civil(year, month, day);
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(UnixMillis(u64::try_from(seconds).unwrap_or(0) * 1_000))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Source: Howard
/// Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = (month + 9) % 12;
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_forms_are_read() {
        let time = |year, rest: &str| instant(year, rest.as_bytes()).map(|t| t.0);
        assert_eq!(time(1970, "0101000000Z"), Some(0));
        assert_eq!(time(2026, "1122053958Z"), Some(1_795_325_998_000));
        assert_eq!(time(2000, "0229120000Z"), Some(951_825_600_000));
        assert_eq!(time(2000, "02x9120000Z"), None);
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_end() {
        for bytes in [
            &b""[..],
            b"\x30",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x03\x30\x01",
        ] {
            assert_eq!(not_after(&CertificateDer::from(bytes)), None);
        }
    }
}
