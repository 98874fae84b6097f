use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::fill;

use crate::LedgerError;

/// Where the private key lies beside a ledger.
pub(crate) fn path(ledger: &Path) -> PathBuf {
    ledger.with_file_name("keys").join("receipt.key")
}

/// The 32 bytes of the private key: 64 hexadecimal digits in a file of mode 0600, which is made where it is missing.
pub(crate) fn load_or_make(path: &Path) -> Result<[u8; 32], LedgerError> {
    let fault = |what: String| LedgerError::Key { path: path.to_owned(), what };
    match read(path) {
        Ok(text) => parse(&text).map_err(fault),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path).map_err(|e| fault(format!("cannot be made: {e}")))
        }
        Err(error) => Err(fault(error.to_string())),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(io::Error::other(format!("is open to others (mode {mode:03o}); run chmod 600 on it")));
    }
    let mut text = String::new();
    file.take(1024).read_to_string(&mut text)?;
    Ok(text)
}

fn parse(text: &str) -> Result<[u8; 32], String> {
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed).map_err(|_| {
        "is not 64 hexadecimal digits; restore it, or move it away and a new key is made".to_owned()
    })?;
    Ok(seed)
}

/// Written beside and renamed, so that a crash leaves a whole key or none.
fn make(path: &Path) -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    fill(&mut seed).map_err(|_| io::Error::other("no random bytes"))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(format!("{}\n", hex::encode(seed)).as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    File::open(folder)?.sync_all()?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_and_the_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(&dir.path().join("ledger.sqlite"));
        let seed = load_or_make(&path).unwrap();
        assert_eq!(load_or_make(&path).unwrap(), seed);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);

        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(load_or_make(&path).unwrap_err().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&path, "short").unwrap();
        assert!(load_or_make(&path).unwrap_err().to_string().contains("64 hexadecimal"));
        std::fs::remove_file(&path).unwrap();
        assert_ne!(load_or_make(&path).unwrap(), seed);
    }
}
