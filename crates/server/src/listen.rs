//! Where clients connect.
//!
//! Owns [`NbdAddr`] and the listening sockets. Invariants: a unix socket is open to its owner alone; a socket file is taken
//! over only if nobody answers on it, and removed at the end only if it is still ours; all addresses are bound, or none.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::net::{TcpListener as StdTcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant};

use compio::net::{TcpListener, UnixListener};
use compio::runtime::JoinHandle;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

use crate::open::DYING_MAX;
use crate::runtime::spawn;
use crate::session::{self, Catalog, Limits, Signal, Stream};

/// Connections that are not yet accepted wait in a queue of this length.
const BACKLOG: i32 = 128;

/// Connections at once. Far more than clients use, and below the usual limit of open files. One more takes the place of the oldest
/// that has not chosen an export yet; where all have, it is closed at once.
const SESSIONS_MAX: usize = 512;

/// Pause between two looks at a socket whose server seems to be dying.
const LOOK: Duration = Duration::from_millis(10);

/// The port that NBD has from IANA.
const PORT: u16 = 10809;

/// An address for NBD clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NbdAddr {
    /// A unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp {
        /// Host name or address to bind to.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
    },
}

/// A text that is no [`NbdAddr`]. Whoever gave it names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("give unix:PATH or tcp:HOST:PORT")]
pub struct BadAddr;

impl FromStr for NbdAddr {
    type Err = BadAddr;

    /// `unix:PATH`, `tcp:HOST:PORT`, `tcp:HOST` (port 10809), `tcp:` (loopback); an IPv6 address stands in brackets.
    fn from_str(text: &str) -> Result<Self, BadAddr> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(BadAddr) } else { Ok(Self::Unix(path.into())) };
        }
        let rest = text.strip_prefix("tcp:").ok_or(BadAddr)?;
        let (host, port) = match rest.strip_prefix('[').map(|inner| inner.split_once(']')) {
            Some(None) => return Err(BadAddr),
            Some(Some((host, port))) => (host, port.strip_prefix(':')),
            None => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = port.map_or(Ok(PORT), |port| port.parse().map_err(|_| BadAddr))?;
        // Loopback unless told otherwise.
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        Ok(Self::Tcp { host: host.into(), port })
    }
}

impl fmt::Display for NbdAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// An address that could not be bound.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody answers there.
    #[error("{0}: another server answers there; stop it or choose another address")]
    InUse(NbdAddr),
    /// There is a file that is no socket; it is left alone.
    #[error("{0}: there is a file that is no socket; remove it or choose another path")]
    NotASocket(NbdAddr),
    /// Anything else.
    #[error("{addr}: cannot listen: {error}")]
    Io {
        /// The address.
        addr: NbdAddr,
        /// What the operating system says.
        error: io::Error,
    },
}

/// A bound address, not yet serving.
pub enum Bound {
    /// A unix socket and the identity of its file.
    Unix { listener: StdUnixListener, path: PathBuf, file: (u64, u64) },
    /// A TCP socket.
    Tcp(StdTcpListener),
}

impl Bound {
    /// Binds `addr` and listens.
    ///
    /// # Errors
    /// [`ListenError`], naming the address.
    pub fn bind(addr: &NbdAddr) -> Result<Self, ListenError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse(addr.clone()),
            _ => ListenError::Io { addr: addr.clone(), error },
        };
        match addr {
            NbdAddr::Unix(path) => {
                if !take_over(path, DYING_MAX).map_err(failed)? {
                    return Err(ListenError::NotASocket(addr.clone()));
                }
                bind_unix(path).map_err(failed)
            }
            NbdAddr::Tcp { host, port } => {
                let candidates = (host.as_str(), *port).to_socket_addrs().map_err(failed)?;
                let candidates: Vec<_> = candidates.collect();
                StdTcpListener::bind(&candidates[..]).map(Self::Tcp).map_err(failed)
            }
        }
    }

    /// The address with the real port.
    pub fn addr(&self) -> NbdAddr {
        match self {
            Self::Unix { path, .. } => NbdAddr::Unix(path.clone()),
            Self::Tcp(listener) => {
                let addr = listener.local_addr().expect("a bound socket has an address");
                NbdAddr::Tcp { host: addr.ip().to_string(), port: addr.port() }
            }
        }
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Self::Unix { path, file, .. } = self
            && file_id(path).is_ok_and(|found| found == *file)
        {
            // A socket file that stays is taken over by the next server.
            let _ignored = std::fs::remove_file(path);
        }
    }
}

