//! Whatever was recorded, the page has the elements of the page and no others.

use std::collections::BTreeSet;

use proptest::prelude::*;
use scraper::{Html, Selector};

use super::*;
use crate::event::Event;
use crate::sanitize;
use crate::session::{self, About, Finish, Run, Session, Writer};
use crate::view::lines::samples;

/// What makes pages do things, in a name.
const EVIL: &str =
    "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;\u{2028}\u{202e}";

/// The page of a session with these events; its run has hostile texts too.
fn page(events: &[Event]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let db = session::create(&path).unwrap();
    let mut writer = Writer::new(&db, Box::new(|_, _| About::default())).unwrap();
    let evil = Some(EVIL.to_owned());
    let run = Run {
        began: 1_700_000_000_000_000_000,
        host: evil.clone(),
        kernel: evil.clone(),
        source: EVIL.to_owned(),
        not_observed: evil.clone(),
        command: evil,
        ..Run::default()
    };
    writer.begin(&run).unwrap();
    for event in events {
        writer.event(event).unwrap();
    }
    let finish = Finish {
        ended: 1_700_000_001_000_000_000,
        reason: EVIL.to_owned(),
        complete: false,
        accounts: EVIL.to_owned(),
    };
    writer.finish(&finish).unwrap();
    writer.commit(None).unwrap();
    let survey = Survey::of(&Session::open(&path).unwrap(), |_| {}).unwrap();
    let report = Report {
        survey,
        accounts: vec![(1, EVIL.to_owned())],
        events: (1..).zip(events.iter().cloned()).collect(),
        verdict: None,
        name: EVIL.to_owned(),
        now: 0,
    };
    report.html()
}

fn texts(html: &Html, selector: &str) -> Vec<String> {
    let selector = Selector::parse(selector).unwrap();
    html.select(&selector)
        .map(|element| element.text().collect())
        .collect()
}

/// Nothing is there but what the page consists of.
fn inert(html: &Html) {
    const KNOWN: [&str; 49] = [
        "a", "abbr", "body", "button", "dd", "div", "dl", "dt", "footer", "h1", "h2", "h3", "head",
        "header", "html", "input", "label", "li", "line", "main", "meta", "nav", "noscript",
        "option", "p", "rect", "script", "section", "select", "span", "strong", "style", "svg",
        "table", "tbody", "td", "text", "th", "thead", "title", "tr", "ul", "br", "hr", "b", "i",
        "em", "col", "caption",
    ];
    let mut scripts = 0;
    for element in html
        .tree
        .nodes()
        .filter_map(|node| node.value().as_element())
    {
        let name = element.name();
        assert!(KNOWN.contains(&name), "<{name}>");
        scripts += usize::from(name == "script");
        for (key, value) in element.attrs() {
            assert!(
                !key.starts_with("on") && key != "src" && key != "style",
                "{key}={value}"
            );
            assert!(key != "href" || value.starts_with('#'), "{key}={value}");
        }
    }
    assert_eq!(scripts, 2);
    assert!(html.errors.is_empty(), "{:?}", html.errors);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_event_breaks_out_of_the_page(events in samples::events(0..24)) {
        let html = Html::parse_document(&page(&events));
        inert(&html);
        let data = &texts(&html, "#data")[0];
        prop_assert_eq!(data.find(['<', '>', '&', '\u{2028}', '\u{2029}']), None);
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        let rows = data["rows"].as_array().unwrap();
        prop_assert_eq!(rows.len(), events.len());
        prop_assert_eq!(texts(&html, "#event-table tbody tr").len(), events.len());
        for (row, event) in rows.iter().zip(&events) {
            let comm = event.comm.map_or("-".to_owned(), |comm| sanitize::text(comm.bytes()));
            prop_assert_eq!(row[6].as_str(), Some(comm.as_str()));
            prop_assert_eq!(row[2].as_u64(), Some(event.kind as u64));
        }
        // Nor does anything that a reader would be misled by get through.
        for text in html.tree.nodes().filter_map(|node| node.value().as_text()) {
            let bad = text.chars().find(|&c| sanitize::is_deceptive(c) || c.is_control() && c != '\n');
            prop_assert_eq!(bad, None, "{}", &**text);
        }
    }
}

#[test]
fn hostile_text_is_shown_as_what_it_is() {
    let mut events = samples::typical();
    events[0].comm = Some("</script><b>".into());
    // A tag needs no end to be one.
    events[3].comm = Some("</script /".into());
    events[4].comm = Some("<!--<script ".into());
    let html = Html::parse_document(&page(&events));
    inert(&html);
    let shown: BTreeSet<String> = texts(&html, "td, th, dd, h1, p").into_iter().collect();
    let evil = sanitize::text(EVIL.as_bytes());
    for expected in [
        "</script><b>",
        "</script /",
        "<!--<script ",
        "\\x1b]0;x\\x07\\xff",
        evil.as_str(),
    ] {
        assert!(
            shown.iter().any(|text| text.contains(expected)),
            "{expected}: {shown:#?}"
        );
    }
}

#[test]
fn a_session_without_events_has_a_page_too() {
    let html = Html::parse_document(&page(&[]));
    inert(&html);
    assert!(
        texts(&html, "#events p")
            .concat()
            .contains("all 0 of 0 events")
    );
}

#[test]
fn numbers_and_values_are_for_people() {
    for (number, expected) in [
        (0, "0"),
        (999, "999"),
        (1_000, "1,000"),
        (u64::MAX, "18,446,744,073,709,551,615"),
    ] {
        assert_eq!(words::number(number), expected);
    }
    let long = "é".repeat(600);
    let short = words::short(long.clone());
    assert!(short.starts_with(&"é".repeat(500)) && short.ends_with("… (100 more characters)"));
    assert_eq!(words::short("é".repeat(500)), "é".repeat(500));
    let address = |text: &str| Some(text.as_bytes().to_vec());
    for (given, port, expected) in [
        ("::1", Some(80), "[::1]:80"),
        ("127.0.0.1", Some(80), "127.0.0.1:80"),
        ("127.0.0.1", None, "127.0.0.1"),
    ] {
        assert_eq!(words::endpoint(address(given).as_ref(), port), expected);
    }
    assert_eq!(words::endpoint(None, Some(80)), "*:80");
    assert_eq!(
        words::time(1_700_000_000_123_456_789),
        "2023-11-14 22:13:20.123"
    );
}
