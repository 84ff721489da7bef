//! Who calls: tokens to roles, and a [`Caller`] as the proof that somebody may.
//!
//! Promise: nothing that reads, delivers or orders runs without a [`Caller`], and only [`Gate::admit`] makes one. Only
//! SHA-256 digests of the tokens are kept; the digest of what was presented is compared with every one of them in
//! constant time, so neither content nor length of a token shows in the time that a refusal takes.
//!
//! A token is presented in one of two ways: as a bearer token, or by basic auth as the password of the user that the
//! role's own word names. Basic auth therefore adds no second set of secrets, and rotates with the tokens.
//!
//! With no token at all the door is open: configuration then allows nothing but a loopback address. With a token for
//! any role, a role without one is closed.

use std::sync::{PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};
use tokio::sync::watch;

use crate::mutant::{Mutant, off};

/// Tokens of one role that may be live at a time: the old one and the new one, while one replaces the other.
pub const MAX_TOKENS: usize = 2;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Delivers alerts.
    Receiver,
    /// Reads the audit and the guards' state.
    Reader,
    /// Pauses, resumes, resets breakers; reads too.
    Operator,
}

/// Proof that the one who calls holds a role. Cannot be made elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    role: Role,
}

/// Why a call is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Becomes a 401.
    #[error("a token is needed: Authorization: Bearer <token>, or basic auth with the role as user and the token as password")]
    Missing,
    /// Becomes a 401. The same for a token that never was, for one that was taken away, and for the wrong user's.
    #[error("the token is not one of ours")]
    Unknown,
    /// Becomes a 403.
    #[error("this token may not do that: the role {0} is needed")]
    WrongRole(Role),
}

/// Why a set of tokens is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("an empty token for {0} would let anybody in")]
    Empty(Role),
    #[error("{1} tokens for {0}; at most {MAX_TOKENS} may be live at a time")]
    TooMany(Role, usize),
    #[error("the last token would be taken away, which would open the door to everybody")]
    Opens,
}

/// The door. Its keys may be replaced while it is in use.
#[derive(Debug)]
pub struct Gate {
    keys: RwLock<Vec<Key>>,
    replaced: watch::Sender<()>,
}

#[derive(Clone)]
struct Key {
    role: Role,
    digest: [u8; 32],
}

/// What a caller shows: the token's digest, and the user that basic auth names.
struct Presented {
    user: Option<Vec<u8>>,
    digest: [u8; 32],
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Receiver, Role::Reader, Role::Operator];

    pub fn word(self) -> &'static str {
        match self {
            Role::Receiver => "receiver",
            Role::Reader => "reader",
            Role::Operator => "operator",
        }
    }

    /// Whoever may order may look.
    fn covers(self, wanted: Role) -> bool {
        self == wanted || (self == Role::Operator && wanted == Role::Reader)
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.role)
    }
}

impl Caller {
    /// The role that was asked for and granted.
    pub fn role(self) -> Role {
        self.role
    }
}

impl Denied {
    /// The HTTP status that says it.
    pub fn status(self) -> u16 {
        match self {
            Denied::Missing | Denied::Unknown => 401,
            Denied::WrongRole(_) => 403,
        }
    }

    pub fn code(self) -> &'static str {
        match self {
            Denied::Missing => "token_missing",
            Denied::Unknown => "token_unknown",
            Denied::WrongRole(_) => "role_missing",
        }
    }
}

impl Gate {
    /// # Errors
    /// An empty token, or more than [`MAX_TOKENS`] for a role.
    pub fn new(receiver: &[SecretString], reader: &[SecretString], operator: &[SecretString]) -> Result<Gate, TokenError> {
        Ok(Gate { keys: RwLock::new(keys(receiver, reader, operator)?), ..Gate::open() })
    }

    /// A door that is open to everybody, for a loopback address.
    pub fn open() -> Gate {
        Gate { keys: RwLock::new(Vec::new()), replaced: watch::Sender::new(()) }
    }

    /// Takes new tokens into use at once; the old ones open nothing any more.
    ///
    /// # Errors
    /// As [`Gate::new`], and when no token would be left. The old ones then stay.
    pub fn replace(
        &self,
        receiver: &[SecretString],
        reader: &[SecretString],
        operator: &[SecretString],
    ) -> Result<(), TokenError> {
        let fresh = keys(receiver, reader, operator)?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if fresh.is_empty() && !keys.is_empty() {
            return Err(TokenError::Opens);
        }
        *keys = fresh;
        drop(keys);
        self.replaced.send_replace(());
        Ok(())
    }

