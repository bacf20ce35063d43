//! The trace that a call belongs to: W3C trace context, version 00 (`traceparent`).
//!
//! `00-` trace id (16 bytes as hex) `-` id of the calling span (8 bytes) `-` flags (1 byte; bit 0: sampled). It comes in a call's headers; a call
//! without one gets a trace of its own. It is stored with the job that the call creates, so that the job's work, maybe on another machine after a
//! restart, is a part of the same trace. It works without a collector too: the trace id is in log lines and in the details of errors.

use std::fmt;

use tonic::codegen::http;

/// Which span of which trace called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

/// Bit 0 of the flags.
const SAMPLED: u8 = 1;
const HEADER: &str = "traceparent";

tokio::task_local! {
    static CURRENT: TraceParent;
}

/// The trace of the call that this task answers.
pub(crate) fn current() -> Option<TraceParent> {
    CURRENT.try_with(|trace| *trace).ok()
}

impl TraceParent {
    /// A trace of its own.
    pub fn random() -> Self {
        let mut bytes = [0; 24];
        // Ids only tell traces apart: without random bytes, the clock does.
        if getrandom::fill(&mut bytes).is_err() {
            bytes[..8].copy_from_slice(&crate::engine::now_ms().to_be_bytes());
        }
        // Zero ids are not valid.
        bytes[0] |= 1;
        bytes[16] |= 1;
        Self::new(part(&bytes[..16]), part(&bytes[16..]), SAMPLED)
    }

    pub(super) fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Self {
        Self { trace_id, span_id, flags }
    }

    /// Reads a header's value; none if it is not valid.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Later versions may have more parts; ff is none.
        let is_known = version.len() == 2 && version != "ff" && (version != "00" || parts.next().is_none());
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        if !is_known || !is_lower {
            return None;
        }
        let mut parsed = Self { trace_id: [0; 16], span_id: [0; 8], flags: 0 };
        hex::decode_to_slice(version, &mut [0; 1]).ok()?;
        hex::decode_to_slice(trace_id, &mut parsed.trace_id).ok()?;
        hex::decode_to_slice(span_id, &mut parsed.span_id).ok()?;
        let mut byte = [0; 1];
        hex::decode_to_slice(flags, &mut byte).ok()?;
        parsed.flags = byte[0];
        let is_valid = parsed.trace_id != [0; 16] && parsed.span_id != [0; 8];
        is_valid.then_some(parsed)
    }

    /// The one that a request carries. Two are none.
    pub(super) fn of_headers(headers: &http::HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(HEADER).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::parse(value.to_str().ok()?),
            _ => None,
        }
    }

    /// The trace id, as 32 digits.
    pub fn trace_id(&self) -> String {
        hex::encode(self.trace_id)
    }

    pub(super) fn ids(&self) -> ([u8; 16], [u8; 8], u8) {
        (self.trace_id, self.span_id, self.flags)
    }

    /// Runs a call in this trace.
    pub(super) fn scope<F: Future>(self, call: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self, call)
    }
}

/// As the header has it.
impl fmt::Display for TraceParent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "00-{}-{}-{:02x}", hex::encode(self.trace_id), hex::encode(self.span_id), self.flags)
    }
}

/// # Panics
/// Another length, which callers do not give.
fn part<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("a part of the array's length")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_what_it_writes_and_refuses_the_rest() {
        assert_eq!(TraceParent::parse(GOOD).unwrap().to_string(), GOOD);
        assert_eq!(TraceParent::parse(GOOD).unwrap().trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let random = TraceParent::random();
        assert_eq!(TraceParent::parse(&random.to_string()), Some(random));
        assert!(TraceParent::parse(&GOOD.replacen("00", "cc", 1).replace("-01", "-01-later")).is_some());
        for refused in [
            "",
            "00",
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "zz", 1),
            &format!("{GOOD}-01"),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace("-01", "-1"),
            &GOOD.replace("-01", ""),
        ] {
            assert_eq!(TraceParent::parse(refused), None, "{refused}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,80}") {
            if let Some(parsed) = TraceParent::parse(&text) {
                prop_assert_eq!(&parsed.to_string()[3..55], &text[3..55]);
            }
        }
    }
}
