//! What a label may hold: any UTF-8, and every language's way out of its quotes.

/// Each goes into every label of an alert, and is one label's name.
pub const VALUES: &[&str] = &[
    "quotes \"'`",
    "back\\slash\\",
    "two\nlines",
    "cr\r\nSet-Cookie: a=b",
    "nul\0end",
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "csi\u{9b}31m",
    "rtl\u{202e}gpj.exe",
    "zero\u{200b}width\u{2066}x\u{2069}",
    "\u{2028}separator\u{85}next",
    "\"} or vector(1) #",
    "x\"} / on() group_left() up{a!=\"",
    ".*|.+",
    "$target",
    "../../containers/x/json?a=b#c",
    "inventory/inv-1;set server inventory/inv-2 state maint",
    "x\nset server inventory/inv-2 state maint\n",
    "<script>alert(1)</script><img src=x onerror=y>",
    "{{ template \"x\" . }}{{ $labels }}{% raw %}",
    "%0a%0d%00%s%n",
    "$(reboot)`reboot`;reboot",
    "'; DROP TABLE entries; --",
    "\u{1f525}\u{1f9d1}\u{200d}\u{1f692}",
    "",
];

/// Whether an instance can have this name. Written down anew, so that the program's own idea of it is tested.
pub fn may_name_a_replica(value: &str) -> bool {
    !value.is_empty() && value.chars().count() <= 256 && !value.chars().any(char::is_control)
}

/// What must not be in any text that a person's terminal shows.
pub fn steers(c: char) -> bool {
    c.is_control() || "\u{200b}\u{200d}\u{2028}\u{202e}\u{2066}\u{2069}".contains(c)
}