    /// Wakes whenever the tokens were replaced: whoever was let in for longer has to ask again.
    pub fn follow(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }

    /// True when nobody is asked for a token.
    pub fn is_open(&self) -> bool {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Lets a caller through to what `wanted` may do. `authorization` is the header's value as it came.
    ///
    /// # Errors
    /// No token, an unknown one, or one whose role does not cover `wanted`.
    pub fn admit(&self, authorization: Option<&[u8]>, wanted: Role) -> Result<Caller, Denied> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() || off(Mutant::Token) {
            return Ok(Caller { role: wanted });
        }
        let presented = Presented::read(authorization.ok_or(Denied::Missing)?).ok_or(Denied::Missing)?;
        let (mut known, mut covers) = (Choice::from(0), Choice::from(0));
        // No early way out: every key is compared, whichever matches.
        for key in keys.iter() {
            let same = presented.shows(key);
            known |= same;
            covers |= same & Choice::from(u8::from(key.role.covers(wanted)));
        }
        match (bool::from(known), bool::from(covers)) {
            (_, true) => Ok(Caller { role: wanted }),
            (true, false) => Err(Denied::WrongRole(wanted)),
            (false, false) => Err(Denied::Unknown),
        }
    }
}

impl Presented {
    /// A header `Bearer <token>` or `Basic <base64 of user:password>`; the scheme's case does not matter (RFC 9110, 11.1).
    fn read(header: &[u8]) -> Option<Presented> {
        let at = header.iter().position(|byte| *byte == b' ')?;
        let (scheme, rest) = header.split_at(at);
        let rest = rest.trim_ascii();
        if rest.is_empty() {
            return None;
        }
        if scheme.eq_ignore_ascii_case(b"Bearer") {
            return Some(Presented { user: None, digest: sha256(rest) });
        }
        if !scheme.eq_ignore_ascii_case(b"Basic") {
            return None;
        }
        // RFC 7617, 2: the user ends at the first colon, so a password may have some.
        let pair = STANDARD.decode(rest).ok()?;
        let colon = pair.iter().position(|byte| *byte == b':')?;
        let (user, password) = (&pair[..colon], &pair[colon + 1..]);
        (!password.is_empty()).then(|| Presented { user: Some(user.to_owned()), digest: sha256(password) })
    }

    /// In constant time with regard to the token. Whether the user fits is looked at in either case.
    fn shows(&self, key: &Key) -> Choice {
        let user = match &self.user {
            None => Choice::from(1),
            Some(user) => user.as_slice().ct_eq(key.role.word().as_bytes()),
        };
        key.digest.as_slice().ct_eq(&self.digest) & user
    }
}

