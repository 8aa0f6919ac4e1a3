//! Numbers as people read them, in messages and on screens.
//!
//! Owns the formats of sizes, rates, durations and counted things; decides nothing. Invariant: where two sizes are compared in a message
//! they are given with [`exact`], so that sizes that differ never read the same.

/// Bytes in the largest binary unit that leaves at least 1, with up to two digits after the point: `1.50 GiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let step = (count.ilog2() / 10).min(units.len() as u32);
    let value = count as f64 / (1u64 << (10 * step)) as f64;
    let unit = units[step as usize - 1];
    let digits = if value >= 100.0 || value.fract() == 0.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

/// The same, with the bytes beside it where the short form is rounded: `1.50 GiB (1610612737 bytes)`.
#[must_use]
pub fn exact(count: u64) -> String {
    let short = bytes(count);
    let whole = count < 1024 || count.is_multiple_of(1 << (count.ilog2() / 10 * 10));
    if whole { short } else { format!("{short} ({count} bytes)") }
}

/// Bytes a second.
#[must_use]
pub fn rate(bytes_per_s: u64) -> String {
    format!("{}/s", bytes(bytes_per_s))
}

/// Seconds as the two largest units: `3 d 4 h`, `1 min 20 s`, `12 s`.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let parts = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = parts.iter().position(|(len, _)| seconds >= *len).unwrap_or(3);
    let (len, name) = parts[first];
    let mut text = format!("{} {name}", seconds / len);
    if let Some((next_len, next)) = parts.get(first + 1) {
        let rest = seconds % len / next_len;
        if rest != 0 {
            text += &format!(" {rest} {next}");
        }
    }
    text
}

/// Counted things: `1 disk`, `2 disks`.
#[must_use]
pub fn counted(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_for_people() {
        let sizes = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1 << 20, "1 MiB"),
            (1_610_612_736, "1.50 GiB"),
            (18_000_000_000, "16.8 GiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (count, text) in sizes {
            assert_eq!(bytes(count), text);
        }
        let times =
            [(0, "0 s"), (59, "59 s"), (80, "1 min 20 s"), (3600, "1 h"), (273_600, "3 d 4 h")];
        for (seconds, text) in times {
            assert_eq!(duration(seconds), text);
        }
        let things: Vec<String> = (0..3).map(|n| counted(n, "disk")).collect();
        assert_eq!(things, ["0 disks", "1 disk", "2 disks"]);
    }

    #[test]
    fn sizes_that_differ_never_read_the_same_where_they_are_compared() {
        assert_eq!([exact(513), exact(4096), exact(64 << 20)], ["513 B", "4 KiB", "64 MiB"]);
        let near = (1 << 30) - 4096;
        assert_eq!(exact(near), "1024 MiB (1073737728 bytes)");
        assert_eq!(exact((3 << 29) + 4096), "1.50 GiB (1610616832 bytes)");
    }
}
