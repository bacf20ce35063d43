//! Secrets in memory: salts, seeds, keys of signatures, inputs. Each is erased where it ends, and prints nothing of itself.
//!
//! What libraries copy while bytes travel (buffers of connections, of the database's driver, of a header) is theirs: it is freed, not erased.

use std::fmt;

use bytes::Bytes;
use zeroize::{Zeroize as _, Zeroizing};

/// 32 secret bytes. They have one place of the heap, so that nothing stays behind where the value was moved from.
#[derive(Clone)]
pub struct Secret(Box<Zeroizing<[u8; 32]>>);

impl Secret {
    /// What `fill` writes.
    ///
    /// # Errors
    /// Those of `fill`.
    pub fn make<E>(fill: impl FnOnce(&mut [u8; 32]) -> Result<(), E>) -> Result<Self, E> {
        let mut place = Box::new(Zeroizing::new([0; 32]));
        fill(&mut place)?;
        Ok(Self(place))
    }

    /// Random bytes of the operating system.
    ///
    /// # Errors
    /// It gives none.
    pub fn random() -> Result<Self, getrandom::Error> {
        Self::make(|place| getrandom::fill(place))
    }

    /// Zeros: where a secret would be, and there is none.
    pub fn zero() -> Self {
        Self(Box::new(Zeroizing::new([0; 32])))
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Erases what it is given.
impl From<[u8; 32]> for Secret {
    fn from(mut bytes: [u8; 32]) -> Self {
        let mut secret = Self::zero();
        secret.0.copy_from_slice(&bytes);
        bytes.zeroize();
        secret
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// Bytes that are erased when their last holder is dropped.
pub(crate) fn erased(bytes: Vec<u8>) -> Bytes {
    Bytes::from_owner(Zeroizing::new(bytes))
}

/// Secret bytes that come part by part. Where they were before they had to move, they are erased.
#[derive(Default)]
pub(crate) struct Growing(Zeroizing<Vec<u8>>);

impl Growing {
    /// With room for so many: it grows no further until they are there.
    pub(crate) fn with_capacity(n_bytes: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(n_bytes)))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn push(&mut self, part: &[u8]) {
        let needed = self.0.len() + part.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(2 * self.0.capacity())));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(part);
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self.0)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use zkinfer_proto::v1;

    use super::*;
    use crate::engine::{Delivery, DeliveryKey, Lease, Leased, NewWebhook, ProofWork, Subject, SubjectKind, TaskKey, Work};
    use crate::worker::{RemoteOptions, RemoteSource};
    use crate::worker_listener::WorkerToken;

    /// In decimal, in hexadecimal and in base64 it has digits that nothing else below has.
    const MARK: [u8; 32] = [0xee; 32];

    fn delivery() -> Delivery {
        let key = DeliveryKey { tenant: "acme".into(), webhook: "hook".into(), job: "job".into(), sequence: 1 };
        let (secret, job) = (MARK.to_vec().into(), v1::Job::default());
        Delivery { key, url: "https://hook.example/".into(), secret, job, tries: 0, failures: 0 }
    }

    fn leased(work: Work) -> Leased {
        let subject = Subject { kind: SubjectKind::Job, tenant: "acme".into(), id: "job".into() };
        Leased { lease: Lease { task: TaskKey { subject, name: "prove".into() }, epoch: 1 }, attempt: 1, work }
    }

    fn proof() -> Box<ProofWork> {
        let (job, model) = (v1::Job::default(), v1::Model::default());
        Box::new(ProofWork { job, model, private_digest: [0; 32], input_salt: MARK.into(), seed: MARK.into() })
    }

    #[tokio::test]
    async fn nothing_that_carries_a_secret_prints_it() {
        let text = SecretString::from(hex::encode(MARK));
        let options = RemoteOptions { token: Some(text.clone()), ..RemoteOptions::new("http://127.0.0.1:1") };
        let webhook =
            NewWebhook { tenant: "acme".into(), id: "hook".into(), url: "https://hook.example/".into(), secret: MARK.to_vec().into() };
        let register = Work::Register { model: Box::default(), salt: MARK.into(), seed: MARK.into() };
        let printed = [
            format!("{:?}", Secret::from(MARK)),
            format!("{webhook:?}"),
            format!("{:?}", delivery()),
            format!("{:?}", leased(register)),
            format!("{:?}", leased(Work::Prove(proof()))),
            format!("{:?}", leased(Work::Step { proof: proof(), results: Vec::new() })),
            format!("{:?} {:?}", WorkerToken::new(text), options),
        ];
        assert!(RemoteSource::new(&options).is_ok());
        for text in printed {
            let text = text.to_ascii_lowercase();
            assert!(!text.is_empty() && ["238", "0xee", "eeee", "7u7u", "du7u"].iter().all(|digits| !text.contains(digits)), "{text}");
        }
    }

    #[test]
    fn bytes_that_come_in_parts_are_the_same_bytes() {
        let whole: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        for part_bytes in [1, 7, 4096, 20_000] {
            let mut growing = Growing::default();
            whole.chunks(part_bytes).for_each(|part| growing.push(part));
            assert_eq!((growing.len(), growing.as_slice()), (whole.len(), whole.as_slice()));
            assert_eq!(growing.freeze(), whole);
        }
    }

    #[test]
    fn a_secret_is_what_it_was_made_of() {
        assert_eq!(Secret::from(MARK).clone().expose(), &MARK);
        assert_eq!(Secret::zero().expose(), &[0; 32]);
        assert_ne!(Secret::random().unwrap().expose(), Secret::random().unwrap().expose());
        let refused = Secret::make(|place| {
            *place = MARK;
            Err("no")
        });
        assert_eq!(refused.unwrap_err(), "no");
    }
}