fn keys(receiver: &[SecretString], reader: &[SecretString], operator: &[SecretString]) -> Result<Vec<Key>, TokenError> {
    let mut keys = Vec::new();
    for (role, tokens) in Role::ALL.into_iter().zip([receiver, reader, operator]) {
        if tokens.len() > MAX_TOKENS {
            return Err(TokenError::TooMany(role, tokens.len()));
        }
        for token in tokens {
            let token = token.expose_secret().trim();
            if token.is_empty() {
                return Err(TokenError::Empty(role));
            }
            keys.push(Key { role, digest: sha256(token.as_bytes()) });
        }
    }
    Ok(keys)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets<const N: usize>(tokens: [&str; N]) -> Vec<SecretString> {
        tokens.into_iter().map(SecretString::from).collect()
    }

    fn gate() -> Gate {
        Gate::new(&secrets(["deliver-old", "deliver-new"]), &secrets(["read"]), &secrets(["operate\n"])).expect("good tokens")
    }

    #[test]
    fn each_role_opens_its_own_door_and_the_operator_may_read() {
        let gate = gate();
        let allowed = [
            ("deliver-old", Role::Receiver),
            ("deliver-new", Role::Receiver),
            ("read", Role::Reader),
            ("operate", Role::Reader),
            ("operate", Role::Operator),
        ];
        for token in ["deliver-old", "deliver-new", "read", "operate"] {
            for role in Role::ALL {
                let got = gate.admit(Some(format!("Bearer {token}").as_bytes()), role);
                match allowed.contains(&(token, role)) {
                    true => assert_eq!(got.map(Caller::role), Ok(role), "{token} for {role}"),
                    false => assert_eq!(got, Err(Denied::WrongRole(role)), "{token} for {role}"),
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_known_token_is_turned_away() {
        let gate = gate();
        for (header, want) in [
            (None, Denied::Missing),
            (Some("Digest read"), Denied::Missing),
            (Some("Bearer "), Denied::Missing),
            (Some("Bearer"), Denied::Missing),
            (Some("Bearer rea"), Denied::Unknown),
            (Some("Bearer readread"), Denied::Unknown),
            (Some("Bearer READ"), Denied::Unknown),
        ] {
            assert_eq!(gate.admit(header.map(str::as_bytes), Role::Reader), Err(want), "{header:?}");
        }
        assert_eq!(gate.admit(Some(b"bearer  read"), Role::Reader).map(Caller::role), Ok(Role::Reader));
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    }

    #[test]
    fn basic_auth_presents_the_same_tokens_under_the_roles_own_name() {
        let gate = gate();
        let admit = |user: &str, password: &str, role| gate.admit(Some(basic(user, password).as_bytes()), role).map(Caller::role);
        assert_eq!(admit("receiver", "deliver-old", Role::Receiver), Ok(Role::Receiver));
        assert_eq!(admit("receiver", "deliver-new", Role::Receiver), Ok(Role::Receiver));
        assert_eq!(admit("operator", "operate", Role::Reader), Ok(Role::Reader));
        assert_eq!(admit("reader", "read", Role::Operator), Err(Denied::WrongRole(Role::Operator)));
        // The right password of somebody else is not a password.
        for (user, password) in [("receiver", "read"), ("alice", "read"), ("", "read"), ("Reader", "read"), ("reader", "rea")] {
            assert_eq!(admit(user, password, Role::Reader), Err(Denied::Unknown), "{user}:{password}");
        }
        gate.replace(&secrets(["deliver-new"]), &[], &[]).expect("good tokens");
        let old = gate.admit(Some(basic("receiver", "deliver-old").as_bytes()), Role::Receiver);
        assert_eq!(old, Err(Denied::Unknown), "it rotates with the tokens");
    }

    #[test]
    fn what_is_no_basic_auth_at_all_presents_nothing() {
        let gate = gate();
        for header in ["Basic", "Basic ", "Basic !!!", "Basic cmVhZGVy", &basic("reader", "")] {
            assert_eq!(gate.admit(Some(header.as_bytes()), Role::Reader), Err(Denied::Missing), "{header}");
        }
        let password_with_colons = Gate::new(&[], &secrets(["a:b:c"]), &[]).expect("good tokens");
        let header = basic("reader", "a:b:c");
        assert!(password_with_colons.admit(Some(header.as_bytes()), Role::Reader).is_ok());
    }

    #[test]
    fn a_role_without_a_token_is_closed_once_any_token_exists() {
        let gate = Gate::new(&secrets(["deliver"]), &[], &[]).expect("good tokens");
        assert_eq!(gate.admit(None, Role::Operator), Err(Denied::Missing));
        assert_eq!(gate.admit(Some(b"Bearer deliver"), Role::Operator), Err(Denied::WrongRole(Role::Operator)));
        assert!(Gate::open().admit(None, Role::Operator).is_ok());
    }

    #[test]
    fn rotation_takes_the_old_token_away_and_never_opens_the_door() {
        let gate = gate();
        gate.replace(&secrets(["deliver-new"]), &[], &[]).expect("good tokens");
        assert_eq!(gate.admit(Some(b"Bearer deliver-old"), Role::Receiver), Err(Denied::Unknown));
        assert_eq!(gate.replace(&[], &[], &[]), Err(TokenError::Opens));
        assert_eq!(gate.replace(&secrets(["  "]), &[], &[]), Err(TokenError::Empty(Role::Receiver)));
        assert_eq!(gate.replace(&[], &secrets(["a", "b", "c"]), &[]), Err(TokenError::TooMany(Role::Reader, 3)));
        assert!(gate.admit(Some(b"Bearer deliver-new"), Role::Receiver).is_ok());
        assert!(!format!("{gate:?}").contains("deliver"));
    }
}
