//! What a node says that it holds back of a feed, on the wire.

use bytes::Bytes;
use hashpact_core::id::FeedId;
use hashpact_core::leaf::IndexRange;
use hashpact_core::reject::Rejection;
use hashpact_node::reported::{LOTS_MAX, RANGES_MAX, REASON_MAX_BYTES, Report, ReportedLot};

use crate::types::Announcement;
use crate::wire;

/// A report as it travels: 64 lots of 64 bytes, and 1,024 ranges of two numbers of at most
/// 10 bytes, with some room.
pub(crate) const REPORT_MAX_BYTES: usize = 32 * 1024;

/// Reads it; what is in it is checked as a whole.
pub(crate) fn read(said: wire::Quarantined) -> Result<Announcement, Rejection> {
    Rejection::cap("lots", said.lots.len(), LOTS_MAX)?;
    let feed = FeedId::from_slice(&said.feed_id)?;
    let lots: Result<Vec<ReportedLot>, Rejection> = said.lots.into_iter().map(lot).collect();
    let report = Report {
        epoch: said.epoch,
        size: said.size,
        lots: lots?,
    };
    report.check()?;
    Ok(Announcement::Quarantined(feed, report))
}

fn lot(said: wire::QuarantinedLot) -> Result<ReportedLot, Rejection> {
    Rejection::cap("reason", said.reason.len(), REASON_MAX_BYTES)?;
    Rejection::cap("ranges", said.ranges.len(), RANGES_MAX.saturating_mul(2))?;
    let mut numbers = said.ranges.into_iter();
    let mut ranges = Vec::new();
    while let Some(first) = numbers.next() {
        let half = || Rejection::invalid("report of a quarantine", "half a range");
        let count = numbers.next().ok_or_else(half)?;
        ranges.push(IndexRange { first, count });
    }
    Ok(ReportedLot {
        reason: said.reason,
        kind: said.kind,
        leaves: said.leaves,
        ranges,
    })
}

/// Writes it.
pub(crate) fn write(feed: FeedId, report: Report) -> wire::announcement::Item {
    let lot = |lot: ReportedLot| wire::QuarantinedLot {
        reason: lot.reason,
        kind: lot.kind,
        leaves: lot.leaves,
        ranges: lot
            .ranges
            .iter()
            .flat_map(|range| [range.first, range.count])
            .collect(),
    };
    wire::announcement::Item::Quarantined(wire::Quarantined {
        feed_id: Bytes::copy_from_slice(feed.as_bytes()),
        size: report.size,
        epoch: report.epoch,
        lots: report.lots.into_iter().map(lot).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashpact_core::id::Digest;

    fn said(ranges: Vec<u64>) -> wire::Quarantined {
        wire::Quarantined {
            feed_id: Bytes::copy_from_slice(Digest::of(b"feed").as_bytes()),
            size: 20,
            epoch: 3,
            lots: vec![wire::QuarantinedLot {
                reason: "low_quality".to_owned(),
                kind: 5,
                leaves: 9,
                ranges,
            }],
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written_and_half_a_range_is_refused() {
        let good = said(vec![1, 2, 9, 7]);
        let Announcement::Quarantined(feed, report) = read(good.clone()).unwrap() else {
            panic!("a report")
        };
        let lots = [(1, 2), (9, 7)].map(|(first, count)| IndexRange { first, count });
        assert_eq!(report.lots[0].ranges, lots);
        assert_eq!(
            write(feed, report),
            wire::announcement::Item::Quarantined(good)
        );
        let codes = [vec![1, 2, 9], vec![9, 7, 1, 2], vec![1, 90], vec![0; 4_096]]
            .map(|ranges| read(said(ranges)).unwrap_err().code());
        assert_eq!(codes, ["invalid", "invalid", "invalid", "too_large"]);
        let mut no_feed = said(vec![]);
        no_feed.feed_id = Bytes::new();
        assert!(read(no_feed).is_err());
    }
}
