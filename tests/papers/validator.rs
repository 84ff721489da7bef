//! A JSON Schema validator for exactly the keywords that our schemas use (draft 7); one that it does not know is a
//! failure, so that nothing counts as checked that is not.

use serde_json::Value;

/// What is wrong with a value, each with its path; nothing when it is valid.
pub fn wrong(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(schema, value, "", &mut found);
    found
}

fn walk(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let schema = schema.as_object().unwrap_or_else(|| panic!("{path}: a schema must be an object"));
    let mut wrong = |what: String| found.push(format!("{path}: {what}"));
    let number = |limit: &Value| limit.as_f64().expect("a limit is a number");
    let length = |limit: &Value| usize::try_from(limit.as_u64().expect("a limit is a count")).expect("small");
    let properties = schema.get("properties").and_then(Value::as_object);
    for (keyword, want) in schema {
        match keyword.as_str() {
            "$schema" | "title" | "description" => {}
            "type" => {
                let names: Vec<&str> =
                    want.as_array().map_or(vec![want], |all| all.iter().collect()).into_iter().map(word).collect();
                if !names.iter().any(|name| is(name, value)) {
                    wrong(format!("{value} is not of type {names:?}"));
                }
            }
            "enum" if !want.as_array().expect("a list").contains(value) => wrong(format!("{value} is not one of {want}")),
            "const" if want != value => wrong(format!("{value} is not {want}")),
            "minimum" if value.as_f64().is_some_and(|value| value < number(want)) => wrong(format!("{value} is under {want}")),
            "maximum" if value.as_f64().is_some_and(|value| value > number(want)) => wrong(format!("{value} is over {want}")),
            "minLength" if value.as_str().is_some_and(|text| text.len() < length(want)) => wrong("is empty".to_owned()),
            "minItems" if value.as_array().is_some_and(|items| items.len() < length(want)) => wrong("has too few".to_owned()),
            "maxItems" if value.as_array().is_some_and(|items| items.len() > length(want)) => wrong("has too many".to_owned()),
            "pattern" => {
                let pattern = regex::Regex::new(word(want)).unwrap_or_else(|error| panic!("{path}: {error}"));
                if value.as_str().is_some_and(|text| !pattern.is_match(text)) {
                    wrong(format!("{value} does not match {want}"));
                }
            }
            "required" => {
                let missing = want.as_array().expect("a list").iter().map(word);
                missing
                    .filter(|name| value.is_object() && value.get(name).is_none())
                    .for_each(|name| wrong(format!("{name} is missing")));
            }
            "additionalProperties" => {
                assert_eq!(want, &Value::Bool(false), "{path}");
                let known = |name: &&String| properties.is_some_and(|known| known.contains_key(*name));
                let fields = value.as_object().into_iter().flat_map(|fields| fields.keys());
                fields.filter(|name| !known(name)).for_each(|name| wrong(format!("unknown field {name}")));
            }
            "anyOf" if !choices(want, value, path).contains(&true) => wrong("fits none of the choices".to_owned()),
            "oneOf" if choices(want, value, path).into_iter().filter(|fits| *fits).count() != 1 => {
                wrong("does not fit exactly one of the choices".to_owned());
            }
            "not" if fits(want, value, path) => wrong(format!("must not be {want}")),
            "enum" | "const" | "minimum" | "maximum" | "minLength" | "minItems" | "maxItems" | "anyOf" | "oneOf" | "not" => {}
            "properties" | "items" => {}
            unknown => panic!("{path}: keyword {unknown} is not known to this validator: teach it"),
        }
    }
    for (name, schema) in properties.into_iter().flatten() {
        if let Some(value) = value.get(name) {
            walk(schema, value, &format!("{path}/{name}"), found);
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        values.iter().enumerate().for_each(|(at, value)| walk(items, value, &format!("{path}/{at}"), found));
    }
}

fn choices(schemas: &Value, value: &Value, path: &str) -> Vec<bool> {
    schemas.as_array().expect("a list").iter().map(|schema| fits(schema, value, path)).collect()
}

fn fits(schema: &Value, value: &Value, path: &str) -> bool {
    let mut found = Vec::new();
    walk(schema, value, path, &mut found);
    found.is_empty()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text"))
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        unknown => panic!("type {unknown} is not known to this validator: teach it"),
    }
}
