//! Deadlines as people write them.

use std::time::{Duration, SystemTime};

use zkinfer_client::WireTimestamp;

/// Seconds of the units.
const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];

/// A time, such as `2030-01-31T12:00:00Z`, or so long from now on, such as `90s`, `15m`, `2h` or `1d`.
pub(crate) fn parse_deadline(text: &str) -> Result<SystemTime, String> {
    let deadline = match parse_span(text) {
        Some(span) => SystemTime::now().checked_add(span),
        None => text.parse::<WireTimestamp>().ok().and_then(|time| time.try_into().ok()),
    };
    deadline.ok_or_else(|| "write a time, such as 2030-01-31T12:00:00Z, or how long from now on, such as 90s, 15m, 2h or 1d".to_owned())
}

fn parse_span(text: &str) -> Option<Duration> {
    let (number, seconds) = UNITS.iter().find_map(|&(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_times_or_spans_from_now_on() {
        let at = |seconds| Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(parse_deadline("2030-01-31T12:00:00Z"), at(1_896_091_200));
        assert_eq!(parse_deadline("2030-01-31T13:00:00+01:00"), at(1_896_091_200));
        assert_eq!(parse_deadline("1970-01-02"), at(86_400));
        let spans = ["90s", "15m", "2h", "1d", "0s"].map(parse_span);
        assert_eq!(spans, [90, 900, 7200, 86_400, 0].map(|seconds| Some(Duration::from_secs(seconds))));
        let before = SystemTime::now();
        assert!(parse_deadline("90s").unwrap() >= before + Duration::from_secs(90));
    }

    #[test]
    fn what_is_no_deadline_is_refused() {
        for text in ["", "s", "90", "-5s", "1.5h", "tomorrow", "12:00", "2030-13-01", "18446744073709551615d"] {
            assert!(parse_deadline(text).unwrap_err().contains("such as"), "{text}");
        }
    }
}
