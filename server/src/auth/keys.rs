//! API keys: `zki_` and 64 hex digits (256 random bits). Only their SHA-256 is kept, with the first 8 digits to look a key up by.
//!
//! An entry is a line `TENANT NAME SHA256-IN-HEX prefix=DIGITS scopes=LIST created=TIME expires=TIME revoked=TIME`; the attributes may be
//! missing. Without a prefix the key is compared with every presented one; without scopes it may do all but administer.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::SystemTime;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::line::{Line, LineError, check_name, check_tenant, parse_lines, time_text};
use super::scope::Scopes;
use super::{Principal, Refused};

pub(super) const START: &str = "zki_";
const N_SECRET_BYTES: usize = 32;
pub(super) const N_PREFIX_DIGITS: usize = 8;
const ATTRIBUTES: [&str; 5] = ["prefix", "scopes", "created", "expires", "revoked"];
const FORM: &str = "TENANT NAME SHA256-IN-HEX [prefix=DIGITS] [scopes=LIST] [created=TIME] [expires=TIME] [revoked=TIME]";

/// Whether a key can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Yes.
    Active,
    /// Its time is over.
    Expired,
    /// It was taken back.
    Revoked,
}

impl KeyState {
    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// One key, as its hash.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) principal: Principal,
    pub(super) prefix: Option<String>,
    pub(super) created: Option<SystemTime>,
    pub(super) expires: Option<SystemTime>,
    is_revoked: bool,
    sha256: [u8; 32],
}

impl Entry {
    /// Parses a line of a key file; `None`: there is no key on it.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some(line) = Line::<3>::parse(text, &ATTRIBUTES)? else { return Ok(None) };
        let [tenant, name, hash] = line.words;
        check_tenant(tenant)?;
        let mut sha256 = [0; 32];
        hex::decode_to_slice(hash, &mut sha256).map_err(|_| "the hash is not 64 hex digits")?;
        let prefix = line.attribute("prefix");
        if prefix.is_some_and(|prefix| prefix.len() != N_PREFIX_DIGITS || !prefix.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            return Err(format!("the prefix is not {N_PREFIX_DIGITS} hex digits"));
        }
        Ok(Some(Self {
            principal: Principal { tenant: tenant.to_owned(), name: name.to_owned(), scopes: line.scopes()? },
            prefix: prefix.map(str::to_ascii_lowercase),
            created: line.time("created")?,
            expires: line.time("expires")?,
            is_revoked: line.time("revoked")?.is_some(),
            sha256,
        }))
    }

    /// Whether the key can be used at that time.
    pub(super) fn state(&self, now: SystemTime) -> KeyState {
        match self.expires {
            _ if self.is_revoked => KeyState::Revoked,
            Some(expires) if expires <= now => KeyState::Expired,
            _ => KeyState::Active,
        }
    }
}

/// The accepted keys, as hashes.
pub struct ApiKeys {
    entries: Vec<Entry>,
    // Which entries may be a key's: those with its first digits, and those that do not tell theirs.
    by_prefix: HashMap<String, Vec<usize>>,
    without_prefix: Vec<usize>,
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ApiKeys({} keys)", self.entries.len())
    }
}

impl ApiKeys {
    /// Parses the contents of a key file.
    ///
    /// # Errors
    /// A line is wrong.
    pub fn parse(text: &str) -> Result<Self, LineError> {
        let mut hashes = HashSet::new();
        let entries = parse_lines(text, FORM, |line| {
            let entry = Entry::parse(line)?;
            match &entry {
                Some(entry) if !hashes.insert(entry.sha256) => Err("the key stands on an earlier line too".to_owned()),
                _ => Ok(entry),
            }
        })?;
        let mut by_prefix: HashMap<String, Vec<usize>> = HashMap::new();
        let mut without_prefix = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            match &entry.prefix {
                Some(prefix) => by_prefix.entry(prefix.clone()).or_default().push(i),
                None => without_prefix.push(i),
            }
        }
        Ok(Self { entries, by_prefix, without_prefix })
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Compares hashes with every entry that the prefix leaves, each in a time that does not depend on where they differ.
    pub(super) fn find(&self, key: &[u8], now: SystemTime) -> Result<&Principal, Refused> {
        let digits = key.get(START.len()..START.len() + N_PREFIX_DIGITS).unwrap_or_default();
        let prefix = String::from_utf8_lossy(digits);
        let hash: [u8; 32] = Sha256::digest(key).into();
        let mut found = None;
        for i in self.by_prefix.get(prefix.as_ref()).into_iter().flatten().chain(&self.without_prefix) {
            let Some(entry) = self.entries.get(*i) else { continue };
            if bool::from(entry.sha256.ct_eq(&hash)) {
                found = Some(entry);
            }
        }
        let entry = found.ok_or(Refused("no such API key"))?;
        match entry.state(now) {
            KeyState::Active => Ok(&entry.principal),
            KeyState::Expired => Err(Refused("the API key has expired")),
            KeyState::Revoked => Err(Refused("the API key is revoked")),
        }
    }
}

