//! Those who ask for the same kind of thing while others are being served are served together, by whoever's turn is next: one transaction instead of many.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    turn: tokio::sync::Mutex<()>,
    most: usize,
}

impl<Q, A> Together<Q, A> {
    /// Serves at most so many at a time: the first of them waits for the last.
    pub(crate) fn of_at_most(most: usize) -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default(), most }
    }

    /// Waits for an answer, or for the turn to `serve` those who wait. None: whoever served gave no answer, or was dropped. To be polled to its end or
    /// dropped: whoever has the turn keeps it until then.
    pub(crate) async fn ask<Served: Future<Output = ()>>(&self, question: Q, serve: impl Fn(Vec<Asked<Q, A>>) -> Served) -> Option<A> {
        let (sender, mut answer) = oneshot::channel();
        self.lock().push_back(Asked { question, answer: sender });
        let _turn = tokio::select! {
            biased;
            answered = &mut answer => return answered.ok(),
            turn = self.turn.lock() => turn,
        };
        loop {
            match answer.try_recv() {
                Ok(answer) => return Some(answer),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => serve(self.take(self.most)).await,
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

    #[tokio::test]
    async fn who_asks_while_others_are_served_is_served_with_the_next() {
        let together = Arc::new(Together::<usize, usize>::of_at_most(4));
        let n_turns = AtomicUsize::new(0);
        let serve = async |asked: Vec<Asked<usize, usize>>| {
            n_turns.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            for asked in asked {
                let twice = asked.question * 2;
                let _ = asked.answer(twice);
            }
        };
        let answers = futures::future::join_all((0..9).map(|number| together.ask(number, &serve))).await;
        assert_eq!(answers, (0..9).map(|number| Some(number * 2)).collect::<Vec<_>>());
        assert_eq!(n_turns.into_inner(), 3, "nine by fours");
    }

    #[tokio::test]
    async fn who_is_not_answered_or_whose_server_is_dropped_is_told_so() {
        let together = Together::<usize, usize>::of_at_most(4);
        let refuse = async |_: Vec<Asked<usize, usize>>| {};
        assert_eq!(together.ask(1, refuse).await, None);
        let turn = together.turn.lock().await;
        let stuck = async |asked: Vec<Asked<usize, usize>>| {
            let _asked = asked;
            futures::future::pending::<()>().await;
        };
        let (mut first, mut second) = (Box::pin(together.ask(1, stuck)), Box::pin(together.ask(2, stuck)));
        assert!(futures::poll!(&mut first).is_pending() && futures::poll!(&mut second).is_pending());
        drop(turn);
        // It takes both, and is dropped at it.
        assert!(futures::poll!(&mut first).is_pending());
        drop(first);
        assert_eq!(second.await, None);
    }

    #[tokio::test]
    async fn who_does_not_listen_any_more_is_not_served() {
        let together = Together::<usize, usize>::of_at_most(4);
        let turn = together.turn.lock().await;
        let nobody = async |_: Vec<Asked<usize, usize>>| {};
        let mut gone = Box::pin(together.ask(1, nobody));
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
