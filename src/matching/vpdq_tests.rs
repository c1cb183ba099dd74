//! Text forms, and the choices where upstream contradicts itself.

use proptest::prelude::*;

use super::*;
use crate::pdq::bench::Data;

fn frame(first: u8, quality: u8) -> Frame {
    let mut value = [0x55; 32];
    value[0] = first;
    Frame {
        value,
        quality,
        number: None,
        time_ms: None,
    }
}

/// Differs from `frame(0, …)` in so many bits.
fn apart(bits: usize) -> Frame {
    let mut far = frame(0, 100);
    (0..bits).for_each(|bit| far.value[bit / 8] ^= 1 << (bit % 8));
    far
}

#[test]
fn both_text_forms_are_read_and_written() {
    let hex = "f8".repeat(32);
    let lines = format!("0,100,{hex},0.000\n30,49,{hex},61.250\n");
    let frames = parse(&lines).unwrap();
    assert_eq!(
        frames[1],
        Frame {
            value: [0xf8; 32],
            quality: 49,
            number: Some(30),
            time_ms: Some(61_250)
        }
    );
    assert_eq!(to_lines(&frames), lines);
    let list = format!("[\"{hex},100,0.000\",\"{hex},49,61.250\"]");
    assert_eq!(to_list(&frames), list);
    let again = parse(&list).unwrap();
    assert_eq!(
        (again[1].quality, again[1].number, again[1].time_ms),
        (49, None, Some(61_250))
    );
    assert_eq!(
        parse(&format!("\u{feff} 7 , 50 , {} \r\n", hex.to_uppercase())).unwrap()[0].time_ms,
        None
    );
    assert_eq!(
        parse(&format!("[ \"{hex},50,1.23e+03\" , \"{hex},1,2\" ]")).unwrap()[0].time_ms,
        Some(1_230_000)
    );
}

#[test]
fn what_is_wrong_is_named_without_the_value() {
    let hex = "f8".repeat(32);
    let cases = [
        (String::new(), "vpdq_no_frames", ""),
        ("[]".into(), "vpdq_no_frames", ""),
        (format!("x,50,{hex}"), "vpdq_bad_frame", "the number"),
        (format!("1,101,{hex}"), "vpdq_bad_frame", "the quality"),
        (format!("1,50,{}", &hex[1..]), "vpdq_bad_frame", "the value"),
        (
            format!("1,50,{}é", &hex[2..]),
            "vpdq_bad_frame",
            "the value",
        ),
        (format!("1,50,{hex},-1"), "vpdq_bad_frame", "the time"),
        (format!("1,50,{hex},nan"), "vpdq_bad_frame", "the time"),
        (format!("1,50,{hex},1,2"), "vpdq_bad_frame", "what follows"),
        (format!("[\"{hex},50,1\""), "vpdq_not_a_list", ""),
        (
            format!("[\"{hex},50,1\" \"{hex},50,1\"]"),
            "vpdq_not_a_list",
            "",
        ),
        (format!("[\"{hex},50,1\",]"), "vpdq_not_a_list", ""),
        (format!("[{hex}]"), "vpdq_not_a_list", ""),
        ("[\"]".into(), "vpdq_not_a_list", ""),
        (" ".repeat(MAX_TEXT_BYTES + 1), "vpdq_too_long", ""),
        (
            format!("0,1,{hex}\n").repeat(MAX_FRAMES + 1),
            "vpdq_too_many_frames",
            "",
        ),
    ];
    for (text, code, says) in cases {
        let error = parse(&text).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(
            error.to_string().contains(says) && !error.to_string().contains("f8f8"),
            "{error}"
        );
    }
}

#[test]
fn a_frame_at_the_very_distance_is_the_same() {
    let thresholds = Thresholds::default();
    let same = compare(&[apart(31)], &[frame(0, 100)], &thresholds).unwrap();
    assert!(same.is_match(&thresholds));
    assert!(
        !compare(&[apart(32)], &[frame(0, 100)], &thresholds)
            .unwrap()
            .is_match(&thresholds)
    );
}

