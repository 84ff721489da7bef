//! The JSON Schemas of `remediator.yml` and of playbooks, for editors that complete and underline.
//!
//! What they promise: they are made from the very types that read the files, so they know every field that those know
//! and no other; every field carries what it means, its default and, where it is dangerous, a warning. What the program
//! takes they take, with one exception: a field without a value (`veto:` and nothing behind it) is a default to the
//! program and underlined here, because nobody means it.
//!
//! What they cannot say stays `remediator check`'s: queries that bind their target, files that exist, limits that fit
//! one another. Draft 7 and no references, because that is what most editors understand fully.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::{playbook, settings};

/// A length of time in Prometheus' notation.
pub struct Duration;

/// `100MiB`.
pub struct Bytes;

/// `6 per 1h`.
pub struct Budget;

/// A count of replicas or a percentage of them.
pub struct Share;

/// The schema of one document of a playbook file.
pub fn of_playbook() -> Value {
    schema_of::<playbook::Typed>()
}

/// The schema of `remediator.yml`.
pub fn of_settings() -> Value {
    schema_of::<settings::Typed>()
}

/// As a file: indented, with a newline at the end.
pub fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    RecursiveTransform(written_is_written).transform(&mut schema);
    schema.to_value()
}

/// An optional field may be left out, not left empty. Formats of Rust's numbers mean nothing to an editor.
fn written_is_written(schema: &mut Schema) {
    schema.remove("format");
    // The default of a field is in its description, in the notation of the file.
    schema.remove("default");
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    let Some(Value::Array(choices)) = schema.get("anyOf") else { return };
    let null = |choice: &Value| choice.get("type").is_some_and(|name| name == "null");
    if let ([Value::Object(one), other] | [other, Value::Object(one)], true) = (choices.as_slice(), choices.iter().any(null))
        && null(other)
    {
        let one = one.clone();
        schema.remove("anyOf");
        for (keyword, value) in one {
            // A field's own description says more than its type's.
            schema.ensure_object().entry(keyword).or_insert(value);
        }
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    /// The order of the units, largest first, is not in the pattern: without looking ahead it would be a page long.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": r"^(0|([0-9]+(y|w|d|h|ms|m|s))+)$",
            "minimum": 0,
            "maximum": 0,
        })
    }
}

impl JsonSchema for Bytes {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "pattern": r"^[0-9]+(KiB|MiB|GiB|TiB)?$", "minimum": 0 })
    }
}

impl JsonSchema for Budget {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Budget".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": r"^ *[0-9]*[1-9][0-9]* +per +([0-9]+(y|w|d|h|ms|m|s))+ *$" })
    }
}

impl JsonSchema for Share {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": r"^(([1-9][0-9]?|100) *%|[1-9][0-9]*)$",
            "minimum": 1,
        })
    }
}
