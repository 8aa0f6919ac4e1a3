//! The command line as it was typed.
//!
//! Owns the grammar and the help texts, nothing else: sizes and numbers are parsed, nothing is looked at or resolved. The
//! commands, flags and exit codes named in the README are relied on by scripts; add to them, never change one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use forestall_server::NbdAddr;

use crate::size::{parse_rate, parse_size};

mod backups;
mod health;
mod inject;
mod manage;
mod numbers;
mod pairs;

pub use backups::{BackupWord, WorkDiskCommand, WorkVolumeCommand};
pub use health::{HealthCommand, PolicyCommand, Switch};
pub use inject::{FaultWord, InjectArgs, OpWord};
pub use manage::{
    DiskCommand, GroupCommand, ReplaceArgs, ReplaceCommand, RoleWord, ScrubArgs, VolumeCommand,
};
use numbers::{parse_bits, parse_whole, with_negative_values};
pub use pairs::PairCommand;

/// What a path of a disk in memory begins with.
const MEMORY: &str = "memory:";

/// Flags of every command.
const GLOBAL: &str = "Options of every command";

/// Flags that make sense with such paths only.
const IN_MEMORY: &str = "Options for an array in memory (memory:SIZE only)";

/// A disk array that acts before a disk fails.
#[derive(Debug, Parser)]
#[command(name = "forestall", version, propagate_version = true, arg_required_else_help = true)]
#[command(
    after_help = "Sizes: 64MiB, 1.5TiB, 18GB, or plain bytes. Exit codes: 0 done, 1 refused or failed, 2 usage;\n\
    `status` answers 0 healthy, 3 degraded, 4 failed.\n\n\
    Start with:  forestall demo"
)]
pub struct Cli {
    /// Management socket of the running server
    #[arg(short, long, global = true, env = "FORESTALL_SOCKET", value_name = "SOCKET", help_heading = GLOBAL)]
    pub socket: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What was typed, or what is wrong with it.
    ///
    /// # Errors
    /// Those of the grammar, with exit code 2; help and version, with 0.
    pub fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let mut grammar = with_negative_values(Self::command());
        let mut matches = grammar.try_get_matches_from_mut(line)?;
        let cli = Self::from_arg_matches_mut(&mut matches);
        let cli = cli.map_err(|error| error.format(&mut grammar))?;
        if let Command::Serve(serve) = &cli.command {
            serve.check()?;
        }
        Ok(cli)
    }
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Label disks as a new array
    Create(CreateArgs),
    /// Assemble an array and serve its volumes over NBD, in the foreground
    Serve(ServeArgs),
    /// Add, remove, fail, bring back or list disks
    #[command(subcommand)]
    Disk(DiskCommand),
    /// Make, delete, continue or list RAID groups
    #[command(subcommand)]
    Group(GroupCommand),
    /// Make, grow, rename, delete or list volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Copy a disk to a spare while it stays in service, then swap them
    Replace(ReplaceArgs),
    /// Keep volumes for the writes of groups that are shielded while a disk is copied
    #[command(subcommand)]
    WorkVolume(WorkVolumeCommand),
    /// Keep disks for the writes of groups that are shielded while a disk is copied
    #[command(subcommand)]
    WorkDisk(WorkDiskCommand),
    /// Let a volume of another group follow a volume
    #[command(subcommand)]
    Pair(PairCommand),
    /// Compare copies and parity of a group, and mend them with --repair
    Scrub(ScrubArgs),
    /// List long work: rebuilds, replacements, scrubs
    Jobs(JobsArgs),
    /// What is wrong, what is being done about it, what another failure would cost
    #[command(after_help = "Exit codes: 0 healthy, 3 degraded, 4 failed, 1 no server answers.")]
    Status(StatusArgs),
    /// Print a table of the design
    Show(ShowArgs),
    /// Each disk's errors and verdict, and the thresholds that decide
    #[command(subcommand)]
    Health(HealthCommand),
    /// What is done about a disk that is expected to fail
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Print the event log
    Events(EventsArgs),
    /// Make a disk misbehave (arrays created with --allow-injection only)
    Inject(InjectArgs),
    /// Show what is on a disk, without a server and without changing it
    Inspect(InspectArgs),
    /// Look at a whole array without a server and without writing a byte: is it sound, repairable, or is something lost
    Check(CheckArgs),
    /// Write what is damaged anew from what is whole, without serving
    Repair(RepairArgs),
    /// Wipe the labels of disks that no server uses; their data is gone for Forestall
    Destroy(DestroyArgs),
    /// Stop the server: drain, flush, close
    Stop,
    /// Watch an array on temporary files survive failing disks; needs neither root nor real disks
    Demo(DemoArgs),
    /// Print a completion script
    #[command(hide = true)]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// RAID levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LevelWord {
    /// Striping without redundancy
    #[value(name = "0")]
    Raid0,
    /// Mirror of all members
    #[value(name = "1")]
    Raid1,
    /// One parity
    #[value(name = "5")]
    Raid5,
    /// Two parities
    #[value(name = "6")]
    Raid6,
    /// Striped two-way mirrors
    #[value(name = "10")]
    Raid10,
}

