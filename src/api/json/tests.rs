//! The JSON door over a real node: the document and the handlers agree; bounds.

use axum::http::Method;
use hashpact_node::caller::{Role, Who};
use hashpact_node::model::{NewEntry, NewSet, SetSource};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::*;
use hashpact_core::id::{Digest, Slug, UnixMillis};
use hashpact_core::leaf::{Basis, MediaKind, Publish};
use hashpact_core::signal::{Signal, SignalKind};

struct Scene {
    _folder: TempDir,
    api: JsonApi,
}

impl Scene {
    /// A node that knows one PDQ and one MD5 value.
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let node = crate::tests::node(&folder);
        let confirmed = Slug::parse("confirmed").unwrap();
        node.create_set(&NewSet {
            set: confirmed.clone(),
            title: "A set".to_owned(),
            source: SetSource::OwnWork,
            classification_scheme: "tc".to_owned(),
            grants: Vec::new(),
        })
        .unwrap();
        let signals = vec![
            Signal::new(SignalKind::Pdq, vec![0x5a; 32].into(), Some(90)).unwrap(),
            Signal::new(SignalKind::Md5, vec![7; 16].into(), None).unwrap(),
        ];
        let body = Publish {
            media_kind: MediaKind::Image,
            signals,
            classification: None,
            labels: Vec::new(),
            basis: Basis::Human,
            source_reference: "case 1".to_owned(),
            first_seen: None,
            expires: None,
            replaces: Vec::new(),
            published: UnixMillis(0),
        };
        let mut import = node.import(&confirmed).unwrap();
        import.push(vec![NewEntry { body, line: 1 }]).unwrap();
        import.finish().unwrap();
        while !node.near().unwrap().is_ready() {
            std::thread::yield_now();
        }
        Self {
            _folder: folder,
            api: JsonApi::new(&NodeService::new(node, crate::About::default())),
        }
    }

    async fn send(&self, request: axum::http::Request<Body>) -> (StatusCode, HeaderMap, Value) {
        let mut request = request;
        if request.extensions().get::<Caller>().is_none() {
            request.extensions_mut().insert(Caller::loopback());
        }
        let response = self.api.clone().router().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        (status, headers, body)
    }

    async fn ask(&self, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = axum::http::Request::post("/v1/match")
            .header("content-type", "application/json")
            .body(body.into())
            .unwrap();
        let (status, _, body) = self.send(request).await;
        (status, body)
    }

    async fn document(&self) -> Value {
        let request = axum::http::Request::get("/v1/openapi.json");
        let (status, _, body) = self.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        body
    }
}

fn question() -> Value {
    let near = format!("{}5b", "5a".repeat(31));
    json!({"signals": [
        {"kind": "PDQ", "value": near},
        {"kind": "MD5", "value": "07".repeat(16)},
        {"kind": "MD5", "value": "zz"},
        {"kind": "nonsense", "value": ""},
        {"kind": "SHA256", "value": "00".repeat(32)},
    ]})
}

/// Checks a value against a schema of the document: types, required and unknown names.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap();
        return fits(
            document,
            &document["components"]["schemas"][name],
            value,
            at,
        );
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let chosen = choices.iter().find(|one| one["type"] != "null").unwrap();
        return fits(document, chosen, value, at);
    }
    let said = &schema["type"];
    let kinds = said
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![said.clone()]);
    let kind = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::Null => "null",
    };
    assert!(
        kinds.contains(&json!(kind)),
        "{at}: {kind} where {kinds:?} is said"
    );
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item, at);
    }
    if let Some(object) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(
                object.contains_key(required.as_str().unwrap()),
                "{at}: no {required}"
            );
        }
        for (name, inner) in object {
            let of = &schema["properties"][name];
            assert!(of.is_object(), "{at}.{name} is not in the document");
            fits(document, of, inner, &format!("{at}.{name}"));
        }
    }
}

