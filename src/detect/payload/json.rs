//! What every place of the payload may turn out to hold, and how it is said when that is not what it must hold.

use std::fmt;

use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{MAX_ORNAMENT, ornament};

/// Any JSON value, of which only text and counts are kept.
pub(super) enum Scalar {
    Text(String),
    Count(u64),
    Other(&'static str),
}

impl Scalar {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Scalar::Text(_) => "a string",
            Scalar::Count(_) => "a number",
            Scalar::Other(kind) => kind,
        }
    }

    /// For what a record is found by: as it was sent, but for its length.
    pub(super) fn searched(self) -> String {
        match self {
            Scalar::Text(mut text) => {
                text.truncate(text.floor_char_boundary(MAX_ORNAMENT));
                text
            }
            _ => String::new(),
        }
    }

    /// For what nothing is decided from: anything but text counts as none.
    pub(super) fn ornament(self) -> String {
        match self {
            Scalar::Text(text) => ornament(&text),
            _ => String::new(),
        }
    }
}

impl<'de> de::Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
            fn visit_u64<E>(self, count: u64) -> Result<Scalar, E> {
                Ok(Scalar::Count(count))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Scalar, E> {
                Ok(Scalar::Other("a negative number"))
            }
            fn visit_f64<E>(self, _: f64) -> Result<Scalar, E> {
                Ok(Scalar::Other("a number with a fraction"))
            }
            fn visit_bool<E>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Other("a boolean"))
            }
            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other("null"))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other("an array"))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other("an object"))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// A place in the payload that must hold an object or an array. Says what it found instead.
macro_rules! node {
    ($node:ident, $must:literal, |$it:ident| $place:expr, $read:ident($access:ident) -> $value:ty, not $other:ident($otheraccess:ident) $found:literal) => {
        impl<'de> DeserializeSeed<'de> for $node<'_> {
            type Value = $value;
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl $node<'_> {
            fn wrong<E: de::Error>(self, found: &'static str) -> E {
                let $it = &self;
                let place = $place;
                self.0.fault(PayloadError::WrongKind { place, found, must: $must })
            }
        }

        impl<'de> Visitor<'de> for $node<'_> {
            type Value = $value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($must)
            }
            fn $read<A: $access<'de>>(self, access: A) -> Result<$value, A::Error> {
                self.read(access)
            }
            fn $other<A: $otheraccess<'de>>(self, _: A) -> Result<$value, A::Error> {
                Err(self.wrong($found))
            }
            fn visit_str<E: de::Error>(self, _: &str) -> Result<$value, E> {
                Err(self.wrong("a string"))
            }
            fn visit_u64<E: de::Error>(self, _: u64) -> Result<$value, E> {
                Err(self.wrong("a number"))
            }
            fn visit_i64<E: de::Error>(self, _: i64) -> Result<$value, E> {
                Err(self.wrong("a number"))
            }
            fn visit_f64<E: de::Error>(self, _: f64) -> Result<$value, E> {
                Err(self.wrong("a number"))
            }
            fn visit_bool<E: de::Error>(self, _: bool) -> Result<$value, E> {
                Err(self.wrong("a boolean"))
            }
            fn visit_unit<E: de::Error>(self) -> Result<$value, E> {
                Err(self.wrong("null"))
            }
        }
    };
}

pub(super) use node;