/// Makes way for a socket at `path`: removes a socket on which nobody answers. False if there is something else.
///
/// After a crash the kernel takes connections a little longer, until the dead server's io_uring is torn down. A living server speaks first,
/// so one that hangs up without a word is looked at again; whoever is there after `patience` is taken for alive.
fn take_over(path: &Path, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
            Ok(metadata) if !metadata.file_type().is_socket() => return Ok(false),
            Ok(_) => {}
        }
        match StdUnixStream::connect(path) {
            Ok(stream) if seems_alive(&stream, patience) || Instant::now() >= deadline => {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            Ok(_) => std::thread::sleep(LOOK),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return std::fs::remove_file(path).map(|()| true);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the other end does not hang up without a word. One that is silent for `patience` hangs, but lives.
fn seems_alive(mut stream: &StdUnixStream, patience: Duration) -> bool {
    if stream.set_read_timeout(Some(patience)).is_err() {
        return true;
    }
    match stream.read(&mut [0]) {
        Ok(count) => count > 0,
        Err(error) => {
            !matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
        }
    }
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    let flags = SocketFlags::CLOEXEC;
    let socket: OwnedFd =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file takes its mode from the socket, so there is no moment in which others could connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let file = file_id(path)?;
    Ok(Bound::Unix { listener: socket.into(), path: path.into(), file })
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What the plane knows of a session.
struct Connection {
    /// Shuts this side of the socket down.
    shut: Box<dyn Fn(Shutdown)>,
    /// The client has chosen an export: it is served, and may have requests under way.
    chosen: bool,
}

/// What the sessions of a server have in common.
pub struct Plane<C> {
    catalog: C,
    /// Memory of the sessions, and the fence.
    pub limits: Rc<Limits>,
    log: Box<dyn Fn(&str)>,
    next: Cell<u64>,
    /// By number, so the oldest first.
    sessions: RefCell<BTreeMap<u64, Connection>>,
    ended: Signal,
}

impl<C: Catalog> Plane<C> {
    /// No session yet. Lines for people go to `log`.
    pub fn new(catalog: C, log: impl Fn(&str) + 'static) -> Rc<Self> {
        Rc::new(Self {
            catalog,
            limits: Rc::default(),
            log: Box::new(log),
            next: Cell::new(0),
            sessions: RefCell::default(),
            ended: Signal::default(),
        })
    }

    /// Serves clients that connect to `bound`, until the listener is dropped.
    ///
    /// # Errors
    /// If the runtime cannot take the socket.
    pub fn listen(self: &Rc<Self>, bound: Bound) -> io::Result<Listener> {
        let plane = Rc::clone(self);
        let task = match &bound {
            Bound::Unix { listener, .. } => {
                let listener = UnixListener::from_std(listener.try_clone()?)?;
                compio::runtime::spawn(async move {
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => plane.begin(stream, "unix"),
                            Err(error) => plane.refused(&error).await,
                        }
                    }
                })
            }
            Bound::Tcp(listener) => {
                let listener = TcpListener::from_std(listener.try_clone()?)?;
                compio::runtime::spawn(async move {
                    loop {
                        match listener.accept().await {
                            Ok((stream, peer)) => {
                                // Without it small answers wait for others; with it failing they are only slower.
                                let _slower = stream.set_nodelay(true);
                                plane.begin(stream, &peer.to_string());
                            }
                            Err(error) => plane.refused(&error).await,
                        }
                    }
                })
            }
        };
        Ok(Listener { _task: task, _bound: bound })
    }

    /// Out of files or memory, most likely: others may end and make room.
    async fn refused(&self, error: &io::Error) {
        (self.log)(&format!("a client could not connect: {error}"));
        compio::time::sleep(Duration::from_millis(100)).await;
    }

    fn begin<S: Stream>(self: &Rc<Self>, stream: S, peer: &str) {
        if self.limits.stopping.get() || !self.make_room() {
            (self.log)(&format!("a client from {peer} was turned away: too many, or stopping"));
            return;
        }
        let id = self.next.get() + 1;
        self.next.set(id);
        let socket = stream.clone();
        let shut = Box::new(move |side| {
            // A client that has gone already is fine.
            let _gone = rustix::net::shutdown(&socket, side);
        });
        self.sessions.borrow_mut().insert(id, Connection { shut, chosen: false });
        let (plane, peer) = (Rc::clone(self), peer.to_owned());
        spawn(async move {
            let limits = Rc::clone(&plane.limits);
            // Who made room for another may have sent its choice just before: it is not served all the same.
            let chosen = || {
                let mut sessions = plane.sessions.borrow_mut();
                sessions.get_mut(&id).map(|connection| connection.chosen = true).is_some()
            };
            let ended = session::serve(stream, &plane.catalog, limits, chosen).await;
            if let Err(error) = ended {
                (plane.log)(&format!("client {id} ({peer}): {error}"));
            }
            plane.sessions.borrow_mut().remove(&id);
            plane.ended.notify();
        });
    }

    /// Whether there is room for one more session. Who opens connections and says nothing must not keep others out: the oldest such
    /// makes room. It has no request under way, so it is forgotten at once.
    fn make_room(&self) -> bool {
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() < SESSIONS_MAX {
            return true;
        }
        let idle = sessions.iter().find(|(_, c)| !c.chosen).map(|(id, _)| *id);
        let Some(id) = idle else { return false };
        let connection = sessions.remove(&id).expect("it was found just now");
        (connection.shut)(Shutdown::Both);
        (self.log)(&format!("client {id} chose no export and made room for another"));
        true
    }

    /// Connected clients.
    pub fn sessions(&self) -> usize {
        self.sessions.borrow().len()
    }

    /// Takes no more requests, and waits at most `limit` until those under way are answered. Answers how many clients
    /// did not take their answers in time.
    pub async fn drain(&self, limit: Duration) -> usize {
        self.limits.stopping.set(true);
        self.sessions.borrow().values().for_each(|session| (session.shut)(Shutdown::Read));
        let all = self.ended.until(|| self.sessions.borrow().is_empty());
        // Whether it was in time is seen by who is left.
        let _elapsed = compio::time::timeout(limit, all).await;
        self.sessions()
    }
}

/// A listening socket; dropping it ends the listening and removes its file.
pub struct Listener {
    _task: JoinHandle<()>,
    _bound: Bound,
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        let parse = |text: &str| text.parse::<NbdAddr>().map(|addr| addr.to_string());
        for text in ["unix:/run/a", "tcp:localhost:1", "tcp:[::1]:2", "tcp:0.0.0.0:10809"] {
            assert_eq!(parse(text).as_deref(), Ok(text));
        }
        assert_eq!(parse("tcp:").as_deref(), Ok("tcp:127.0.0.1:10809"));
        assert_eq!(parse("tcp::7").as_deref(), Ok("tcp:127.0.0.1:7"));
        for text in ["", "unix:", "udp:x:1", "tcp:x:70000", "tcp:[::1", "/run/a"] {
            assert_eq!(parse(text), Err(BadAddr));
        }
    }

    #[test]
    fn a_socket_file_is_private_taken_over_only_when_stale_and_removed_at_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("nbd");
        let addr = NbdAddr::Unix(path.clone());
        let bound = Bound::bind(&addr).expect("a free path");
        let mode = std::fs::metadata(&path).expect("a socket").mode();
        assert_eq!(mode & 0o777, 0o600);
        std::thread::scope(|scope| {
            let Bound::Unix { listener, .. } = &bound else { panic!("a unix socket") };
            scope.spawn(|| {
                let (mut client, _) = listener.accept().expect("a client");
                client.write_all(b"NBDMAGIC").expect("a greeting");
            });
            assert!(matches!(Bound::bind(&addr), Err(ListenError::InUse(_))));
        });
        drop(bound);
        assert!(!path.exists());

        drop(StdUnixListener::bind(&path).expect("a free path"));
        assert!(path.exists(), "a stale socket file, as after a crash");
        drop(Bound::bind(&addr).expect("nobody answers"));

        std::fs::write(&path, "keep").expect("a file");
        assert!(matches!(Bound::bind(&addr), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).expect("still there"), b"keep");
    }

    #[test]
    fn a_socket_is_taken_from_a_dying_server_and_not_from_one_that_hangs() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("nbd");
        let listener = StdUnixListener::bind(&path).expect("a free path");
        let refused = take_over(&path, Duration::from_millis(20)).expect_err("it may come back");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists(), "left alone");

        let dying = std::thread::spawn(move || {
            for _ in 0..3 {
                drop(listener.accept().expect("connections are still taken"));
            }
        });
        // The first of them is the one that gave up above.
        assert!(take_over(&path, Duration::from_secs(60)).expect("it dies at last"));
        assert!(!path.exists());
        dying.join().expect("no panic");
    }
}
