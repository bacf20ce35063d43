//! Places of those who are served at a time: so many in all, and so many of a tenant, so that no tenant can take them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, TOO_MANY_COMPUTATIONS};
use crate::limits::Limits;

/// Whom the places are for, and how they are refused who come when there is none.
struct Served {
    reason: &'static str,
    what: &'static str,
    /// Names of the limits: of all, and of a tenant.
    limits: [&'static str; 2],
    retry: Duration,
}

/// Places of one kind.
pub(crate) struct Places {
    served: Served,
    n_all: usize,
    n_per_tenant: usize,
    all: Arc<Semaphore>,
    held: Held,
}

/// How many places each tenant holds; those who hold none are not in it.
type Held = Arc<Mutex<HashMap<String, usize>>>;

/// A place, until it is dropped.
pub(crate) struct Place {
    tenant: String,
    held: Held,
    _of_all: OwnedSemaphorePermit,
}

impl Places {
    /// For streams that watch.
    pub(crate) fn of_watchers(limits: &Limits) -> Self {
        let limits_of = ["watchers", "watchers_per_tenant"];
        let served = Served { reason: "TOO_MANY_WATCHERS", what: "watchers", limits: limits_of, retry: Duration::from_secs(5) };
        Self::new(served, limits.watchers, limits.watchers_per_tenant)
    }

    /// For downloads of clients.
    pub(crate) fn of_downloads(limits: &Limits) -> Self {
        let limits_of = ["downloads", "downloads_per_tenant"];
        let served = Served { reason: "TOO_MANY_DOWNLOADS", what: "downloads", limits: limits_of, retry: Duration::from_secs(1) };
        Self::new(served, limits.downloads, limits.downloads_per_tenant)
    }

    /// For verifications and estimates: one is computed, the others wait for its thread or for memory.
    pub(crate) fn of_computations(limits: &Limits) -> Self {
        let limits_of = ["cpu_queue", "cpu_queue_per_tenant"];
        let served = Served { reason: TOO_MANY_COMPUTATIONS, what: "computations", limits: limits_of, retry: Duration::from_secs(1) };
        Self::new(served, limits.cpu_queue + 1, limits.cpu_queue_per_tenant)
    }

    /// For calls that have no places of another kind.
    pub(crate) fn of_calls(limits: &Limits) -> Self {
        let limits_of = ["calls", "calls_per_tenant"];
        let served = Served { reason: "TOO_MANY_CALLS", what: "calls", limits: limits_of, retry: Duration::from_secs(1) };
        Self::new(served, limits.calls, limits.calls_per_tenant)
    }

    fn new(served: Served, n_all: usize, n_per_tenant: usize) -> Self {
        Self { served, n_all, n_per_tenant, all: Arc::new(Semaphore::new(n_all)), held: Held::default() }
    }

    /// A place for a caller of the tenant's.
    ///
    /// # Errors
    /// The tenant has as many as it may have, or all are taken.
    pub(crate) fn take(&self, tenant: &str) -> Result<Place, ApiError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = held.get(tenant).copied().unwrap_or(0);
        if of_tenant >= self.n_per_tenant {
            let [_, limit] = self.served.limits;
            let message = format!("the tenant may have {} {} at a time ({limit})", self.n_per_tenant, self.served.what);
            return Err(self.refusal(format!("tenants/{tenant}"), message));
        }
        let Ok(of_all) = self.all.clone().try_acquire_owned() else {
            let [limit, _] = self.served.limits;
            let message = format!("the service serves {} {} at a time ({limit})", self.n_all, self.served.what);
            return Err(self.refusal(self.served.what.to_owned(), message));
        };
        held.insert(tenant.to_owned(), of_tenant + 1);
        Ok(Place { tenant: tenant.to_owned(), held: self.held.clone(), _of_all: of_all })
    }

    fn refusal(&self, subject: String, message: String) -> ApiError {
        ApiError::Exhausted { reason: self.served.reason, subject, message, retry: Some(self.served.retry) }
    }

    /// Those of all tenants, to be counted.
    pub(crate) fn all(&self) -> Arc<Semaphore> {
        self.all.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(&self.tenant) {
            Some(n) if *n > 1 => *n -= 1,
            _ => drop(held.remove(&self.tenant)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who has no place for a tenant: the subject of the refusal.
    fn refused(places: &Places, tenant: &str) -> String {
        match places.take(tenant) {
            Err(ApiError::Exhausted { reason: "TOO_MANY_WATCHERS", subject, retry: Some(_), .. }) => subject,
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("there is a place"),
        }
    }

    #[test]
    fn a_tenant_has_its_places_and_leaves_others_theirs() {
        let places = Places::of_watchers(&Limits { watchers: 3, watchers_per_tenant: 2, ..Limits::default() });
        let first = places.take("a").unwrap();
        let _second = places.take("a").unwrap();
        assert_eq!(refused(&places, "a"), "tenants/a");
        let other = places.take("b").unwrap();
        assert_eq!(refused(&places, "b"), "watchers");
        drop(first);
        let third = places.take("a").unwrap();
        assert_eq!(places.all().available_permits(), 0);
        drop((third, other));
        assert_eq!(places.held.lock().unwrap().get("b"), None, "a tenant that is gone takes no memory");
        let _more = places.take("b").unwrap();
        assert_eq!(places.all().available_permits(), 1);
    }
}