/// How disks are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IoWord {
    /// io_uring with O_DIRECT where the file system takes it
    Uring,
    /// Plain system calls on helper threads
    Pread,
}

/// What a parity group's journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum JournalWord {
    /// Parts of stripes with their data, full stripes by their checksums
    #[default]
    Partial,
    /// Everything with its data: a crash with a lost member leaves old or new, at twice the bytes for large writes
    Full,
    /// Nothing: a crash together with a lost member may lose data
    Off,
}

/// `create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    forestall create vault d1 d2 d3 d4 d5 d6 --size 1GiB --level 5 --spares 1\n  \
    forestall create vault /dev/sd[b-g] --level 6 --spares 1 --volume data\n\n\
    Without --level the disks are only labelled; `group create` and `volume create` make the rest\n\
    on the running server.")]
pub struct CreateArgs {
    /// Name of the array
    pub name: String,
    /// Files or block devices, disks 1 to n in this order
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
    /// Make missing files, sparse, this large
    #[arg(long, value_parser = parse_size)]
    pub size: Option<u64>,
    /// Make one group of all but the last --spares disks, and one volume over all of it
    #[arg(long)]
    pub level: Option<LevelWord>,
    /// Chunk of that group, 4KiB to 1MiB
    #[arg(long, value_parser = parse_chunk, default_value = "64KiB", requires = "level")]
    pub chunk: u32,
    /// Journal of that group, if it has parity
    #[arg(long, value_enum, default_value_t, requires = "level")]
    pub journal: JournalWord,
    /// Keep no checksums of that group's blocks: what a disk gives wrong is then found by scrubs at best
    #[arg(long, requires = "level")]
    pub no_checksums: bool,
    /// How many of the last disks become spares
    #[arg(long, default_value_t = 0, requires = "level", value_name = "N", value_parser = parse_whole::<usize>)]
    pub spares: usize,
    /// Name of that volume [default: the array's name]
    #[arg(long, requires = "level", value_name = "VOL")]
    pub volume: Option<String>,
    /// Let `inject` make disks of this array misbehave
    #[arg(long)]
    pub allow_injection: bool,
    /// Overwrite file systems and labels found on the disks
    #[arg(long)]
    pub force: bool,
}

/// `serve`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    forestall serve --scan /dev --nbd tcp:127.0.0.1:10809\n  \
    forestall serve d1 d2 d3 d4 d5 d6 --nbd unix:/run/vault.nbd --on-event 'mail -s \"$FORESTALL_EVENT_MESSAGE\" root'\n  \
    forestall serve memory:1GiB            (an array in memory, gone at the end; for benches)\n\n\
    Prints `ready` on stdout when clients may connect; everything else goes to stderr.\n\
    SIGTERM and SIGINT drain, flush and exit 0; one that comes a second or more after the first exits at once.")]
