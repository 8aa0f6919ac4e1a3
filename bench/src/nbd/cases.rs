//! The cases that are measured.

/// Which way the data goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the server.
    Read,
    /// To the server.
    Write,
}

/// In which order offsets come.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Ascending, again from the start at the end.
    Sequential,
    /// Anywhere.
    Random,
}

/// One kind of load.
pub struct Case {
    /// For people, and `--only`.
    pub name: &'static str,
    /// Bytes of a request.
    pub len: usize,
    /// Requests under way at once.
    pub depth: usize,
    /// Reads or writes.
    pub direction: Direction,
    /// Where.
    pub order: Order,
}

impl Case {
    /// Whether a figure is in MB/s rather than requests a second.
    pub fn in_bytes(&self) -> bool {
        self.order == Order::Sequential
    }

    /// The figure that people compare: requests a second, or MB/s.
    pub fn figure(&self, rate: f64) -> f64 {
        if self.in_bytes() { rate * self.len as f64 / 1e6 } else { rate }
    }
}

const fn case(
    name: &'static str,
    len: usize,
    depth: usize,
    direction: Direction,
    order: Order,
) -> Case {
    Case { name, len, depth, direction, order }
}

/// All cases.
pub const CASES: [Case; 6] = [
    case("4 KiB random read, depth 1", 4096, 1, Direction::Read, Order::Random),
    case("4 KiB random write, depth 1", 4096, 1, Direction::Write, Order::Random),
    case("4 KiB random read, depth 32", 4096, 32, Direction::Read, Order::Random),
    case("4 KiB random write, depth 32", 4096, 32, Direction::Write, Order::Random),
    case("128 KiB sequential read, depth 8", 128 << 10, 8, Direction::Read, Order::Sequential),
    case("128 KiB sequential write, depth 8", 128 << 10, 8, Direction::Write, Order::Sequential),
];
