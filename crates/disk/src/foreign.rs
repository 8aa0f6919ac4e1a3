//! Whose data lies on a disk.
//!
//! Owns [`probe`], which knows the marks of the common file systems, volume managers and partition tables. It errs on the
//! safe side: what is neither blank nor known is *unknown data*, never free space. Our own label is no matter of this file:
//! the caller asks the engine first.

use std::borrow::Cow;

/// Bytes at the start and at the end of a disk that [`probe`] wants to see.
pub const PROBE_LEN: usize = 1 << 20;

/// What a disk holds, by its first and last [`PROBE_LEN`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Only zeroes: free to take.
    Blank,
    /// Something with a name, as `an ext2/3/4 file system`.
    Known(&'static str),
    /// Something else.
    Unknown,
}

impl Content {
    /// In words, for a message: `an xfs file system`; `None` when blank.
    #[must_use]
    pub fn describe(self) -> Option<Cow<'static, str>> {
        match self {
            Self::Blank => None,
            Self::Known(name) => Some(name.into()),
            Self::Unknown => Some("data of an unknown kind".into()),
        }
    }
}

/// A mark at a fixed place from the start.
struct Mark {
    at: usize,
    bytes: &'static [u8],
    name: &'static str,
}

const fn mark(at: usize, bytes: &'static [u8], name: &'static str) -> Mark {
    Mark { at, bytes, name }
}

const EXT: &str = "an ext2/3/4 file system";
const SWAP: &str = "swap space";
const MD: &str = "a member of a Linux md array";
const LVM: &str = "an LVM physical volume";
const ZFS: &str = "a member of a ZFS pool";
const GPT: &str = "a GPT partition table";
const BCACHE: &[u8] = b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81";
const BCACHEFS: &[u8] = b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef";
const MD_MAGIC: u32 = 0xa92b_4efc;
const MD_BYTES: &[u8] = &MD_MAGIC.to_le_bytes();

/// Ordered: what says more comes first (a boot sector's file system before the partition table that it resembles).
const MARKS: &[Mark] = &[
    mark(0, b"LUKS\xba\xbe", "a LUKS encrypted volume"),
    mark(0, b"XFSB", "an xfs file system"),
    mark(1080, b"\x53\xef", EXT),
    mark(0x1_0040, b"_BHRfS_M", "a btrfs file system"),
    mark(4086, b"SWAPSPACE2", SWAP),
    mark(4086, b"SWAP-SPACE", SWAP),
    mark(0xfff6, b"SWAPSPACE2", SWAP),
    mark(0, b"LABELONE", LVM),
    mark(512, b"LABELONE", LVM),
    mark(1024, b"LABELONE", LVM),
    mark(1536, b"LABELONE", LVM),
    mark(0, MD_BYTES, MD),
    mark(4096, MD_BYTES, MD),
    mark(4120, BCACHE, "a bcache device"),
    mark(4120, BCACHEFS, "a bcachefs file system"),
    mark(0, b"bluestore block device", "a Ceph BlueStore device"),
    mark(1024, b"\x10\x20\xf5\xf2", "an f2fs file system"),
    mark(1024, b"\xe2\xe1\xf5\xe0", "an erofs file system"),
    mark(0, b"hsqs", "a squashfs file system"),
    mark(0x8001, b"CD001", "an ISO 9660 file system"),
    mark(0x8001, b"NSR0", "a UDF file system"),
    mark(0x8001, b"BEA01", "a UDF file system"),
    mark(3, b"NTFS    ", "an NTFS file system"),
    mark(3, b"EXFAT   ", "an exFAT file system"),
    mark(54, b"FAT1", "a FAT file system"),
    mark(82, b"FAT32   ", "a FAT file system"),
    mark(0, b"QFI\xfb", "a qcow2 image"),
    mark(0, b"KDMV", "a VMDK image"),
    mark(0, b"vhdxfile", "a VHDX image"),
    mark(512, b"EFI PART", GPT),
    mark(4096, b"EFI PART", GPT),
    mark(510, b"\x55\xaa", "an MBR partition table"),
];