pub struct ServeArgs {
    /// The array's disks, in any order; or only memory:SIZE, for an array that lives in memory
    #[arg(value_name = "PATH", required_unless_present = "scan")]
    pub paths: Vec<String>,
    /// Use every file and block device directly in these folders that carries a label
    #[arg(long, num_args = 1.., value_name = "DIR")]
    pub scan: Vec<PathBuf>,
    /// Where NBD clients connect: unix:PATH or tcp:HOST:PORT; may be given more than once
    /// [default: unix socket beside the management socket, with extension nbd]
    #[arg(long, value_name = "ADDRESS")]
    pub nbd: Vec<NbdAddr>,
    /// How disks are read and written
    #[arg(long, default_value = "uring")]
    pub io: IoWord,
    /// Start although half or more of the disks are missing
    #[arg(long)]
    pub degraded: bool,
    /// Wait this long for all disks before starting without those that are missing
    #[arg(long, value_name = "SECS", default_value_t = 0, value_parser = parse_whole::<u64>)]
    pub wait: u64,
    /// Where two halves of an array ran apart: take the side of this disk
    #[arg(long, value_name = "DISK")]
    pub choose: Option<u32>,
    /// Start a parity group that stopped uncleanly and lacks a member; what was being written then may be wrong
    #[arg(long)]
    pub accept_write_hole: bool,
    /// Start without redirected writes that cannot be read: they are gone then, and their volumes hold what their own group has
    #[arg(long)]
    pub give_up_backups: bool,
    /// Run this shell command for events; FORESTALL_EVENT_MESSAGE and others are set, the event is JSON on stdin
    #[arg(long, value_name = "CMD")]
    pub on_event: Option<String>,
    /// The least severity that runs it
    #[arg(long, default_value = "warning", value_name = "SEVERITY")]
    pub on_event_from: SeverityWord,
    /// Count a disk's request as timed out after this many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = parse_whole::<u64>)]
    pub disk_timeout: u64,
    /// Check every group this often, in hours; 0 never
    #[arg(long, value_name = "HOURS", default_value_t = 0, value_parser = parse_whole::<u64>)]
    pub scrub_every: u64,
    /// Level of an array in memory [default: 0]
    #[arg(long, help_heading = IN_MEMORY)]
    pub level: Option<LevelWord>,
    /// Chunk of an array in memory [default: 64KiB]
    #[arg(long, value_parser = parse_chunk, help_heading = IN_MEMORY)]
    pub chunk: Option<u32>,
    /// Name of the volume of an array in memory [default: memory]
    #[arg(long, value_name = "VOL", help_heading = IN_MEMORY)]
    pub volume: Option<String>,
}

