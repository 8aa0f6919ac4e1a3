//! Opening a path so that no second server can have it.
//!
//! Owns [`OwnedFile`]: the part of rule C6 that the operating system can enforce. A regular file carries an exclusive lock, a
//! block device is opened exclusively (which also keeps mounted or otherwise used devices out) and locked as well;
//! both last as long as the `OwnedFile`. Servers on other machines do not see these locks; the owner block
//! on the disk, kept by the server, is for them.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use forestall_engine::{BLOCK_SIZE, DiskIdentity};
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;
use thiserror::Error;

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A block device.
    Block,
}

/// What the file is opened for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// To look at it only; still exclusive.
    Read,
    /// To use it as a disk.
    ReadWrite,
}

/// How a path is found in use; the operating system tells no more than this.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UsedBy {
    /// Somebody holds the lock that servers take.
    Lock,
    /// The block device is held exclusively.
    Exclusive,
}

impl fmt::Display for UsedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lock => "another process has locked it, as a running server does",
            Self::Exclusive => {
                "it is mounted, swapped to, part of another device, or a server has it"
            }
        })
    }
}

/// Which file or device a path leads to, whatever it is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileId {
    /// A block device, by its number.
    Device(u64),
    /// Anything else that is there, by file system and inode.
    Inode(u64, u64),
    /// A name where nothing is, in the folder that is there.
    Free(u64, u64, OsString),
}

impl FileId {
    /// Looks where `path` leads; `None` if even its folder is not to be had.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        if let Ok(metadata) = std::fs::metadata(path) {
            return Some(match kind_of(&metadata) {
                Some(FileKind::Block) => Self::Device(metadata.rdev()),
                Some(FileKind::Regular) | None => Self::Inode(metadata.dev(), metadata.ino()),
            });
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = std::fs::metadata(folder.unwrap_or(Path::new("."))).ok()?;
        Some(Self::Free(folder.dev(), folder.ino(), path.file_name()?.to_owned()))
    }
}

/// Why a path could not be had. Nothing on it was changed.
#[derive(Debug, Error)]
pub enum OwnError {
    /// There is nothing.
    #[error("{}: no such file or device", .0.display())]
    NotFound(PathBuf),
    /// Another process has it, or this one has it already.
    #[error("{}: in use: {by}; stop what uses it first", path.display())]
    InUse {
        /// The path.
        path: PathBuf,
        /// How that was seen.
        by: UsedBy,
    },
    /// Neither a regular file nor a block device.
    #[error("{}: neither a regular file nor a block device", .0.display())]
    NotADisk(PathBuf),
    /// Anything else.
    #[error("{}: {error}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
}

/// An open file or block device that nobody else on this machine can own.
#[derive(Debug)]
pub struct OwnedFile {
    file: File,
    kind: FileKind,
    size: u64,
    identity: DiskIdentity,
}

impl OwnedFile {
    /// Opens `path` and takes ownership of it.
    ///
    /// # Errors
    /// [`OwnError`], naming the path.
    pub fn open(path: &Path, access: Access) -> Result<Self, OwnError> {
        let failed = |error: io::Error| match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT) => OwnError::NotFound(path.into()),
            Some(Errno::BUSY) => OwnError::InUse { path: path.into(), by: UsedBy::Exclusive },
            Some(Errno::WOULDBLOCK) => OwnError::InUse { path: path.into(), by: UsedBy::Lock },
            _ => OwnError::Io { path: path.into(), error },
        };
        // Looked at before opening: opening a pipe or a tape has effects of its own.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let kind = kind_of(&metadata).ok_or_else(|| OwnError::NotADisk(path.into()))?;
        // On a block device, O_EXCL without O_CREAT fails while anything else holds it exclusively.
        let exclusive = if kind == FileKind::Block { OFlags::EXCL } else { OFlags::empty() };
        let flags = i32::try_from(exclusive.bits()).expect("flags of open are an int");
        let mut file = OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            .custom_flags(flags)
            .open(path)
            .map_err(failed)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|errno| failed(errno.into()))?;
        let bytes = match kind {
            FileKind::Regular => file.metadata().map_err(failed)?.len(),
            FileKind::Block => file.seek(SeekFrom::End(0)).map_err(failed)?,
        };
        let identity = identity_of(path, kind, &metadata);
        Ok(Self { file, kind, size: bytes / BLOCK_SIZE * BLOCK_SIZE, identity })
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Regular file or block device.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.kind
    }

    /// Size in bytes, rounded down to a multiple of 4096.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Path, serial number and model, as far as they are known.
    #[must_use]
    pub fn identity(&self) -> &DiskIdentity {
        &self.identity
    }
}

