//! A figure that takes long to count: counted in the background, one at a time, and shared by all who look.
//!
//! Who looks waits for a count only so long, and is then shown the one before. Counting takes at most a tenth of the time, however large what is counted
//! has grown. What failed is counted again when it is next due; until then the last figure stands, with its age.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// A count that took t is followed by the next no sooner than this many t after it began.
const SHARE: u32 = 10;

/// The latest count.
pub(crate) struct Latest<T> {
    /// Counted at most so often.
    every: Duration,
    state: watch::Sender<State<T>>,
    /// Ends with this.
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct State<T> {
    /// When counting it began, and what it is.
    figure: Option<(Instant, T)>,
    is_counting: bool,
    /// When the last count began.
    began: Option<Instant>,
    /// How long the last count took that has ended.
    took: Duration,
}

impl<T: Clone + Send + Sync + 'static> Latest<T> {
    /// Nothing is counted yet; it will be at most once in `every`.
    pub(crate) fn new(every: Duration) -> Self {
        let state = State { figure: None, is_counting: false, began: None, took: Duration::ZERO };
        Self { every, state: watch::Sender::new(state), task: Mutex::default() }
    }

    /// The latest figure and its age; none if there never was one. Begins to count if that is due; a count that runs is waited for, up to `patience`.
    /// `count` answers `None` if it failed.
    pub(crate) async fn look(&self, patience: Duration, count: impl FnOnce() -> BoxFuture<'static, Option<T>>) -> Option<(Duration, T)> {
        self.begin(count);
        let mut news = self.state.subscribe();
        // Until it has ended or the patience has.
        let _ = tokio::time::timeout(patience, news.wait_for(|state| !state.is_counting)).await;
        let state = self.state.borrow();
        state.figure.as_ref().map(|(began, figure)| (began.elapsed(), figure.clone()))
    }

    /// Begins to count, if that is due and no count runs.
    fn begin(&self, count: impl FnOnce() -> BoxFuture<'static, Option<T>>) {
        let now = Instant::now();
        let begins = self.state.send_if_modified(|state| {
            let is_due = state.began.is_none_or(|began| now.duration_since(began) >= pause(self.every, state.took));
            let begins = is_due && !state.is_counting;
            if begins {
                (state.is_counting, state.began) = (true, Some(now));
            }
            begins
        });
        if !begins {
            return;
        }
        let (ending, count) = (Ending { state: self.state.clone(), began: now }, count());
        let task = tokio::spawn(async move {
            let figure = count.await;
            ending.state.send_if_modified(|state| {
                state.figure = figure.map(|figure| (ending.began, figure)).or(state.figure.take());
                false
            });
        });
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(AbortOnDropHandle::new(task));
    }
}

/// From the begin of a count to the next.
fn pause(every: Duration, took: Duration) -> Duration {
    every.max(took.saturating_mul(SHARE))
}

/// A count that runs, until it is dropped: also one that panics has ended.
struct Ending<T> {
    state: watch::Sender<State<T>>,
    began: Instant,
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.state.send_modify(|state| (state.is_counting, state.took) = (false, self.began.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// Longer than any test takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn at_once(figure: Option<u32>) -> impl FnOnce() -> BoxFuture<'static, Option<u32>> {
        move || Box::pin(async move { figure })
    }

    /// A count that takes until it is told its figure.
    fn slow() -> (oneshot::Sender<u32>, impl FnOnce() -> BoxFuture<'static, Option<u32>>) {
        let (sender, figure) = oneshot::channel();
        (sender, || Box::pin(async move { figure.await.ok() }))
    }

    async fn seen(latest: &Latest<u32>, count: impl FnOnce() -> BoxFuture<'static, Option<u32>>) -> Option<u32> {
        latest.look(PATIENCE, count).await.map(|(_, figure)| figure)
    }

    #[tokio::test]
    async fn a_quick_count_is_waited_for_and_used_until_the_next_is_due() {
        let latest = Latest::new(PATIENCE);
        assert_eq!(seen(&latest, at_once(Some(1))).await, Some(1));
        assert_eq!(seen(&latest, at_once(Some(2))).await, Some(1));
        let always = Latest::new(Duration::ZERO);
        assert_eq!(seen(&always, at_once(Some(1))).await, Some(1));
        while seen(&always, at_once(Some(2))).await != Some(2) {}
    }

    #[tokio::test]
    async fn a_slow_count_is_one_for_all_who_look_and_shows_the_one_before_meanwhile() {
        let latest = Latest::new(Duration::ZERO);
        let (figure, count) = slow();
        assert_eq!(latest.look(Duration::ZERO, count).await, None, "there is none yet");
        assert_eq!(latest.look(Duration::ZERO, || unreachable!("one runs")).await, None);
        let both = async { tokio::join!(seen(&latest, || unreachable!()), seen(&latest, || unreachable!())) };
        let (both, ()) = tokio::join!(both, async { figure.send(1).unwrap() });
        assert_eq!(both, (Some(1), Some(1)));
        let (figure, count) = slow();
        let mut count = Some(count);
        while count.is_some() {
            let begin = || -> BoxFuture<'static, Option<u32>> { (count.take().unwrap())() };
            assert_eq!(latest.look(Duration::ZERO, begin).await.unwrap().1, 1);
        }
        figure.send(2).unwrap();
        assert_eq!(seen(&latest, || unreachable!()).await, Some(2));
    }

    #[tokio::test]
    async fn a_count_that_fails_or_panics_leaves_the_one_before() {
        let latest = Latest::new(Duration::ZERO);
        assert_eq!(seen(&latest, at_once(Some(1))).await, Some(1));
        let mut n_failed = 0;
        while n_failed < 2 {
            let panics = n_failed == 1;
            let fail = || -> BoxFuture<'static, Option<u32>> {
                n_failed += 1;
                Box::pin(async move { if panics { panic!("a test's") } else { None } })
            };
            assert_eq!(seen(&latest, fail).await, Some(1));
        }
        while seen(&latest, at_once(Some(2))).await != Some(2) {}
    }

    #[test]
    fn counting_takes_a_tenth_of_the_time_at_most() {
        let ms = Duration::from_millis;
        assert_eq!(pause(ms(1000), ms(3)), ms(1000));
        assert_eq!(pause(ms(1000), ms(400)), ms(4000));
        assert_eq!(pause(ms(1000), Duration::MAX), Duration::MAX);
    }
}