impl ServeArgs {
    /// What shapes an array that is made now says nothing of one that is on disks already: it would be ignored.
    fn check(&self) -> Result<(), clap::Error> {
        let in_memory = self.scan.is_empty() && self.paths.iter().all(|p| p.starts_with(MEMORY));
        let shaped = [
            (self.level.is_some(), "--level"),
            (self.chunk.is_some(), "--chunk"),
            (self.volume.is_some(), "--volume"),
        ];
        match shaped.into_iter().find(|(given, _)| *given) {
            Some((_, flag)) if !in_memory => Err(usage_error(
                "serve",
                &format!(
                    "{flag} is for arrays in memory (memory:SIZE); an array on disks has its shape since `create`"
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }
}

/// What the grammar alone cannot refuse, told as the grammar does.
fn usage_error(command: &str, why: &str) -> clap::Error {
    let mut all = Cli::command();
    all.build();
    let command = all.find_subcommand_mut(command).expect("one of ours");
    command.error(clap::error::ErrorKind::ArgumentConflict, why)
}

/// Severities of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SeverityWord {
    /// For the record
    Info,
    /// Something was lost that redundancy covers
    Warning,
    /// Data does not answer, or soon may not
    Critical,
}

/// `jobs`.
#[derive(Debug, Args)]
pub struct JobsArgs {
    /// Show progress until no work is under way; exit code 1 if some of it failed
    #[arg(long)]
    pub wait: bool,
    /// Change the limit of this job to --rate
    #[arg(long, value_name = "JOB", requires = "rate", conflicts_with = "wait", value_parser = parse_whole::<u64>)]
    pub limit: Option<u64>,
    /// MiB a second; 0 is no limit
    #[arg(long, value_parser = parse_rate, value_name = "MIB_S", requires = "limit")]
    pub rate: Option<u64>,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// List every disk, also where there are many and nothing is wrong with them
    #[arg(long)]
    pub all: bool,
}

/// `show`.
#[derive(Debug, Args)]
#[command(after_help = "Columns are aligned on a terminal and separated by tabs elsewhere.")]
pub struct ShowArgs {
    /// Which one
    pub table: TableWord,
    /// How many bits of each bitmap (t2, t4) [default: 12 and 10]
    #[arg(long, value_name = "N", value_parser = parse_bits)]
    pub bits: Option<u64>,
}

/// Tables of the design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TableWord {
    /// Groups with their volumes, disks and levels
    T1,
    /// Pairs of volumes and where they differ
    T2,
    /// Disks with their errors, the level of each bucket, and the verdict
    T3,
    /// Work volumes, whose writes they take and what is not home yet
    T4,
    /// Disks of groups whose writes go to a work disk
    T5,
    /// Work disks and whose writes they take
    T6,
    /// Blocks on work disks that are not home yet
    T7,
}

/// `events`.
#[derive(Debug, Args)]
#[command(after_help = "With --json: a list, or with --follow one object a line.")]
pub struct EventsArgs {
    /// Go on with new events until interrupted
    #[arg(short, long)]
    pub follow: bool,
    /// Only events with a higher sequence number
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = parse_whole::<u64>)]
    pub after: u64,
}

/// `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// File or block device
    pub path: String,
}

/// `check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 sound, 3 repairable, 4 something is lost, 1 not to be looked at.\n\n\
    Every disk is opened for reading only. Labels, configurations, every map page in both places, journals, logs and bitmaps\n\
    are judged as a start would judge them; with --data every volume is read and copies and parity are compared, too."
)]
pub struct CheckArgs {
    /// The array's disks, in any order
    #[arg(value_name = "PATH", required_unless_present = "scan")]
    pub paths: Vec<String>,
    /// Look at every file and block device directly in these folders that carries a label
    #[arg(long, num_args = 1.., value_name = "DIR")]
    pub scan: Vec<PathBuf>,
    /// Read all data, too
    #[arg(long)]
    pub data: bool,
}

/// `repair`.
#[derive(Debug, Args)]
#[command(
    after_help = "Says which regions of which disks it writes, then does so: as a start and an orderly stop of the array would. \
    What a start refuses is refused, and disks in use are.\n\n\
    Exit codes are those of `check`, for the array as it is afterwards (with --dry-run: as it is)."
)]
pub struct RepairArgs {
    /// The array's disks, in any order
    #[arg(value_name = "PATH", required_unless_present = "scan")]
    pub paths: Vec<String>,
    /// Take every file and block device directly in these folders that carries a label
    #[arg(long, num_args = 1.., value_name = "DIR")]
    pub scan: Vec<PathBuf>,
    /// Only say what would be written
    #[arg(long)]
    pub dry_run: bool,
}

/// `destroy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Asks nothing. Refuses disks without a label and disks in use; then nothing is wiped."
)]
pub struct DestroyArgs {
    /// Files or block devices
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
}

/// `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave the array running at the end and print how to mount it
    #[arg(long)]
    pub keep: bool,
}

fn parse_chunk(text: &str) -> Result<u32, String> {
    let size = parse_size(text)?;
    let fits = size.is_power_of_two() && (4096..=1 << 20).contains(&size);
    if fits {
        Ok(size as u32)
    } else {
        Err(format!("`{text}`: a chunk is a power of two from 4KiB to 1MiB"))
    }
}

#[cfg(test)]
mod tests;
