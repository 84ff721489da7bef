//! Canonical JSON, so that one value has one text: keys sorted by their bytes, no white space, serde_json's escapes, and no
//! number with more than 15 significant digits, which is what every JSON reader gives back exactly.
//!
//! Written in one pass, without a tree of values: each entry of the journal is written several times over, and the trees
//! were a third of what taking an alert in costs. serde_json does the writing and this its formatting
//! ([`Formatter`]): members go out as they come, and at the end of an object they are put in order if they are not.

use std::io;

use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};

/// A value as canonical JSON.
///
/// # Errors
/// The value cannot be JSON, such as a map whose keys are not text.
pub fn canonical<T: Serialize>(value: &T) -> Result<String, serde_json::Error> {
    let mut text = Text::default();
    value.serialize(&mut Serializer::with_formatter(io::sink(), Canonical(&mut text)))?;
    String::from_utf8(text.out).map_err(serde::ser::Error::custom)
}

#[derive(Default)]
struct Text {
    out: Vec<u8>,
    /// Where in `members` each object that is not complete begins, and where in `out`.
    objects: Vec<(usize, usize)>,
    /// Members of the objects that are not complete.
    members: Vec<Member>,
    /// Their keys, without quotes and escapes, one after the other.
    keys: Vec<u8>,
    in_key: bool,
    scratch: Vec<u8>,
}

/// A member of an object: from where to where its key is in `keys`, and it itself in `out`, without a comma.
#[derive(Clone, Copy)]
struct Member {
    key: (usize, usize),
    text: (usize, usize),
}

impl Text {
    fn put(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        if self.in_key {
            self.keys.extend_from_slice(bytes);
        }
    }

    fn begin_object(&mut self) {
        self.objects.push((self.members.len(), self.out.len()));
        self.out.push(b'{');
    }

    fn begin_key(&mut self) {
        let begun = self.objects.last().map_or(0, |(members, _)| *members);
        if self.members.len() > begun {
            self.out.push(b',');
        }
        let (key, text) = (self.keys.len(), self.out.len());
        self.members.push(Member { key: (key, key), text: (text, text) });
        self.in_key = true;
    }

    fn end_key(&mut self) {
        self.in_key = false;
        let end = self.keys.len();
        if let Some(member) = self.members.last_mut() {
            member.key.1 = end;
        }
    }

    /// Members of the value have come and gone by now.
    fn end_value(&mut self) {
        let end = self.out.len();
        if let Some(member) = self.members.last_mut() {
            member.text.1 = end;
        }
    }

    fn end_object(&mut self) {
        let (first, begun) = self.objects.pop().unwrap_or_default();
        let Text { out, members, keys, scratch, .. } = self;
        let own = members.get_mut(first..).unwrap_or_default();
        let key = |member: &Member| keys.get(member.key.0..member.key.1).unwrap_or_default();
        if !own.is_sorted_by(|one, next| key(one) < key(next)) {
            // Stable, so that of two members with one key the last comes last, and it is the one that counts.
            own.sort_by(|one, other| key(one).cmp(key(other)));
            scratch.clear();
            for (place, member) in own.iter().enumerate() {
                if own.get(place + 1).is_some_and(|next| key(next) == key(member)) {
                    continue;
                }
                if !scratch.is_empty() {
                    scratch.push(b',');
                }
                scratch.extend_from_slice(out.get(member.text.0..member.text.1).unwrap_or_default());
            }
            out.truncate(begun + 1);
            out.extend_from_slice(scratch);
        }
        if let Some(member) = own.first() {
            let key = member.key;
            let oldest = own.iter().map(|member| member.key.0).min().unwrap_or(key.0);
            self.keys.truncate(oldest);
        }
        self.members.truncate(first);
        self.out.push(b'}');
    }
}

/// To serde_json a way of formatting; what it is given to write into stays empty.
struct Canonical<'t>(&'t mut Text);

/// Rounds to 15 significant digits. A 17-digit number is not read back exactly by serde_json (without its slower parser) nor
/// by many others, and then the same entry would have two bodies.
fn rounded(value: f64) -> f64 {
    format!("{value:.14e}").parse().ok().filter(|rounded: &f64| rounded.is_finite()).unwrap_or(value)
}

