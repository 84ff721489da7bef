//! A number of bytes as people write it: `1GiB`, `100MiB`, `512KiB`, `4096`.

use std::fmt;
use std::str::FromStr;

/// Bytes; reads and prints binary units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Why a text is not a [`Size`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write a whole number of bytes, or of KiB, MiB, GiB or TiB, such as 100MiB")]
pub struct NotASize(String);

const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    pub const fn from_mib(mib: u64) -> Self {
        Size(mib << 20)
    }

    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let unit = UNITS.iter().find_map(|(name, factor)| Some((text.strip_suffix(name)?, *factor)));
        let (number, factor) = unit.unwrap_or((text, 1));
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let bytes = number.parse::<u64>().ok().filter(|_| digits).and_then(|number| number.checked_mul(factor));
        bytes.map(Size).ok_or_else(|| NotASize(text.chars().take(40).collect()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints_and_nothing_by_halves() {
        for (text, bytes) in [("1GiB", 1 << 30), ("100MiB", 100 << 20), ("1536KiB", 1536 << 10), ("4097", 4097), ("0", 0)] {
            let size: Size = text.parse().expect(text);
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, text));
        }
        for text in ["", "GiB", "1GB", "1gib", "1 GiB", "-1", "+1KiB", "1.5GiB", "99999999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text} was taken");
        }
    }
}
