use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// No key or secret is longer.
const MAX_SECRET: u64 = 1024;

/// A secret, Stripe's or another server's, never shown.
#[derive(Clone)]
pub struct Secret(String);

/// Why a file holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Others may read it.
    #[error("{} is open to others (mode {mode:03o}); run chmod 600 on it", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Not one line of printable characters.
    #[error("{} does not hold one line with a key of at most {MAX_SECRET} characters", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// Reads a file of mode 0600 that holds one line.
    ///
    /// # Errors
    /// [`SecretError`].
    pub fn read(path: &Path) -> Result<Self, SecretError> {
        let fail = |error| SecretError::Read { path: path.to_owned(), error };
        // The mode is that of the file that is read, not of one that had the name a moment before.
        let file = File::open(path).map_err(fail)?;
        let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        file.take(MAX_SECRET + 1).read_to_string(&mut text).map_err(fail)?;
        Self::parse(&text).ok_or_else(|| SecretError::Shape { path: path.to_owned() })
    }

    /// A secret of one line; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let line = text.trim_end_matches(['\r', '\n']);
        let fits = !line.is_empty() && line.len() as u64 <= MAX_SECRET;
        (fits && line.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(line.to_owned()))
    }

    /// The text itself, for who sends it where it belongs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_line_of_a_private_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "sk_test_1\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let key = Secret::read(&path).unwrap();
        assert_eq!(key.expose(), "sk_test_1");
        assert_eq!(format!("{key:?}"), "Secret(…)");

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = Secret::read(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("sk_test"), "{error}");

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        for bad in ["", "\n", "a\nb", "a b"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(Secret::read(&path), Err(SecretError::Shape { .. })), "{bad:?}");
        }
        assert!(matches!(Secret::read(&dir.path().join("none")), Err(SecretError::Read { .. })));
    }
}
