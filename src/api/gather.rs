//! What bounds the selectors of one retraction or erasure, which are all in memory
//! before anything is done.

use prost::Message as _;
use tonic::Status;

use crate::error::misuse;
use crate::wire;

/// Selectors of one retraction, all of which are held in memory.
pub const SELECTORS_MAX: usize = 1_000_000;
/// Bytes of one selector: a source reference and what is around it.
const SELECTOR_MAX_BYTES: usize = 16 * 1024;
/// Bytes of all of them.
const SELECTORS_MAX_BYTES: usize = 256 * 1024 * 1024;

/// How much was gathered.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    count: usize,
    bytes: usize,
}

impl Gathered {
    /// Counts what another message brings.
    pub(crate) fn add(&mut self, what: &str, selectors: &[wire::Selector]) -> Result<(), Status> {
        for selector in selectors {
            let length = selector.encoded_len();
            if length > SELECTOR_MAX_BYTES {
                return Err(misuse(format!(
                    "a selector of {length} bytes (line {}): {SELECTOR_MAX_BYTES} are the most",
                    selector.line
                )));
            }
            self.bytes = self.bytes.saturating_add(length);
        }
        self.count = self.count.saturating_add(selectors.len());
        if self.count > SELECTORS_MAX || self.bytes > SELECTORS_MAX_BYTES {
            return Err(misuse(format!(
                "more than {SELECTORS_MAX} selectors in one {what}; send several"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: String) -> wire::Selector {
        wire::Selector {
            by: Some(wire::selector::By::SourceReference(text)),
            line: 7,
        }
    }

    #[test]
    fn long_selectors_are_refused_as_they_come() {
        let mut gathered = Gathered::default();
        let usual = vec![reference("r".repeat(256)); 100];
        gathered.add("retraction", &usual).unwrap();
        let long = [reference("r".repeat(1 << 20))];
        let refused = gathered.add("retraction", &long).unwrap_err();
        assert!(refused.message().contains("line 7"), "{refused}");
    }

    #[test]
    fn all_selectors_together_have_a_bound() {
        let mut gathered = Gathered::default();
        let some = vec![reference("r".repeat(16_000)); 1_000];
        let refused = (0..100).find_map(|_| gathered.add("erasure", &some).err());
        assert!(refused.is_some());
        let mut gathered = Gathered::default();
        let many = vec![reference(String::new()); SELECTORS_MAX / 2];
        gathered.add("erasure", &many).unwrap();
        gathered.add("erasure", &many).unwrap();
        assert!(gathered.add("erasure", &many[..1]).is_err());
    }
}
