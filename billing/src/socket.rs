use std::fs::{Permissions, remove_file, set_permissions, symlink_metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::net::{UnixListener, UnixStream};

/// The listening socket; its file goes away with it.
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path` with mode 0600. The file of a dead process is replaced; a live one is an error.
    pub(crate) fn bind(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        match symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("cannot look at socket {shown}")),
            Ok(found) if !found.file_type().is_socket() => {
                bail!("{shown} is there and no socket; name another --socket")
            }
            Ok(_) => match StdStream::connect(path) {
                Ok(_) => bail!("a live process listens on {shown}; stop it or name another --socket"),
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    remove_file(path).with_context(|| format!("cannot replace old socket {shown}"))?;
                }
                Err(e) => return Err(e).with_context(|| format!("cannot tell whether {shown} is alive")),
            },
        }
        // The process's umask is 077, so that the file is nobody else's from the first instant.
        let listener = UnixListener::bind(path).with_context(|| {
            format!("cannot listen on {shown} (the folder must exist, the path be under 108 bytes)")
        })?;
        let socket = Self { listener, path: path.to_owned() };
        set_permissions(path, Permissions::from_mode(0o600))
            .with_context(|| format!("cannot set mode of {shown}"))?;
        Ok(socket)
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Best effort: a file that stays is recognised as dead by the next start.
        let _ = remove_file(&self.path);
    }
}

/// Whether the process at the other end runs as our own user (`SO_PEERCRED`).
pub(crate) fn is_own_user(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}