impl AsFd for OwnedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn kind_of(metadata: &Metadata) -> Option<FileKind> {
    let file_type = metadata.file_type();
    if file_type.is_file() {
        Some(FileKind::Regular)
    } else if file_type.is_block_device() {
        Some(FileKind::Block)
    } else {
        None
    }
}

/// What `/sys` knows of a block device; a partition is told by the disk that it is on.
fn identity_of(path: &Path, kind: FileKind, metadata: &Metadata) -> DiskIdentity {
    let mut identity = DiskIdentity { path: path.display().to_string(), ..DiskIdentity::default() };
    if kind == FileKind::Block {
        let number = metadata.rdev();
        let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
        let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let attribute = |name: &str| {
            ["device", "../device", "."].iter().find_map(|place| {
                let text = std::fs::read_to_string(device.join(place).join(name)).ok()?;
                let text = text.trim();
                (!text.is_empty()).then(|| text.to_owned())
            })
        };
        identity.serial = attribute("serial").or_else(|| attribute("wwid"));
        identity.model = match (attribute("vendor"), attribute("model")) {
            (Some(vendor), Some(model)) => Some(format!("{vendor} {model}")),
            (vendor, model) => model.or(vendor),
        };
    }
    identity
}

/// Makes a sparse file of `size` bytes where there is none.
///
/// # Errors
/// If there is something already, or the file cannot be made; half-made files are removed.
pub fn create_sparse(path: &Path, size: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.set_len(size).inspect_err(|_| {
        // The first error is the one to tell.
        let _ignored = std::fs::remove_file(path);
    })
}

/// What tells this machine from others: the machine id, else the id of this boot. `None` where the system has neither;
/// such a machine never recognises its own owner blocks and waits a few beats instead.
#[must_use]
pub fn machine_id() -> Option<[u8; 16]> {
    ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"].iter().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).ok().filter(|id| *id != 0).map(u128::to_be_bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_owner_until_it_is_let_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("disk");
        create_sparse(&path, 10_000).expect("a new file");
        create_sparse(&path, 1).expect_err("never over an existing file");
        let owned = OwnedFile::open(&path, Access::ReadWrite).expect("nobody has it");
        assert_eq!((owned.kind(), owned.size()), (FileKind::Regular, 8192));
        assert_eq!(owned.identity().path, path.display().to_string());

        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        for name in [&path, &link] {
            let refused = OwnedFile::open(name, Access::Read).expect_err("it has an owner");
            assert!(matches!(refused, OwnError::InUse { by: UsedBy::Lock, .. }), "{refused}");
            assert_eq!(FileId::of(name), FileId::of(&path), "one file, whatever its name");
        }
        drop(owned);
        OwnedFile::open(&link, Access::ReadWrite).expect("it was let go");
    }

    #[test]
    fn a_file_is_known_under_each_of_its_names_and_before_it_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, other) = (dir.path().join("disk"), dir.path().join("other"));
        let roundabout = dir.path().join(".").join("disk");
        assert!(FileId::of(&path).is_some(), "nothing is there yet");
        assert_eq!(FileId::of(&path), FileId::of(&roundabout));
        assert_ne!(FileId::of(&path), FileId::of(&other));
        create_sparse(&path, 4096).expect("a new file");
        assert_eq!(FileId::of(&path), FileId::of(&roundabout));
        assert_ne!(FileId::of(&path), FileId::of(&other));
        assert_eq!(FileId::of(&dir.path().join("none").join("disk")), None);
    }

    #[test]
    fn what_is_no_disk_is_told_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = |path: &Path| OwnedFile::open(path, Access::Read).expect_err("no disk");
        assert!(matches!(open(dir.path()), OwnError::NotADisk(_)));
        assert!(matches!(open(Path::new("/dev/null")), OwnError::NotADisk(_)));
        assert!(matches!(open(&dir.path().join("none")), OwnError::NotFound(_)));
    }
}
