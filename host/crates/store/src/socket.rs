//! A place for billing's socket whose path fits into a socket address.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use wasmeter_types::Digest;

/// unix(7): the path in a socket address has 108 bytes, the closing NUL among them.
const MOST: usize = 107;
const NAME: &str = "billing.sock";

/// The socket in the data directory; where that path is too long, in a private directory of its own whose name is
/// made of the data directory's path, so that a restart finds the same.
pub(crate) fn billing_socket(data: &Path) -> io::Result<PathBuf> {
    let direct = data.join(NAME);
    if direct.as_os_str().len() <= MOST {
        return Ok(direct);
    }
    let uid = rustix::process::geteuid().as_raw();
    let id = Digest::of(data.as_os_str().as_bytes()).short();
    let run = PathBuf::from(format!("/run/user/{uid}"));
    let dir = if fs::metadata(&run).is_ok_and(|m| m.is_dir() && m.uid() == uid) {
        run.join(format!("wasmeter-{id}"))
    } else {
        PathBuf::from(format!("/tmp/wasmeter-{uid}-{id}"))
    };
    private_dir(&dir, uid)?;
    let socket = dir.join(NAME);
    tracing::info!(
        data = %data.display(), socket = %socket.display(),
        "the data directory's path is too long for a socket in it: billing's socket is elsewhere"
    );
    Ok(socket)
}

/// Creates the directory, or makes sure that the one that is there is ours alone: anybody may create names in /tmp.
fn private_dir(dir: &Path, uid: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir)?;
    if !metadata.is_dir() || metadata.uid() != uid || metadata.permissions().mode() & 0o077 != 0 {
        let message = format!("{} is not a private directory of ours: remove it", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_long_path_gets_a_socket_that_can_be_bound() {
        let short = tempfile::tempdir().unwrap();
        assert_eq!(billing_socket(short.path()).unwrap(), short.path().join(NAME));
        let long = short.path().join("x".repeat(120));
        let socket = billing_socket(&long).unwrap();
        assert!(socket.as_os_str().len() <= MOST && !socket.starts_with(short.path()));
        assert_eq!(billing_socket(&long).unwrap(), socket);
        drop(UnixListener::bind(&socket).unwrap());
        let dir = socket.parent().unwrap();
        assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(billing_socket(&long).is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_longest_path_that_fits_is_used() {
        let base = tempfile::tempdir().unwrap();
        let room = MOST - NAME.len() - 1 - base.path().as_os_str().len() - 1;
        let dir = base.path().join("y".repeat(room));
        fs::create_dir(&dir).unwrap();
        let socket = billing_socket(&dir).unwrap();
        assert!(socket.starts_with(&dir));
        UnixListener::bind(&socket).unwrap();
    }
}
