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

/// Milliseconds since 1970 as a date and time: `2026-11-25 10:17:01 UTC`. (The engine knows no time zone.)
#[must_use]
pub fn utc(ms: u64) -> String {
    let (days, second) = (ms / 86_400_000, ms / 1000 % 86_400);
    // Years from March on, so that the leap day is the last (after Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
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
        let dates = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199_999, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200_000, "2024-03-01 00:00:00 UTC"),
            (1_795_601_539_359, "2026-11-25 10:12:19 UTC"),
            (4_102_444_800_000, "2100-01-01 00:00:00 UTC"),
        ];
        for (ms, text) in dates {
            assert_eq!(utc(ms), text);
        }
        assert!(utc(u64::MAX).ends_with("UTC"));
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
