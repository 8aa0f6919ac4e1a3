//! Sizes and times as people write and read them.
//!
//! Owns the parser for `64MiB`, `18GB` and plain bytes, and the format of times; those of sizes, rates and durations are the engine's.
//! Binary units (KiB to EiB) are powers of 1024, decimal ones (kB to EB) powers of 1000; nothing in between is
//! guessed at: `64M` is refused, because half the world reads it either way.

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use forestall_engine::words::{bytes, counted, duration, exact, rate};

/// The units, longest first within a family; letters of either case are taken.
const UNITS: [(&str, u64); 14] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
    ("eib", 1 << 60),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("eb", 1_000_000_000_000_000_000),
    ("b", 1),
    ("", 1),
];

/// Parses a size in bytes: `64MiB`, `1.5TiB`, `18GB`, `4096`.
///
/// # Errors
/// If it is no number with a unit, if it is not a whole number of bytes, or if it does not fit 63 bits.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if text.starts_with('-') {
        return Err(format!("`{text}` is not a size; write one as 64MiB, 18GB or 4096"));
    }
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    let (_, factor) = UNITS
        .iter()
        .find(|(name, _)| *name == unit.to_ascii_lowercase())
        .ok_or_else(|| unknown_unit(text, unit))?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits_only = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits_only(fraction) || number.ends_with('.') {
        return Err(format!("`{text}` is not a size; write one as 64MiB, 18GB or 4096"));
    }
    let too_large = || format!("`{text}` is too large; sizes end below 8EiB");
    let whole: u64 = whole.parse().map_err(|_| too_large())?;
    let mut bytes = u128::from(whole) * u128::from(*factor);
    if !fraction.is_empty() {
        let parts: u128 = fraction.parse().map_err(|_| too_large())?;
        let scale = 10u128.checked_pow(fraction.len() as u32).ok_or_else(too_large)?;
        let scaled = parts.checked_mul(u128::from(*factor)).ok_or_else(too_large)?;
        if !scaled.is_multiple_of(scale) {
            return Err(format!("`{text}` is not a whole number of bytes"));
        }
        bytes += scaled / scale;
    }
    u64::try_from(bytes).ok().filter(|b| *b < 1 << 63).ok_or_else(too_large)
}

fn unknown_unit(text: &str, unit: &str) -> String {
    let one_letter = unit.to_ascii_uppercase();
    if ["K", "M", "G", "T", "P", "E"].contains(&one_letter.as_str()) {
        return format!(
            "`{text}`: say {one_letter}iB (powers of 1024) or {one_letter}B (powers of 1000)"
        );
    }
    format!(
        "`{text}`: unknown unit `{unit}`; known are KiB, MiB, GiB, TiB, PiB, EiB and kB, MB, GB, TB, PB, EB"
    )
}

/// Parses a rate in MiB a second, as `--rate` takes it, into bytes a second; 0 is no limit.
///
/// # Errors
/// If it is no number, or too large.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let not_one = || format!("`{text}` is not a number of MiB a second");
    let rate: f64 = text.trim().parse().map_err(|_| not_one())?;
    if !rate.is_finite() || rate.is_sign_negative() {
        return Err(not_one());
    }
    let bytes = (rate * f64::from(1 << 20)).ceil();
    // A limit of half a byte is one all the same.
    if bytes > 1e18 {
        return Err(format!("`{text}` MiB a second is too fast to be a limit"));
    }
    Ok(bytes as u64)
}

/// Milliseconds since 1970 as local time: `2026-11-22 03:12:45`.
pub fn local_time(ms: u64) -> String {
    time_in(ms, TimeZone::system())
}

fn time_in(ms: u64, zone: TimeZone) -> String {
    let stamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| "?".into(), |t| t.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_both_families() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("512B", 512),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("64KiB", 65_536),
            ("18GB", 18_000_000_000),
            ("1TiB", 1 << 40),
            ("1.5TiB", 3 << 39),
            ("0.5kB", 500),
            (" 7PiB ", 7 << 50),
            ("5EiB", 5 << 60),
            ("2EB", 2_000_000_000_000_000_000),
        ];
        for (text, size) in cases {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_way_out() {
        let cases = [
            ("", "is not a size"),
            ("MiB", "is not a size"),
            (".5GB", "is not a size"),
            ("1.GB", "is not a size"),
            ("1.2.3GB", "is not a size"),
            ("-1", "is not a size"),
            ("64M", "say MiB (powers of 1024) or MB"),
            ("1g", "say GiB"),
            ("3 parsecs", "unknown unit `parsecs`"),
            ("1e3", "unknown unit `e3`"),
            ("0.3KiB", "not a whole number of bytes"),
            ("8192PiB", "too large; sizes end below 8EiB"),
            ("8EiB", "too large"),
            ("7E", "say EiB"),
            ("99999999999999999999", "too large"),
            ("0.00000000000000000000000000000000000000001PB", "too large"),
        ];
        for (text, why) in cases {
            let error = parse_size(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn rates_are_whole_mebibytes() {
        assert_eq!(parse_rate("16"), Ok(16 << 20));
        assert_eq!(parse_rate("0"), Ok(0));
        assert_eq!(parse_rate("0.5"), Ok(1 << 19));
        assert_eq!(parse_rate("0.0000000001"), Ok(1));
        assert!(parse_rate("-1").is_err() && parse_rate("nan").is_err());
        assert!(parse_rate("16MiB").is_err());
        assert!(parse_rate("99999999999999999").is_err());
    }

    #[test]
    fn times_for_people() {
        assert_eq!(time_in(0, TimeZone::UTC), "1970-01-01 00:00:00");
        assert_eq!(time_in(u64::MAX, TimeZone::UTC), "?");
    }
}