/// Whether credentials have the form of an API key, rather than of a token.
pub(super) fn is_key(credentials: &[u8]) -> bool {
    credentials.starts_with(START.as_bytes())
}

/// A key that was just made.
#[derive(Debug)]
pub struct NewKey {
    /// The key itself, for the client. It is kept nowhere else.
    pub secret: SecretString,
    /// Its first digits, to tell it by.
    pub prefix: String,
    pub(super) line: String,
}

impl NewKey {
    /// Makes a key.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub(super) fn make(
        tenant: &str,
        name: &str,
        scopes: Scopes,
        created: SystemTime,
        expires: Option<SystemTime>,
    ) -> Result<Self, getrandom::Error> {
        debug_assert!(check_tenant(tenant).is_ok() && check_name(name).is_ok());
        let mut bytes = Zeroizing::new([0; N_SECRET_BYTES]);
        getrandom::fill(bytes.as_mut())?;
        let digits = Zeroizing::new(hex::encode(bytes.as_ref()));
        let secret = SecretString::from(format!("{START}{}", digits.as_str()));
        let prefix = digits.get(..N_PREFIX_DIGITS).unwrap_or_default().to_owned();
        let hash = hex::encode(Sha256::digest(secret.expose_secret().as_bytes()));
        let mut line = format!("{tenant} {name} {hash} prefix={prefix} scopes={scopes} created={}", time_text(created));
        if let Some(expires) = expires {
            line.push_str(&format!(" expires={}", time_text(expires)));
        }
        Ok(Self { secret, prefix, line })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn key(name: &str, expires: Option<SystemTime>) -> NewKey {
        NewKey::make("acme", name, Scopes::of_tenant(), NOW, expires).unwrap()
    }

    #[test]
    fn a_line_of_three_words_is_a_key_with_all_scopes_of_its_tenant() {
        let made = key("laptop", None);
        let words: Vec<&str> = made.line.split(' ').take(3).collect();
        let keys = ApiKeys::parse(&format!("# by hand\n\n{}\n", words.join(" "))).unwrap();
        let principal = keys.find(made.secret.expose_secret().as_bytes(), NOW).unwrap();
        assert_eq!((principal.tenant.as_str(), principal.scopes), ("acme", Scopes::of_tenant()));
    }

    #[test]
    fn keys_end_when_their_time_is_over_or_they_are_revoked() {
        let (expiring, revoked) = (key("a", Some(NOW + Duration::from_secs(10))), key("b", None));
        let keys = ApiKeys::parse(&format!("{}\n{} revoked=2026-01-01T00:00:00Z", expiring.line, revoked.line)).unwrap();
        let find = |key: &NewKey, seconds| keys.find(key.secret.expose_secret().as_bytes(), NOW + Duration::from_secs(seconds));
        assert_eq!(find(&expiring, 9).unwrap().name, "a");
        assert_eq!(find(&expiring, 10), Err(Refused("the API key has expired")));
        assert_eq!(find(&revoked, 0), Err(Refused("the API key is revoked")));
    }

    #[test]
    fn keys_that_share_their_prefix_are_told_apart() {
        let (one, other) = (key("one", None), key("other", None));
        let line = other.line.replace(&other.prefix, &one.prefix);
        assert!(ApiKeys::parse(&line).unwrap().find(one.secret.expose_secret().as_bytes(), NOW).is_err());
        let both = ApiKeys::parse(&format!("{}\n{line}", one.line)).unwrap();
        assert_eq!(both.find(one.secret.expose_secret().as_bytes(), NOW).unwrap().name, "one");
    }

    #[test]
    fn names_the_wrong_line_of_a_key_file() {
        let good = key("laptop", None).line;
        for (line, problem) in [
            ("acme laptop 12", "64 hex digits"),
            ("acme laptop", "fewer than 3"),
            ("Acme laptop 00", "tenant"),
            (&format!("{good} owner=me"), "owner"),
            (&good.replace("models.write", "models"), "models"),
            (&good.replace("prefix=", "prefix=0"), "prefix"),
            (&good.replace("created=", "created=x"), "no time"),
        ] {
            let error = ApiKeys::parse(&format!("# a comment\n{line}")).unwrap_err();
            assert!(error.line == 2 && error.problem.contains(problem), "{line}: {error}");
        }
    }

    #[test]
    fn a_key_that_stands_there_twice_is_refused() {
        let line = key("laptop", None).line;
        let words: Vec<&str> = line.split(' ').take(3).collect();
        let error = ApiKeys::parse(&format!("{}\n{line} revoked=2026-01-01T00:00:00Z", words.join(" "))).unwrap_err();
        assert!(error.line == 2 && error.problem.contains("earlier line"), "{error}");
    }

    #[test]
    fn a_new_key_is_printed_by_nothing() {
        let made = key("laptop", None);
        assert!(!format!("{made:?}").contains(made.secret.expose_secret()));
        assert!(!made.line.contains(made.secret.expose_secret()));
    }
}
