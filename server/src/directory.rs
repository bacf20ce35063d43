//! Directories that only this user can read.

use std::fs::DirBuilder;
use std::io;
use std::path::Path;

/// Makes a directory, and those above it, readable by this user only. One that is there stays as it is.
pub(crate) fn make_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nobody_else_can_enter() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("data/cache");
        make_private_directory(&inner).unwrap();
        make_private_directory(&inner).unwrap();
        for made in [&folder.path().join("data"), &inner] {
            assert_eq!(std::fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }
}