/// Names what lies on a disk of `size` bytes, given its first and its last bytes: [`PROBE_LEN`] of each, or
/// all of it where the disk is smaller.
#[must_use]
pub fn probe(head: &[u8], tail: &[u8], size: u64) -> Content {
    let found =
        MARKS.iter().find(|mark| head.get(mark.at..).is_some_and(|at| at.starts_with(mark.bytes)));
    if let Some(mark) = found {
        return Content::Known(mark.name);
    }
    if zfs(head) || zfs(tail) {
        return Content::Known(ZFS);
    }
    if let Some(name) = at_the_end(tail, size) {
        return Content::Known(name);
    }
    if is_zero(head) && is_zero(tail) { Content::Blank } else { Content::Unknown }
}

/// A ZFS label is 256 KiB long and keeps its array of uberblocks from 128 KiB on, in either byte order.
fn zfs(region: &[u8]) -> bool {
    const LABEL: usize = 256 << 10;
    const MAGIC: u64 = 0x00ba_b10c;
    region.chunks_exact(LABEL).any(|label| {
        label[LABEL / 2..].chunks_exact(1024).any(|uberblock| {
            uberblock[..8] == MAGIC.to_le_bytes() || uberblock[..8] == MAGIC.to_be_bytes()
        })
    })
}

/// Marks that are found from the end: old md superblocks and the copy of a GPT.
fn at_the_end(tail: &[u8], size: u64) -> Option<&'static str> {
    let at = |offset: Option<u64>, bytes: &[u8]| {
        offset
            .and_then(|offset| offset.checked_sub(size.checked_sub(tail.len() as u64)?))
            .and_then(|start| usize::try_from(start).ok())
            .and_then(|start| tail.get(start..))
            .is_some_and(|found| found.starts_with(bytes))
    };
    let md_1_0 = (size / 512).checked_sub(16).map(|sector| (sector & !7) * 512);
    let md_0_90 = (size & !0xffff).checked_sub(0x1_0000);
    if at(md_1_0, MD_BYTES) || at(md_0_90, MD_BYTES) || at(md_0_90, &MD_MAGIC.to_be_bytes()) {
        return Some(MD);
    }
    let gpt = [512, 4096].iter().any(|sector| at(size.checked_sub(*sector), b"EFI PART"));
    gpt.then_some(GPT)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 8 << 20;

    fn probe_with(at: usize, bytes: &[u8]) -> Content {
        let mut disk = vec![0; SIZE];
        disk[at..at + bytes.len()].copy_from_slice(bytes);
        probe(&disk[..PROBE_LEN], &disk[SIZE - PROBE_LEN..], SIZE as u64)
    }

    #[test]
    fn every_mark_is_found_and_a_blank_disk_is_blank() {
        for mark in MARKS {
            assert_eq!(probe_with(mark.at, mark.bytes), Content::Known(mark.name), "{}", mark.at);
        }
        assert_eq!(probe_with(0, &[0]), Content::Blank);
        assert_eq!(probe_with(700_000, &[1]), Content::Unknown);
        assert_eq!(probe_with(SIZE - 1, &[1]), Content::Unknown);
    }

    #[test]
    fn marks_at_the_end_are_found() {
        assert_eq!(probe_with(SIZE - 8192, MD_BYTES), Content::Known(MD));
        assert_eq!(probe_with(SIZE - 65536, MD_BYTES), Content::Known(MD));
        assert_eq!(probe_with(SIZE - 512, b"EFI PART"), Content::Known(GPT));
        let uberblock = 0x00ba_b10c_u64.to_le_bytes();
        assert_eq!(probe_with((128 << 10) + 1024, &uberblock), Content::Known(ZFS));
        assert_eq!(probe_with(SIZE - (128 << 10), &uberblock), Content::Known(ZFS));
    }

    #[test]
    fn a_disk_smaller_than_the_probe_is_looked_at_whole() {
        for size in [0, 512, 4096, 70_000] {
            let disk = vec![0; size];
            assert_eq!(probe(&disk, &disk, size as u64), Content::Blank);
        }
        let text = b"a letter to keep";
        assert_eq!(probe(text, text, text.len() as u64), Content::Unknown);
    }
}
