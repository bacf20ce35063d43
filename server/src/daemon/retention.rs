//! How long jobs are kept after their end, as an option says it.

use std::time::Duration;

/// Who waits for a job sees its end before it is gone.
const LEAST: Duration = Duration::from_secs(60);
/// A century: it can always be taken from now.
const MOST: Duration = Duration::from_secs(36_500 * 86_400);

/// A whole number with a unit, `s`, `m`, `h` or `d`.
pub(super) fn parse_retention(text: &str) -> Result<Duration, String> {
    let seconds_of = |unit| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    };
    let mut characters = text.chars();
    let unit = characters.next_back().and_then(seconds_of);
    // A sign is no digit.
    let number = characters.as_str();
    let number: Option<u64> = number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok()).flatten();
    let seconds = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    let time = Duration::from_secs(seconds.ok_or("expected a whole number with a unit, `s`, `m`, `h` or `d`, such as `30d`")?);
    match (LEAST..=MOST).contains(&time) {
        true => Ok(time),
        false => Err("expected from `60s` to `36500d`; without this option jobs are kept for good".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_read() {
        for (text, seconds) in [("60s", 60), ("1m", 60), ("90m", 5400), ("12h", 43_200), ("030d", 2_592_000), ("36500d", 3_153_600_000)] {
            assert_eq!(parse_retention(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in [
            "",
            "d",
            "30",
            "30D",
            "1.5d",
            "-1d",
            "+1d",
            " 1d",
            "1 d",
            "59s",
            "0d",
            "36501d",
            "99999999999999999999d",
            "213503982334602d",
            "1é",
        ] {
            assert!(parse_retention(text).is_err(), "{text}");
        }
    }
}