#[test]
fn frames_of_too_little_quality_go_before_equal_ones_are_one() {
    let query = [frame(0, 10), frame(0, 90), frame(0, 60), frame(1, 49)];
    let kept = distinct(&query, 50);
    assert_eq!(
        kept.iter().map(|frame| frame.quality).collect::<Vec<_>>(),
        [90]
    );
}

#[test]
fn nothing_left_to_compare_is_no_match_at_any_threshold() {
    let none = Thresholds {
        query_percent: 0,
        compared_percent: 0,
        ..Thresholds::default()
    };
    for (query, compared) in [
        (vec![], vec![frame(0, 100)]),
        (vec![frame(0, 3)], vec![]),
        (vec![], vec![]),
    ] {
        let comparison = compare(&query, &compared, &none).unwrap();
        assert_eq!(
            (comparison.query_percent(), comparison.compared_percent()),
            (0.0, 0.0)
        );
        assert!(!comparison.is_match(&none));
    }
}

#[test]
fn shares_are_of_each_video_and_both_thresholds_count() {
    let values = Data::Random.values(10, 1);
    let video: Vec<_> = values
        .iter()
        .map(|value| Frame {
            value: *value,
            quality: 80,
            number: None,
            time_ms: None,
        })
        .collect();
    let clip = compare(&video[..4], &video, &Thresholds::default()).unwrap();
    assert_eq!(
        (clip.query_percent(), clip.compared_percent()),
        (100.0, 40.0)
    );
    assert!(clip.is_match(&Thresholds::default()));
    assert!(!clip.is_match(&Thresholds {
        compared_percent: 41,
        ..Thresholds::default()
    }));
    let longer = compare(&video, &video[..7], &Thresholds::default()).unwrap();
    assert!(!longer.is_match(&Thresholds::default()));
    assert!(longer.is_match(&Thresholds {
        query_percent: 70,
        ..Thresholds::default()
    }));
}

#[test]
fn long_videos_compare_as_short_ones_do() {
    let values = Data::Clustered.values(3_000, 2);
    let video = |values: &[[u8; 32]]| -> Vec<_> {
        values
            .iter()
            .map(|value| Frame {
                value: *value,
                quality: 80,
                number: None,
                time_ms: None,
            })
            .collect()
    };
    let (query, compared) = (video(&values[..1_600]), video(&values[800..]));
    let comparison = compare(&query, &compared, &Thresholds::default()).unwrap();
    let brute = |a: &[Frame], b: &[Frame]| {
        let (a, b) = (distinct(a, 50), distinct(b, 50));
        a.iter()
            .filter(|a| b.iter().any(|b| distance(&a.value, &b.value) <= 31))
            .count()
    };
    assert_eq!(comparison.query_matched, brute(&query, &compared));
    assert_eq!(comparison.compared_matched, brute(&compared, &query));
    let far = Thresholds {
        distance: 65,
        ..Thresholds::default()
    };
    assert_eq!(
        compare(&query, &compared, &far),
        Err(DistanceTooLarge { asked: 65 })
    );
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_read_is_written_back(text in "[\\[\\]\", 0-9a-f.\\n]{0,200}") {
        if let Ok(frames) = parse(&text) {
            prop_assert_eq!(parse(&to_lines(&frames)).unwrap().len(), frames.len());
        }
    }

    #[test]
    fn written_frames_are_read_back(frames in proptest::collection::vec(
        (any::<[u8; 32]>(), 0..=100_u8, any::<u32>(), 0..10_000_000_u64), 1..20)) {
        let frames: Vec<_> = frames.into_iter().map(|(value, quality, number, time_ms)| Frame {
            value, quality, number: Some(u64::from(number)), time_ms: Some(time_ms),
        }).collect();
        prop_assert_eq!(parse(&to_lines(&frames)).unwrap(), frames.clone());
        let list = parse(&to_list(&frames)).unwrap();
        prop_assert_eq!(list.len(), frames.len());
        prop_assert!(list.iter().zip(&frames).all(|(a, b)| (a.value, a.quality, a.time_ms) == (b.value, b.quality, b.time_ms)));
    }
}
