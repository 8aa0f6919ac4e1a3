//! The management socket: where it is, who may use it, and who owns it.
//!
//! Invariants: the socket never exists with wider permissions than 0600 (it is bound under a private name and renamed into
//! place); a socket that somebody answers on is never taken over; only our own socket is removed at the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why the management socket could not be had.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error("another server answers at {}; choose another place with --socket", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket has that name.
    #[error("{} exists and is not a socket; remove it or choose another place with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The folder for sockets in the temporary folder is another user's.
    #[error("{} belongs to another user; choose another place with --socket", .0.display())]
    ForeignFolder(PathBuf),
    /// The operating system refused.
    #[error("cannot make the management socket {}: {error}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
}

/// The socket used when none is named: `/run/forestall.sock` for root, else `$XDG_RUNTIME_DIR/forestall.sock`, else
/// `forestall-UID/forestall.sock` in the folder for temporary files.
#[must_use]
pub fn default_socket() -> PathBuf {
    let uid = rustix::process::getuid();
    if uid.is_root() {
        return PathBuf::from("/run/forestall.sock");
    }
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => Path::new(&dir).join("forestall.sock"),
        None => temporary_folder().join("forestall.sock"),
    }
}

fn temporary_folder() -> PathBuf {
    std::env::temp_dir().join(format!("forestall-{}", rustix::process::getuid().as_raw()))
}

/// The bound socket, removed when dropped.
#[derive(Debug)]
pub struct ManagementSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, to know our own socket again.
    identity: (u64, u64),
}

impl ManagementSocket {
    /// Binds the socket at `path`, taking over a stale one.
    ///
    /// # Errors
    /// If somebody answers there, if the name belongs to something else, or if the operating system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io_error = |error| SocketError::Io { path: path.to_owned(), error };
        prepare_folder(path)?;
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => {
                return Err(SocketError::InUse(path.to_owned()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error(error)),
        }
        let mut private = path.as_os_str().to_owned();
        private.push(format!(".{}", std::process::id()));
        let private = PathBuf::from(private);
        let bound = UnixListener::bind(&private).and_then(|listener| {
            fs::set_permissions(&private, Permissions::from_mode(0o600))?;
            let meta = fs::symlink_metadata(&private)?;
            fs::rename(&private, path)?;
            listener.set_nonblocking(true)?;
            Ok((listener, (meta.dev(), meta.ino())))
        });
        match bound {
            Ok((listener, identity)) => Ok(Self { listener, path: path.to_owned(), identity }),
            Err(error) => {
                // Nothing is left behind under the private name; the first error is the one to tell.
                let _ = fs::remove_file(&private);
                Err(io_error(error))
            }
        }
    }

    /// A second handle to listen on, non-blocking.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ManagementSocket {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            // A socket that stays behind is taken over by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes our private folder in the temporary folder where the socket is to lie in it, and makes sure that it is ours.
fn prepare_folder(path: &Path) -> Result<(), SocketError> {
    let folder = temporary_folder();
    if path.parent() != Some(&folder) {
        return Ok(());
    }
    let io_error = |error| SocketError::Io { path: path.to_owned(), error };
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io_error(error)),
        Ok(()) | Err(_) => {}
    }
    let meta = fs::symlink_metadata(&folder).map_err(io_error)?;
    let ours = meta.is_dir() && meta.uid() == rustix::process::getuid().as_raw();
    if ours { Ok(()) } else { Err(SocketError::ForeignFolder(folder)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_taken_over_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("m.sock");
        drop(UnixListener::bind(&path).expect("a socket that nobody listens on any more"));

        let socket = ManagementSocket::bind(&path).expect("stale sockets are taken over");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(UnixStream::connect(&path).is_ok());

        assert!(matches!(ManagementSocket::bind(&path), Err(SocketError::InUse(_))));
        assert!(UnixStream::connect(&path).is_ok(), "the refused server left the socket alone");

        drop(socket);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn only_our_own_socket_is_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("m.sock");
        let socket = ManagementSocket::bind(&path).expect("bound");
        fs::remove_file(&path).expect("somebody removed it");
        let _other = UnixListener::bind(&path).expect("and made another");
        drop(socket);
        assert!(path.exists());
    }

    #[test]
    fn a_file_of_that_name_is_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("precious");
        fs::write(&path, b"data").expect("written");
        assert!(matches!(ManagementSocket::bind(&path), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).expect("still there"), b"data");
    }
}
