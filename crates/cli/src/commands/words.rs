//! From typed words to the types of the engine and the server.

use forestall_engine::{DiskRole, JournalMode, Level, Severity};
use forestall_server::IoChoice;

use crate::args::{IoWord, JournalWord, LevelWord, RoleWord, SeverityWord};

impl From<JournalWord> for JournalMode {
    fn from(word: JournalWord) -> Self {
        match word {
            JournalWord::Partial => Self::Partial,
            JournalWord::Full => Self::Full,
            JournalWord::Off => Self::Off,
        }
    }
}

impl From<LevelWord> for Level {
    fn from(word: LevelWord) -> Self {
        match word {
            LevelWord::Raid0 => Self::Raid0,
            LevelWord::Raid1 => Self::Raid1,
            LevelWord::Raid5 => Self::Raid5,
            LevelWord::Raid6 => Self::Raid6,
            LevelWord::Raid10 => Self::Raid10,
        }
    }
}

impl From<RoleWord> for DiskRole {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Spare => Self::Spare,
            RoleWord::Free => Self::Free,
        }
    }
}

impl From<IoWord> for IoChoice {
    fn from(word: IoWord) -> Self {
        match word {
            IoWord::Uring => Self::Uring,
            IoWord::Pread => Self::Pread,
        }
    }
}

impl From<SeverityWord> for Severity {
    fn from(word: SeverityWord) -> Self {
        match word {
            SeverityWord::Info => Self::Info,
            SeverityWord::Warning => Self::Warning,
            SeverityWord::Critical => Self::Critical,
        }
    }
}