impl Formatter for Canonical<'_> {
    fn write_null<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.put(b"null");
        Ok(())
    }

    fn write_bool<W: ?Sized + io::Write>(&mut self, _: &mut W, value: bool) -> io::Result<()> {
        self.0.put(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn write_i8<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i8) -> io::Result<()> {
        self.write_i64(writer, value.into())
    }

    fn write_i16<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i16) -> io::Result<()> {
        self.write_i64(writer, value.into())
    }

    fn write_i32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: i32) -> io::Result<()> {
        self.write_i64(writer, value.into())
    }

    fn write_i64<W: ?Sized + io::Write>(&mut self, _: &mut W, value: i64) -> io::Result<()> {
        self.whole(|out| CompactFormatter.write_i64(out, value))
    }

    fn write_i128<W: ?Sized + io::Write>(&mut self, _: &mut W, value: i128) -> io::Result<()> {
        self.whole(|out| CompactFormatter.write_i128(out, value))
    }

    fn write_u8<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u8) -> io::Result<()> {
        self.write_u64(writer, value.into())
    }

    fn write_u16<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u16) -> io::Result<()> {
        self.write_u64(writer, value.into())
    }

    fn write_u32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u32) -> io::Result<()> {
        self.write_u64(writer, value.into())
    }

    fn write_u64<W: ?Sized + io::Write>(&mut self, _: &mut W, value: u64) -> io::Result<()> {
        self.whole(|out| CompactFormatter.write_u64(out, value))
    }

    fn write_u128<W: ?Sized + io::Write>(&mut self, _: &mut W, value: u128) -> io::Result<()> {
        self.whole(|out| CompactFormatter.write_u128(out, value))
    }

    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        self.write_f64(writer, value.into())
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, _: &mut W, value: f64) -> io::Result<()> {
        self.whole(|out| CompactFormatter.write_f64(out, rounded(value)))
    }

    fn write_number_str<W: ?Sized + io::Write>(&mut self, _: &mut W, value: &str) -> io::Result<()> {
        self.0.put(value.as_bytes());
        Ok(())
    }

    fn begin_string<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.out.push(b'"');
        Ok(())
    }

    fn end_string<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.out.push(b'"');
        Ok(())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, _: &mut W, fragment: &str) -> io::Result<()> {
        self.0.put(fragment.as_bytes());
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, _: &mut W, escape: CharEscape) -> io::Result<()> {
        if self.0.in_key {
            self.0.keys.push(byte(&escape));
        }
        CompactFormatter.write_char_escape(&mut self.0.out, escape)
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.out.push(b'[');
        Ok(())
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.out.push(b']');
        Ok(())
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W, first: bool) -> io::Result<()> {
        if !first {
            self.0.out.push(b',');
        }
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.begin_object();
        Ok(())
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.end_object();
        Ok(())
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W, _first: bool) -> io::Result<()> {
        self.0.begin_key();
        Ok(())
    }

    fn end_object_key<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.end_key();
        Ok(())
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.out.push(b':');
        Ok(())
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.0.end_value();
        Ok(())
    }

    fn write_raw_fragment<W: ?Sized + io::Write>(&mut self, _: &mut W, _: &str) -> io::Result<()> {
        Err(io::Error::other("what is JSON already cannot be made canonical"))
    }
}

impl Canonical<'_> {
    /// A number, whose text is also what a key made of it sorts by.
    fn whole(&mut self, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        let begun = self.0.out.len();
        write(&mut self.0.out)?;
        if self.0.in_key {
            let Text { out, keys, .. } = &mut *self.0;
            keys.extend_from_slice(out.get(begun..).unwrap_or_default());
        }
        Ok(())
    }
}

fn byte(escape: &CharEscape) -> u8 {
    match escape {
        CharEscape::Quote => b'"',
        CharEscape::ReverseSolidus => b'\\',
        CharEscape::Solidus => b'/',
        CharEscape::Backspace => 8,
        CharEscape::FormFeed => 12,
        CharEscape::LineFeed => b'\n',
        CharEscape::CarriageReturn => b'\r',
        CharEscape::Tab => b'\t',
        CharEscape::AsciiControl(byte) => *byte,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Map, Number, Value, json};

    use super::*;

    /// As the definition says it: a tree, sorted, its fractions cut, written.
    fn by_a_tree<T: Serialize>(value: &T) -> String {
        fn round(value: &mut Value) {
            match value {
                Value::Number(number) if number.is_f64() => {
                    let cut = number.as_f64().and_then(|float| format!("{float:.14e}").parse().ok());
                    if let Some(cut) = cut.and_then(Number::from_f64) {
                        *number = cut;
                    }
                }
                Value::Array(items) => items.iter_mut().for_each(round),
                Value::Object(fields) => fields.values_mut().for_each(round),
                _ => {}
            }
        }
        let mut tree = serde_json::to_value(value).expect("json");
        tree.sort_all_objects();
        round(&mut tree);
        serde_json::to_string(&tree).expect("json")
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[a-c]{0,2}", any::<String>()];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 6, move |inner| {
            let members = prop::collection::vec((text.clone(), inner.clone()), 0..6);
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::from),
                members.prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// Whose fields come in another order than that of their names, and twice under one name.
    #[derive(Serialize)]
    struct Unsorted {
        zeta: Value,
        #[serde(flatten)]
        rest: BTreeMap<String, Value>,
        alpha: (f64, f32, Option<u8>),
        #[serde(rename = "a\"b\\c\n\u{1}")]
        escaped: i16,
        by_number: BTreeMap<i32, Value>,
    }

    proptest! {
        #[test]
        fn it_is_what_a_sorted_tree_would_be(
            zeta in values(), one in values(), rest in prop::collection::btree_map("[a-z]{1,5}|zeta|alpha|\"", values(), 0..5),
            alpha in any::<(f64, f32, Option<u8>)>(), escaped in any::<i16>(), keys in any::<[i32; 3]>()
        ) {
            prop_assert_eq!(canonical(&one).expect("json"), by_a_tree(&one));
            let by_number = keys.into_iter().map(|key| (key, json!({ "b": key, "a": [] }))).collect();
            let unsorted = Unsorted { zeta, rest, alpha, escaped, by_number };
            prop_assert_eq!(canonical(&unsorted).expect("json"), by_a_tree(&unsorted));
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        assert!(canonical(&BTreeMap::from([((1, 2), 3)])).is_err(), "a key that is no text");
    }
}
