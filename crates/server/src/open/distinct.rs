//! One disk has many names: which paths lead to the same one.
//!
//! Owns nothing but the comparison. Invariant: what a person names twice is a mistake that is told, with both names; what a scan finds
//! twice (folders of links do that) is taken once. Disks in memory are each their own.

use std::path::Path;

use forestall_disk::FileId;

use super::{OpenError, memory_size};

/// Refuses a list that names one disk twice, before any of them is opened or made.
///
/// # Errors
/// [`OpenError::Twice`], with both names.
pub fn check(paths: &[String]) -> Result<(), OpenError> {
    for (at, path) in paths.iter().enumerate() {
        if let Some(first) = paths[..at].iter().find(|first| same(first, path)) {
            return Err(OpenError::Twice { path: path.clone(), first: first.clone() });
        }
    }
    Ok(())
}

/// Adds the paths that a scan found to those given, each disk once.
pub fn add_scanned(paths: &mut Vec<String>, scanned: Vec<String>) {
    for path in scanned {
        if !paths.iter().any(|known| same(known, &path)) {
            paths.push(path);
        }
    }
}

/// Whether two paths lead to one file or device, or would.
pub fn same(one: &str, other: &str) -> bool {
    if memory_size(one).is_some() || memory_size(other).is_some() {
        return false;
    }
    let id = |path: &str| FileId::of(Path::new(path));
    one == other || id(one).is_some_and(|one| Some(one) == id(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_given_twice_is_named_twice_and_one_found_twice_is_taken_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let name = |name: &str| dir.path().join(name).display().to_string();
        let (disk, link, new) = (name("disk"), name("link"), name("new"));
        std::fs::write(&disk, "").expect("a file");
        std::os::unix::fs::symlink(&disk, &link).expect("a link");

        let twice = |paths: &[&String]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).clone()).collect();
            check(&paths).err().map(|error| error.to_string())
        };
        assert_eq!(twice(&[&disk, &new]), None);
        let same = format!("{new}: given twice; leave one of them out");
        assert_eq!(twice(&[&new, &disk, &new]), Some(same));
        let both = twice(&[&disk, &new, &link]).expect("a refusal");
        assert!(both.contains(&disk) && both.contains(&link) && both.contains("twice"), "{both}");
        let memory = "memory:64MiB".to_owned();
        assert_eq!(twice(&[&memory, &memory]), None, "two disks in memory");

        let mut paths = vec![disk.clone()];
        add_scanned(&mut paths, vec![link, new.clone()]);
        assert_eq!(paths, [disk, new]);
    }
}
