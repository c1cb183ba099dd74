//! Look-ups and matches over a real node: one answer an item, in order.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_cannot_be_read_is_answered_in_its_place() {
    let scene = Scene::with_set().await;
    scene.import_entries(vec![entry(1, "A1")]).await;
    let unknown = wire::Signal { kind: 99, ..md5(1) };
    let signals = vec![md5(7), unknown, md5(1)];
    let mut client = scene.client.clone();
    let answer = client
        .lookup(wire::LookupRequest {
            signals,
            ..wire::LookupRequest::default()
        })
        .await
        .unwrap();
    let answers = answer.into_inner().answers;
    let shown: Vec<(usize, bool)> = answers
        .iter()
        .map(|answer| (answer.matches.len(), answer.error_code.is_empty()))
        .collect();
    assert_eq!(shown, [(0, true), (0, false), (1, true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_signals_than_the_limit_are_refused_and_the_limit_is_answered() {
    let scene = Scene::with_set().await;
    let mut client = scene.client.clone();
    let ask = |count: usize| wire::LookupRequest {
        signals: vec![md5(1); count],
        ..wire::LookupRequest::default()
    };
    let status = client.lookup(ask(crate::LOOKUP_MAX + 1)).await.unwrap_err();
    assert_eq!(code(&status), "misuse");
    let answered = client.lookup(ask(crate::LOOKUP_MAX)).await.unwrap();
    assert_eq!(answered.into_inner().answers.len(), crate::LOOKUP_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_lookups_is_answered_in_order() {
    let scene = Scene::with_set().await;
    let entries = (1..=20).map(|value| entry(value, "A1")).collect();
    scene.import_entries(entries).await;
    let requests = (0..200_u8).map(|value| wire::LookupRequest {
        signals: vec![md5(value)],
        ..wire::LookupRequest::default()
    });
    let mut client = scene.client.clone();
    let answers = client
        .lookup_stream(tokio_stream::iter(requests.collect::<Vec<_>>()))
        .await;
    let mut answers = answers.unwrap().into_inner();
    let mut known = Vec::new();
    while let Some(answer) = answers.message().await.unwrap() {
        known.push(!answer.answers[0].matches.is_empty());
    }
    assert_eq!(known.len(), 200);
    assert!(
        known
            .iter()
            .enumerate()
            .all(|(at, known)| *known == (1..=20).contains(&at))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_match_tells_how_near_it_is_and_what_to_make_of_it() {
    let scene = Scene::with_set().await;
    let pdq = |last: u8| {
        let mut value = [0x0f; 32];
        value[31] ^= last;
        wire::Signal {
            kind: 5,
            value: value.to_vec().into(),
            quality: None,
        }
    };
    let mut picture = entry(1, "A1");
    picture.signals.push(pdq(0));
    scene.import_entries(vec![picture]).await;
    let unknown = wire::Signal { kind: 99, ..md5(1) };
    let mut client = scene.client.clone();
    let answers = loop {
        let request = wire::MatchRequest {
            signals: vec![pdq(3), unknown.clone(), md5(1), md5(2)],
            ..wire::MatchRequest::default()
        };
        let response = client.r#match(request).await.unwrap().into_inner();
        if response.near_ready && response.near_pending == 0 {
            break response.answers;
        }
    };
    let found = &answers[0].matches[0];
    assert_eq!((found.kind, found.distance), (5, 2));
    assert_eq!(found.entry, "north/confirmed#1");
    assert_eq!(
        (answers[0].verdict.as_str(), answers[0].standing.as_str()),
        ("review", "active")
    );
    assert!(!answers[1].error_code.is_empty());
    assert_eq!(answers[2].matches.len(), 1);
    assert_eq!(
        (answers[3].matches.len(), answers[3].verdict.as_str()),
        (0, "")
    );
    let far = wire::MatchRequest {
        signals: vec![pdq(3)],
        max_distance: Some(65),
        ..wire::MatchRequest::default()
    };
    let refused = client.r#match(far).await.unwrap_err();
    assert_eq!(code(&refused), "misuse");
}
