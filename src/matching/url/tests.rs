//! The published cases, and what they leave open.

use super::{HostScope, MAX_URL_BYTES, PathScope, UrlError, canonicalize};
use proptest::prelude::*;

fn text(url: impl AsRef<[u8]>) -> String {
    canonicalize(url.as_ref()).unwrap().text()
}

#[test]
fn canonical_forms_are_the_published_ones() {
    let cases: &[(&[u8], &str)] = &[
        (b"http://host/%25%32%35", "http://host/%25"),
        (b"http://host/%25%32%35%25%32%35", "http://host/%25%25"),
        (b"http://host/%2525252525252525", "http://host/%25"),
        (b"http://host/asdf%25%32%35asd", "http://host/asdf%25asd"),
        (b"http://host/%%%25%32%35asd%%", "http://host/%25%25%25asd%25%25"),
        (b"http://www.google.com/", "http://www.google.com/"),
        (
            b"http://%31%36%38%2e%31%38%38%2e%39%39%2e%32%36/%2E%73%65%63%75%72%65/%77%77%77%2E%65%62%61%79%2E%63%6F%6D/",
            "http://168.188.99.26/.secure/www.ebay.com/",
        ),
        (
            b"http://195.127.0.11/uploads/%20%20%20%20/.verify/.eBaysecure=updateuserdataxplimnbqmn-xplmvalidateinfoswqpcmlx=hgplmcx/",
            "http://195.127.0.11/uploads/%20%20%20%20/.verify/.eBaysecure=updateuserdataxplimnbqmn-xplmvalidateinfoswqpcmlx=hgplmcx/",
        ),
        (
            b"http://host%23.com/%257Ea%2521b%2540c%2523d%2524e%25f%255E00%252611%252A22%252833%252944_55%252B",
            "http://host%23.com/~a!b@c%23d$e%25f^00&11*22(33)44_55+",
        ),
        (b"http://3279880203/blah", "http://195.127.0.11/blah"),
        (b"http://www.google.com/blah/..", "http://www.google.com/"),
        (b"www.google.com/", "http://www.google.com/"),
        (b"www.google.com", "http://www.google.com/"),
        (b"http://www.evil.com/blah#frag", "http://www.evil.com/blah"),
        (b"http://www.GOOgle.com/", "http://www.google.com/"),
        (b"http://www.google.com.../", "http://www.google.com/"),
        (b"http://www.google.com/foo\tbar\rbaz\n2", "http://www.google.com/foobarbaz2"),
        (b"http://www.google.com/q?", "http://www.google.com/q?"),
        (b"http://www.google.com/q?r?", "http://www.google.com/q?r?"),
        (b"http://www.google.com/q?r?s", "http://www.google.com/q?r?s"),
        (b"http://evil.com/foo#bar#baz", "http://evil.com/foo"),
        (b"http://evil.com/foo;", "http://evil.com/foo;"),
        (b"http://evil.com/foo?bar;", "http://evil.com/foo?bar;"),
        (b"http://\x01\x80.com/", "http://%01%80.com/"),
        (b"http://notrailingslash.com", "http://notrailingslash.com/"),
        (b"http://www.gotaport.com:1234/", "http://www.gotaport.com/"),
        (b"  http://www.google.com/  ", "http://www.google.com/"),
        (b"http:// leadingspace.com/", "http://%20leadingspace.com/"),
        (b"http://%20leadingspace.com/", "http://%20leadingspace.com/"),
        (b"%20leadingspace.com/", "http://%20leadingspace.com/"),
        (b"https://www.securesite.com/", "https://www.securesite.com/"),
        (b"http://host.com/ab%23cd", "http://host.com/ab%23cd"),
        (b"http://host.com//twoslashes?more//slashes", "http://host.com/twoslashes?more//slashes"),
    ];
    for (url, expected) in cases {
        assert_eq!(text(url), *expected, "{}", String::from_utf8_lossy(url));
    }
}

#[test]
fn addresses_have_one_spelling() {
    for url in [
        "http://195.127.11/",
        "http://0303.0177.0.013/",
        "http://0xc3.0x7f.0x0.0xb/",
        "0xC37F000B:80",
    ] {
        assert_eq!(text(url), "http://195.127.0.11/", "{url}");
    }
    assert_eq!(
        text("http://[2001:0db8:0000::1]:443/x"),
        "http://[2001:db8::1]/x"
    );
    assert_eq!(text("http://[::ffff:1.2.3.4]/"), "http://1.2.3.4/");
    assert_eq!(text("http://[64:ff9b::1.2.3.4]/"), "http://1.2.3.4/");
    for name in [
        "256.256.256.256",
        "1.2.3.4.5",
        "4294967296",
        "1.2.65536.x",
        "08.1.1.1",
        "+1.2.3.4",
    ] {
        assert_eq!(text(name), format!("http://{name}/"));
    }
}

#[test]
fn names_in_other_scripts_become_punycode_however_they_are_escaped() {
    for url in [
        "https://Bücher.example/",
        "https://b%C3%BCcher.example",
        "https://xn--bcher-kva.example/",
    ] {
        assert_eq!(text(url), "https://xn--bcher-kva.example/", "{url}");
    }
}

