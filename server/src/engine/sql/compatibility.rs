//! Which programs work with which schema. While a new version replaces another, and after a step back, a program meets a schema that is newer than its own.
//!
//! Each migration from the tenth on tells, in its own transaction, the oldest program that works with what it leaves behind; a program is named by the newest
//! migration that it has. One that says nothing is taken to need a program that has it. CONTRIBUTING.md, Migrations.

use std::fmt;

use sqlx::migrate::Migrator;

/// The migrations of a database that are newer than $1, oldest first, with the oldest program that works with each. To be asked only where there are such:
/// earlier schemas have no table of this.
pub(super) const NEWER: &str = "SELECT applied.version, told.oldest_program FROM _sqlx_migrations AS applied \
     LEFT JOIN schema_compatibility AS told ON told.version = applied.version WHERE applied.version > $1 ORDER BY applied.version";

/// A row of [`NEWER`].
pub(super) type Newer = (i64, Option<i64>);

/// A database's schema, which this program works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// The newest that this program knows.
    Own {
        /// Its version.
        version: i64,
    },
    /// A newer one, which says that it works with this program.
    Newer {
        /// Its version.
        version: i64,
        /// The newest version that this program knows.
        known: i64,
    },
}

impl Schema {
    /// Logs what an operator should know of it.
    pub(super) fn note(self) {
        if let Self::Newer { version, known } = self {
            tracing::warn!(version, known, "the database's schema is newer than this program's, and says that it works with it");
        }
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own { version } => write!(formatter, "the schema is at version {version}"),
            Self::Newer { version, known } => {
                write!(
                    formatter,
                    "the schema is at version {version}, newer than this program's, {known}, and works with it: nothing was done"
                )
            }
        }
    }
}

/// A newer program changed the schema so that this one does not work with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the database's schema is at version {version} and works with programs that know version {oldest} or a later one; this one knows {known}: start the \
     newer program again, or restore the database from before the upgrade"
)]
pub struct Incompatible {
    /// Of the schema.
    pub version: i64,
    /// That a program must know at least.
    pub oldest: i64,
    /// The newest that this program knows.
    pub known: i64,
}

/// The newest version that a program with these migrations knows.
pub(super) fn newest(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Whether a program that knows the schema up to `known` works with a database that has these beside.
pub(super) fn judge(known: i64, newer: &[Newer]) -> Result<Schema, Incompatible> {
    let Some((version, _)) = newer.last().copied() else { return Ok(Schema::Own { version: known }) };
    let needed = newer.iter().map(|(version, oldest)| oldest.unwrap_or(*version));
    match needed.max() {
        Some(oldest) if oldest > known => Err(Incompatible { version, oldest, known }),
        _ => Ok(Schema::Newer { version, known }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_works_with_what_every_newer_migration_says_that_it_works_with() {
        assert_eq!(judge(10, &[]), Ok(Schema::Own { version: 10 }));
        assert_eq!(judge(10, &[(11, Some(10)), (12, Some(9))]), Ok(Schema::Newer { version: 12, known: 10 }));
        // One that takes something away is not undone by the next.
        assert_eq!(judge(10, &[(11, Some(11)), (12, Some(10))]), Err(Incompatible { version: 12, oldest: 11, known: 10 }));
        assert_eq!(judge(10, &[(11, None), (12, Some(10))]), Err(Incompatible { version: 12, oldest: 11, known: 10 }));
        assert_eq!(judge(11, &[(12, Some(11))]), Ok(Schema::Newer { version: 12, known: 11 }));
    }
}
