//! What a caller may do: scopes, and sets of them.

use std::fmt;

/// A kind of calls that a caller may be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Register models, and delete them.
    ModelsWrite,
    /// See models and follow their registration.
    ModelsRead,
    /// Have inferences proved, cancel jobs, estimate their cost.
    JobsCreate,
    /// See jobs and follow them.
    JobsRead,
    /// Upload.
    ArtifactsWrite,
    /// Download.
    ArtifactsRead,
    /// Have the service verify proofs.
    Verify,
    /// What concerns the service rather than one tenant.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 8] = [
        Self::ModelsWrite,
        Self::ModelsRead,
        Self::JobsCreate,
        Self::JobsRead,
        Self::ArtifactsWrite,
        Self::ArtifactsRead,
        Self::Verify,
        Self::Admin,
    ];

    /// Its name in files, tokens and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::ModelsWrite => "models.write",
            Self::ModelsRead => "models.read",
            Self::JobsCreate => "jobs.create",
            Self::JobsRead => "jobs.read",
            Self::ArtifactsWrite => "artifacts.write",
            Self::ArtifactsRead => "artifacts.read",
            Self::Verify => "verify",
            Self::Admin => "admin",
        }
    }

    /// The scope of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A name that is no scope's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no scope; the scopes are {}", Scopes::every())]
pub struct UnknownScope {
    /// What was given.
    pub name: String,
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// None.
    pub const NONE: Self = Self(0);

    /// Every scope, `admin` too.
    pub fn every() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Every scope that concerns one tenant: all but `admin`.
    pub fn of_tenant() -> Self {
        Scope::ALL.into_iter().filter(|scope| *scope != Scope::Admin).collect()
    }

    /// Whether the scope is in the set.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    /// Parses names with commas between them; an empty text is the empty set.
    ///
    /// # Errors
    /// A name is no scope's.
    pub fn parse(list: &str) -> Result<Self, UnknownScope> {
        let names = list.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| Scope::of_name(name).ok_or_else(|| UnknownScope { name: name.to_owned() })).collect()
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// Names with commas between them, as [`Scopes::parse`] takes them.
impl fmt::Display for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = Scope::ALL.into_iter().filter(|scope| self.contains(*scope)).map(Scope::name).collect();
        formatter.write_str(&names.join(","))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Scopes({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_they_are_read() {
        for set in [Scopes::NONE, Scopes::of_tenant(), Scopes::every(), Scopes::from_iter([Scope::Verify])] {
            assert_eq!(Scopes::parse(&set.to_string()), Ok(set));
        }
        let two = Scopes::parse("jobs.read, admin").unwrap();
        assert!(two.contains(Scope::JobsRead) && two.contains(Scope::Admin) && !two.contains(Scope::Verify));
        assert!(!Scopes::of_tenant().contains(Scope::Admin));
    }

    #[test]
    fn an_unknown_scope_is_named() {
        let error = Scopes::parse("jobs.read,jobs").unwrap_err();
        assert_eq!(error.name, "jobs");
        assert!(error.to_string().contains("jobs.create"), "{error}");
    }
}