#[test]
fn users_ports_and_dots_do_not_count() {
    for url in [
        "http://user:secret@host.example:8080/a",
        "//host.example/a",
        "host.example:8080/a",
        "HTTP://..host..example./b/../a",
    ] {
        assert_eq!(text(url), "http://host.example/a", "{url}");
    }
    assert_eq!(text("http://a.example/b/./c/.."), "http://a.example/b/");
    assert_eq!(text("http://a.example/../../c"), "http://a.example/c");
    assert_eq!(
        text("http://a.example?q=/../x"),
        "http://a.example/?q=/../x"
    );
}

#[test]
fn what_is_no_page_on_a_host_is_refused_with_a_reason() {
    for url in [
        "",
        "http://",
        "http:///path",
        "http://.../",
        "/path",
        "http://:80/",
        "http://user@/",
    ] {
        assert_eq!(canonicalize(url.as_bytes()), Err(UrlError::NoHost), "{url}");
    }
    for url in [
        "mailto:someone@host.example",
        "data:text/plain,x",
        "javascript:alert(1)",
    ] {
        assert_eq!(
            canonicalize(url.as_bytes()),
            Err(UrlError::NotHierarchical),
            "{url}"
        );
    }
    let long = vec![b'a'; MAX_URL_BYTES + 1];
    assert_eq!(
        canonicalize(&long).map_err(UrlError::code),
        Err("url_too_long")
    );
}

fn expressions(url: &str) -> Vec<String> {
    let all = canonicalize(url.as_bytes()).unwrap().expressions();
    all.iter()
        .map(|expression| expression.text().to_owned())
        .collect()
}

#[test]
fn expressions_are_the_published_ones() {
    assert_eq!(
        expressions("http://a.b.c/1/2.html?param=1"),
        [
            "a.b.c/1/2.html?param=1",
            "a.b.c/1/2.html",
            "a.b.c/",
            "a.b.c/1/",
            "b.c/1/2.html?param=1",
            "b.c/1/2.html",
            "b.c/",
            "b.c/1/"
        ]
    );
    assert_eq!(
        expressions("http://a.b.c.d.e.f.g/1.html"),
        [
            "a.b.c.d.e.f.g/1.html",
            "a.b.c.d.e.f.g/",
            "c.d.e.f.g/1.html",
            "c.d.e.f.g/",
            "d.e.f.g/1.html",
            "d.e.f.g/",
            "e.f.g/1.html",
            "e.f.g/",
            "f.g/1.html",
            "f.g/"
        ]
    );
    let mut address = expressions("http://1.2.3.4/1/");
    address.sort();
    assert_eq!(address, ["1.2.3.4/", "1.2.3.4/1/"]);
}

#[test]
fn there_are_at_most_thirty_and_each_says_what_it_covers() {
    let url = canonicalize(b"http://a.b.c.d.e.f.g/1/2/3/4/5/6.html?x").unwrap();
    let all = url.expressions();
    assert_eq!(all.len(), 30);
    let scope = |text: &str| {
        all.iter()
            .find(|found| found.text() == text)
            .map(|found| (found.host, found.path))
    };
    assert_eq!(
        scope("a.b.c.d.e.f.g/1/2/3/4/5/6.html?x"),
        Some((HostScope::Exact, PathScope::Query))
    );
    assert_eq!(
        scope("a.b.c.d.e.f.g/1/2/3/4/5/6.html"),
        Some((HostScope::Exact, PathScope::Path))
    );
    assert_eq!(
        scope("f.g/1/2/3/"),
        Some((HostScope::Parent, PathScope::Folder))
    );
    assert_eq!(scope("f.g/1/2/3/4/"), None);
    assert_eq!(scope("f.g/"), Some((HostScope::Parent, PathScope::Root)));
    assert!(all.contains(&url.exact()));
}

#[test]
fn a_deep_folder_is_among_its_own_expressions() {
    let url = canonicalize(b"http://a.example/1/2/3/4/5/").unwrap();
    assert!(url.expressions().contains(&url.exact()));
    assert_eq!(url.expressions().len(), 5);
}

#[test]
fn digests_are_of_the_expression() {
    let digest = canonicalize(b"abc.example").unwrap().exact().digest();
    let expected: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
        <sha2::Sha256 as sha2::Digest>::new(),
        b"abc.example/",
    ))
    .into();
    assert_eq!(digest, expected);
}

#[test]
fn a_link_reaches_no_debug_output() {
    let url = canonicalize(b"http://secret.example/secret?secret").unwrap();
    assert!(!format!("{url:?}{:?}", url.expressions()).contains("secret"));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_canonical_forms_stay(url in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(canonical) = canonicalize(&url) {
            prop_assert!(canonical.text().is_ascii());
            prop_assert!(canonical.expressions().len() <= 30);
            prop_assert!(canonical.expressions().contains(&canonical.exact()));
        }
    }

    #[test]
    fn the_canonical_form_is_its_own(url in "(https?://)?[a-zA-Z0-9.%]{1,20}(:[0-9]{1,4})?(/[a-zA-Z0-9.%?/ü ]{0,40})?") {
        if let Ok(canonical) = canonicalize(url.as_bytes()) {
            prop_assert_eq!(text(canonical.text()), canonical.text());
        }
    }
}
