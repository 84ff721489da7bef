//! The committed document is the program's own, and the program has exactly the routes that it documents.

use std::collections::BTreeSet;
use std::path::Path;

use remediator::api::{openapi, route_table};
use serde_json::Value;

use crate::wire::{OPERATOR, With, start};

fn fresh() -> Value {
    serde_json::to_value(openapi::openapi()).expect("it is JSON")
}

fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("an item").keys();
        methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    });
    all.collect()
}

#[test]
fn the_committed_document_is_the_programs() {
    let fresh = format!("{:#}\n", fresh());
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::fs::read_to_string(&committed).unwrap_or_default() != fresh {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi.json");
        std::fs::write(&made, fresh).expect("written");
        panic!("the HTTP face changed and openapi.json did not: cp {} openapi.json, and read the diff", made.display());
    }
}

#[tokio::test]
async fn it_is_served_without_a_token() {
    let running = start(With { guarded: true, ..With::default() }).await;
    let answer = running.get("/openapi.json").await;
    assert_eq!((answer.status, answer.json()), (200, fresh()));
}

#[test]
fn every_route_is_documented_and_nothing_else_is() {
    let routes = route_table().into_iter().map(|(method, path)| (method.to_owned(), path.to_owned()));
    assert_eq!(operations(&fresh()), routes.collect());
}

#[tokio::test]
async fn every_documented_route_answers() {
    let running = start(With { guarded: true, ..With::default() }).await;
    for (method, path) in operations(&fresh()) {
        // Answered at once, instead of followed.
        let path = path.replace("{id}", "00000000-0000-0000-0000-000000000001").replace("/stream", "/stream?after=x");
        let answer = running.call(&method, &path, &format!("Authorization: Bearer {OPERATOR}\r\n"), b"{}").await;
        let fallback = answer.status == 405 || (answer.status == 404 && answer.body.contains("there is nothing at"));
        assert!(answer.status > 0 && !fallback, "{method} {path}: {answer:?}");
    }
}

/// Who is asked for a token according to the document is asked for one, and nobody else is.
#[tokio::test]
async fn the_document_says_truly_who_needs_a_token() {
    let running = start(With { guarded: true, ..With::default() }).await;
    let document = fresh();
    for (method, path) in operations(&document) {
        let operation = &document["paths"][&path][method.to_lowercase()];
        let security = operation["security"].as_array().unwrap_or_else(|| panic!("{method} {path} says nothing of security"));
        let guarded = !security.contains(&serde_json::json!({}));
        let schemes: Vec<&String> = security.iter().flat_map(|one| one.as_object().expect("an object").keys()).collect();
        assert_eq!(schemes, if guarded { vec!["bearer", "basic"] } else { vec![] }, "{method} {path}");
        assert_eq!(operation["responses"].get("401").is_some(), guarded, "{method} {path}");
        let answer = running.call(&method, &path.replace("{id}", "x"), "", b"{}").await;
        assert_eq!(answer.status == 401, guarded, "{method} {path}: {answer:?}");
    }
}

/// Nothing is referred to that is not there.
#[test]
fn every_reference_leads_somewhere() {
    let document = fresh();
    let text = document.to_string();
    let reference = regex::Regex::new(r##""\$ref":"#([^"]+)""##).expect("a pattern");
    let found: BTreeSet<&str> = reference.captures_iter(&text).map(|found| found.get(1).expect("it").as_str()).collect();
    assert!(found.len() > 10, "{found:?}");
    for pointer in found {
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
}
