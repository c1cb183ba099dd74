//! A sorted list of disjoint ranges of leaves.

use super::types::Span;
use crate::limits::PAGE_LEAVES;

/// Disjoint, non-empty, not touching spans in ascending order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<Span>);

impl Spans {
    /// Widens spans to whole pages within `[0, end)` and merges until there are
    /// at most `max`, so that a hostile list stays small.
    pub(super) fn pages_of(spans: &[Span], end: u64, max: usize) -> Self {
        let mut sorted: Vec<Span> = spans
            .iter()
            .map(|span| Span {
                from: page_floor(span.from),
                to: page_floor(span.to.saturating_add(PAGE_LEAVES.saturating_sub(1))).min(end),
            })
            .filter(|span| span.from < span.to)
            .collect();
        sorted.sort_unstable();
        let mut all = Self::default();
        for span in sorted {
            all.push_back(span);
        }
        while all.0.len() > max.max(1) {
            all.halve();
        }
        all
    }

    fn push_back(&mut self, span: Span) {
        match self.0.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            Some(_) | None => self.0.push(span),
        }
    }

    fn halve(&mut self) {
        self.0 = self
            .0
            .chunks(2)
            .filter_map(|pair| {
                let (first, last) = (pair.first()?, pair.last()?);
                Some(Span {
                    from: first.from,
                    to: last.to,
                })
            })
            .collect();
    }

    /// Adds a span, merging what it touches.
    pub(super) fn insert(&mut self, span: Span) {
        if span.from >= span.to {
            return;
        }
        let at = self.0.partition_point(|held| held.from < span.from);
        self.0.insert(at, span);
        let mut merged = Self::default();
        for span in self.0.drain(..) {
            merged.push_back(span);
        }
        self.0 = merged.0;
    }

    /// The lowest span.
    pub(super) fn first(&self) -> Option<Span> {
        self.0.first().copied()
    }

    /// Takes up to `leaves` from the lowest span, ending at a page boundary
    /// where that leaves something.
    pub(super) fn take(&mut self, leaves: u64) -> Option<Span> {
        let first = self.0.first_mut()?;
        let from = first.from;
        let end = from.saturating_add(leaves.max(1)).min(first.to);
        let aligned = page_floor(end);
        let to = if end < first.to && aligned > from {
            aligned
        } else {
            end
        };
        first.from = to;
        if first.from >= first.to {
            self.0.remove(0);
        }
        Some(Span { from, to })
    }

    /// Leaves in all spans.
    pub(super) fn leaves(&self) -> u64 {
        let sum = |total: u64, span: &Span| total.saturating_add(span.leaves());
        self.0.iter().fold(0, sum)
    }

    pub(super) fn into_vec(self) -> Vec<Span> {
        self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn as_slice(&self) -> &[Span] {
        &self.0
    }
}

fn page_floor(index: u64) -> u64 {
    index.saturating_sub(index.checked_rem(PAGE_LEAVES).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, to: u64) -> Span {
        Span { from, to }
    }

    #[test]
    fn what_is_given_back_merges_with_its_neighbours() {
        let mut spans = Spans::default();
        spans.insert(span(0, 10));
        spans.insert(span(20, 30));
        spans.insert(span(10, 20));
        spans.insert(span(5, 5));
        assert_eq!(spans.as_slice(), [span(0, 30)]);
    }

    #[test]
    fn taking_ends_at_a_page_boundary_unless_it_takes_all() {
        let mut spans = Spans::default();
        spans.insert(span(100, 1_000));
        assert_eq!(spans.take(500), Some(span(100, 512)));
        assert_eq!(spans.take(10), Some(span(512, 522)));
        assert_eq!(spans.take(9_999), Some(span(522, 1_000)));
        assert_eq!(spans.take(1), None);
    }

    #[test]
    fn a_long_list_of_leaves_becomes_a_short_one_of_pages() {
        let many: Vec<Span> = (0..10_000)
            .map(|i| span(i * 1_000, i * 1_000 + 1))
            .collect();
        let pages = Spans::pages_of(&many, 9_999_001, 64);
        assert!(pages.as_slice().len() <= 64);
        for leaf in many {
            let covers = |held: &Span| held.from <= leaf.from && leaf.to <= held.to;
            assert!(pages.as_slice().iter().any(covers));
        }
        assert_eq!(
            Spans::pages_of(&[span(300, 301)], 310, 9).as_slice(),
            [span(256, 310)]
        );
    }
}