fn schema_of<'d>(document: &'d Value, status: &str) -> &'d Value {
    let responses = &document["paths"]["/v1/match"]["post"]["responses"];
    let schema = &responses[status]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{status} is not in the document");
    schema
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_names_every_page_and_what_comes_is_as_it_says() {
    let scene = Scene::new();
    let document = scene.document().await;
    let paths = document["paths"].as_object().unwrap();
    let names: Vec<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(names, ["/v1/match", "/v1/openapi.json"]);
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let request = axum::http::Request::builder().method(method).uri(path);
            let (status, _, _) = scene.send(request.body(Body::empty()).unwrap()).await;
            assert_ne!(status, StatusCode::NOT_FOUND, "{path}");
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
    }
    let asked = question();
    let body = &document["paths"]["/v1/match"]["post"]["requestBody"];
    let body = &body["content"]["application/json"]["schema"];
    fits(&document, body, &asked, "body");
    let (status, answer) = scene.ask(asked.to_string()).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    fits(&document, schema_of(&document, "200"), &answer, "answer");
    let (status, answer) = scene.ask("{}").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    fits(&document, schema_of(&document, "400"), &answer, "problem");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_is_answered_item_by_item_as_by_grpc() {
    let scene = Scene::new();
    let (_, answer) = scene.ask(question().to_string()).await;
    let answers = answer["answers"].as_array().unwrap();
    let shown: Vec<(usize, bool)> = answers
        .iter()
        .map(|one| {
            (
                one["matches"].as_array().unwrap().len(),
                one["error"].is_object(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [(1, false), (1, false), (0, true), (0, true), (0, false)]
    );
    let found = &answers[0]["matches"][0];
    assert_eq!(
        (&found["distance"], &found["entry"]),
        (&json!(1), &json!("north/confirmed#1"))
    );
    assert_eq!(answers[0]["verdict"], "review");
    assert_eq!(answer["policy"], "shipped");
    assert!(
        !answer.to_string().contains("zz"),
        "no value stands in an error"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_surface_is_asked_for_by_name_and_other_words_are_refused() {
    let scene = Scene::new();
    let mut asked = question();
    asked["surface"] = json!("upload");
    asked["region"] = json!("EU");
    let (status, _) = scene.ask(asked.to_string()).await;
    assert_eq!(status, StatusCode::OK);
    asked["surface"] = json!("the upload");
    let (status, answer) = scene.ask(asked.to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["code"], "misuse");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_or_no_question_is_refused_with_its_code() {
    let scene = Scene::new();
    let many = json!({"signals": vec![json!({"kind": "MD5", "value": "00"}); 10_001]});
    let large = format!(
        "{{\"signals\": [], \"x\": \"{}\"}}",
        "y".repeat(BODY_MAX_BYTES)
    );
    for (body, status, code) in [
        (many.to_string(), StatusCode::BAD_REQUEST, "misuse"),
        (large, StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"),
        ("secret".to_owned(), StatusCode::BAD_REQUEST, "misuse"),
        (
            json!({"signals": [], "more": 1}).to_string(),
            StatusCode::BAD_REQUEST,
            "misuse",
        ),
        (
            json!({"signals": [], "max_distance": 99}).to_string(),
            StatusCode::BAD_REQUEST,
            "misuse",
        ),
    ] {
        let (found, answer) = scene.ask(body).await;
        assert_eq!((found, answer["code"].as_str().unwrap()), (status, code));
        assert!(!answer.to_string().contains("secret"));
    }
    let request = || axum::http::Request::post("/v1/match");
    let typeless = request().body(Body::from("{\"signals\": []}")).unwrap();
    assert_eq!(
        scene.send(typeless).await.0,
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
    let browser = request().header("origin", "https://elsewhere.example");
    let (status, _, _) = scene.send(browser.body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let absent = axum::http::Request::get("/v1/entries").body(Body::empty());
    assert_eq!(scene.send(absent.unwrap()).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_overload_it_says_how_long_to_wait() {
    let scene = Scene::new();
    let mut places = Vec::new();
    let everybody = (0..8).map(|uid| Who::Socket { uid: Some(uid) });
    for who in everybody.cycle().take(100_000) {
        let Ok(place) = scene.api.asking.place(&who) else {
            break;
        };
        places.push(place);
    }
    let request = axum::http::Request::post("/v1/match")
        .header("content-type", "application/json")
        .body(Body::from("{\"signals\": []}"))
        .unwrap();
    let (status, headers, body) = scene.send(request).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(headers[header::RETRY_AFTER], "1");
    assert_eq!(
        (&body["code"], &body["retry_after_ms"]),
        (&json!("overloaded"), &json!(50))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_come_slowly_take_nobody_s_turn() {
    let scene = Scene::new();
    let slow = || {
        let never = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        axum::http::Request::post("/v1/match")
            .header("content-type", "application/json")
            .body(Body::from_stream(never))
            .unwrap()
    };
    let mut waiting = Vec::new();
    for _ in 0..BODIES_MAX {
        let mut sent = Box::pin(scene.send(slow()));
        assert!(futures_util::poll!(&mut sent).is_pending());
        waiting.push(sent);
    }
    assert!(
        scene.api.asking.place(&Who::Process).is_ok(),
        "gRPC answers"
    );
    assert_eq!(scene.send(slow()).await.0, StatusCode::TOO_MANY_REQUESTS);
    waiting.pop();
    assert_eq!(scene.ask("{\"signals\": []}").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_ask_for_each_includes_reading() {
    let scene = Scene::new();
    for role in Role::ALL {
        let mut request = axum::http::Request::post("/v1/match")
            .header("content-type", "application/json")
            .body(Body::from("{\"signals\": []}"))
            .unwrap();
        let who = Who::Loopback;
        request.extensions_mut().insert(Caller { who, role });
        assert_eq!(scene.send(request).await.0, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_administrator_asks_is_recorded_and_what_programs_ask_is_not() {
    let scene = Scene::new();
    let known =
        "{\"signals\": [{\"kind\": \"MD5\", \"value\": \"07070707070707070707070707070707\"}]}";
    for role in [Role::Read, Role::Administer] {
        let mut request = axum::http::Request::post("/v1/match")
            .header("content-type", "application/json")
            .body(Body::from(known))
            .unwrap();
        let caller = Caller::certificate("desk".to_owned(), Digest([1; 32]), role);
        request.extensions_mut().insert(caller);
        assert_eq!(scene.send(request).await.0, StatusCode::OK);
    }
    let acts = crate::tests::audited::acts(scene.api.asking.node());
    let looked_up: Vec<_> = acts.iter().filter(|act| act.act == "lookup").collect();
    assert_eq!(looked_up.len(), 1, "{acts:?}");
    assert_eq!(looked_up[0].actor.name, "desk");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_a_socket_it_is_http_1_with_bounded_headers() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let scene = Scene::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(scene.api.clone().serve_loopback(listener, stop.clone()));
    let talk = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A refused connection may be reset after its answer.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let get = b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(talk(get).await.starts_with("HTTP/1.1 200"));
    let huge = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(40_000)
    );
    assert!(talk(huge.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let http2 = talk(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(!http2.contains("200"), "{http2}");
    stop.cancel();
    serving.await.unwrap();
}

#[test]
fn a_wrong_body_is_told_by_its_field_and_never_by_its_values() {
    let said = |body: &str| {
        let wrong = serde_json::from_str::<MatchBody>(body).unwrap_err();
        without_values(&wrong.to_string())
    };
    let signals = r#"{"signals": [{"kind": "MD5", "value": "x", "#;
    let unknown = said(&format!("{signals}\"qualty\": 1}}]}}"));
    assert_eq!(
        unknown,
        "unknown field `qualty`, expected one of `kind`, `value`, `reference`"
    );
    let value = "0123456789abcdef0123456789abcdef";
    let hidden = said(&format!("{signals}\"{value}\": 1}}]}}"));
    assert_eq!(
        hidden,
        "unknown field, expected one of `kind`, `value`, `reference`"
    );
    assert_eq!(
        said(r#"{"signals": [{"kind": "MD5"}]}"#),
        "missing field `value`"
    );
    let trick = format!("{{\"signals\": [], \"max_distance\": \"{value}, expected {value}\"}}");
    assert_eq!(said(&trick), "what stands there is no u32");
    for wrong in ["", "[", "{\"signals\": tru}", value] {
        let said = said(wrong);
        assert!(!said.contains("0123456789"), "{said}");
    }
}
