//! Those who ask for the same kind of thing while others are being served are served together, by whoever's turn is next: one transaction instead of many.
//!
//! Whoever's turn it is only starts the serving: that is a task of its own, and goes on to its end if they are dropped meanwhile.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Somebody who waits for an answer. Dropped without one, they are told that they were not served.
#[derive(Debug)]
pub(crate) struct Asked<Q, A> {
    /// What they ask for.
    pub(crate) question: Q,
    answer: oneshot::Sender<A>,
}

impl<Q, A> Asked<Q, A> {
    /// Answers; gives the answer back if nobody listens any more.
    pub(crate) fn answer(self, answer: A) -> Result<(), A> {
        self.answer.send(answer)
    }
}

/// Who waits, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Together<Q, A> {
    waiting: Mutex<VecDeque<Asked<Q, A>>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    most: usize,
    runtime: Handle,
}

impl<Q, A> Together<Q, A> {
    /// Serves at most so many at a time: the first of them waits for the last. On the runtime that it is called on, whichever runtime asks.
    pub(crate) fn of_at_most(most: usize) -> Self {
        Self { waiting: Mutex::default(), turn: Arc::default(), most, runtime: Handle::current() }
    }

    /// Waits for an answer, or for the turn to `serve` those who wait. None: whoever served gave no answer, or panicked. To be polled to its end or
    /// dropped: whoever has the turn keeps it until then.
    pub(crate) async fn ask<Served>(&self, question: Q, serve: impl Fn(Vec<Asked<Q, A>>) -> Served) -> Option<A>
    where
        Served: Future<Output = ()> + Send + 'static,
    {
        let (sender, mut answer) = oneshot::channel();
        self.lock().push_back(Asked { question, answer: sender });
        let mut turn = tokio::select! {
            biased;
            answered = &mut answer => return answered.ok(),
            turn = self.turn.clone().lock_owned() => turn,
        };
        loop {
            match answer.try_recv() {
                Ok(answer) => return Some(answer),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => {
                    let served = serve(self.take(self.most));
                    // With the turn: the next do not begin before these are served.
                    let serving = self.runtime.spawn(async move {
                        served.await;
                        turn
                    });
                    turn = serving.await.ok()?;
                }
            }
        }
    }

    /// All who wait.
    pub(crate) fn take_all(&self) -> Vec<Asked<Q, A>> {
        self.take(usize::MAX)
    }

    /// The next to be served, at most so many; who does not listen any more is left out.
    fn take(&self, most: usize) -> Vec<Asked<Q, A>> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(asked) = waiting.pop_front() else { break };
            if !asked.answer.is_closed() {
                taken.push(asked);
            }
        }
        taken
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Asked<Q, A>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn double(asked: Vec<Asked<usize, usize>>) {
        for asked in asked {
            let twice = asked.question * 2;
            let _ = asked.answer(twice);
        }
    }

    #[tokio::test]
    async fn who_asks_while_others_are_served_is_served_with_the_next() {
        let together = Together::<usize, usize>::of_at_most(4);
        let n_turns = Arc::new(AtomicUsize::new(0));
        let serve = |asked: Vec<Asked<usize, usize>>| {
            let n_turns = n_turns.clone();
            async move {
                n_turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                double(asked);
            }
        };
        let answers = futures::future::join_all((0..9).map(|number| together.ask(number, &serve))).await;
        assert_eq!(answers, (0..9).map(|number| Some(number * 2)).collect::<Vec<_>>());
        assert_eq!(n_turns.load(Ordering::Relaxed), 3, "nine by fours");
    }

    #[tokio::test]
    async fn who_is_not_answered_or_whose_server_panics_is_told_so_and_the_next_are_served() {
        let together = Together::<usize, usize>::of_at_most(4);
        assert_eq!(together.ask(1, async |_| {}).await, None);
        assert_eq!(together.ask(1, async |_| panic!("it must not take the turn with it")).await, None);
        assert_eq!(together.ask(3, async |asked| double(asked)).await, Some(6));
    }

    #[tokio::test]
    async fn who_starts_to_serve_and_is_dropped_leaves_nobody_without_an_answer() {
        let together = Together::<usize, usize>::of_at_most(2);
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let serve = |asked: Vec<Asked<usize, usize>>| {
            let gate = gate.clone();
            async move {
                gate.acquire().await.unwrap().forget();
                double(asked);
            }
        };
        let turn = together.turn.lock().await;
        let mut asking: Vec<_> = (0..4).map(|number| Box::pin(together.ask(number, &serve))).collect();
        for asking in &mut asking {
            assert!(futures::poll!(asking).is_pending());
        }
        drop(turn);
        // It takes the first two, and is dropped while they are being served.
        assert!(futures::poll!(&mut asking[0]).is_pending());
        drop(asking.remove(0));
        let [mut second, third, fourth] = <[_; 3]>::try_from(asking).ok().unwrap();
        assert!(futures::poll!(&mut second).is_pending());
        assert!(together.turn.try_lock().is_err(), "the next two wait for them");
        gate.add_permits(2);
        assert_eq!((second.await, third.await, fourth.await), (Some(2), Some(4), Some(6)));
        assert_eq!(gate.available_permits(), 0, "two served, each with another");
    }

    #[tokio::test]
    async fn who_does_not_listen_any_more_is_not_served() {
        let together = Together::<usize, usize>::of_at_most(4);
        let turn = together.turn.lock().await;
        let mut gone = Box::pin(together.ask(1, async |_| {}));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        drop(turn);
        let served = async |asked: Vec<Asked<usize, usize>>| {
            assert_eq!(asked.len(), 1);
            for asked in asked {
                let _ = asked.answer(7);
            }
        };
        assert_eq!(together.ask(2, served).await, Some(7));
    }
}
