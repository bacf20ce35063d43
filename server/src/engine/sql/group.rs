//! Group commit for SQLite: those who write at the same time share one flush to the disk.
//!
//! One connection writes. Whoever has it works inside a savepoint of a transaction that is open; when it is done and others wait, the transaction stays
//! open for them, and the last of them commits it. Nobody is told of success before that commit has returned, so what was answered is on disk, as with a
//! transaction for each. If the commit fails, all of the group are told. What one of them saw of another that is not on disk yet, it can only pass on
//! after the same commit; therefore whoever answers with what it read commits too ([`Member::commit`]), and only errors are told without waiting.
//!
//! Futures may be dropped anywhere. Whatever was begun and not committed is rolled back by the next who has the connection, or by a task that the drop
//! starts; each commit is a task too, so that nothing else can end it half way.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::{AnyConnection, Connection as _, Executor as _};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMappedMutexGuard, OwnedMutexGuard, oneshot};

use super::super::EngineError;

/// Who works in one transaction, at most, whether it commits or not: the first waits for the last.
const MAX_MEMBERS: usize = 32;
/// How long a turn is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who writes together. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// None: it is closed.
    desk: Arc<Mutex<Option<Desk>>>,
    n_queued: Arc<AtomicUsize>,
    runtime: Handle,
}

/// How far the transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// None is open.
    Idle,
    /// Open; members may wait for its commit.
    Open,
    /// A member is at work, or was dropped at work.
    Inside,
}

/// Told whether the group's transaction is on disk.
type Waiter = oneshot::Sender<Result<(), EngineError>>;

/// The connection, in the hands of one.
type Turn = OwnedMappedMutexGuard<Option<Desk>, Desk>;

/// The connection, for one at a time.
#[derive(Debug)]
struct Desk {
    // Of no pool: that could be left only while the runtime lives, and a group may outlive it.
    connection: AnyConnection,
    phase: Phase,
    /// Who has worked in the open transaction.
    n_worked: usize,
    waiters: Vec<Waiter>,
    // Held as long as anything may still write, and released by the system if the process dies.
    lock: File,
}

impl Desk {
    /// Ends what a member left half way.
    async fn clear(&mut self) {
        if self.phase != Phase::Inside {
            return;
        }
        // SQLite ends a whole transaction by itself when the disk is full or fails: then there is no savepoint, and the group has failed.
        match self.connection.execute("ROLLBACK TO member; RELEASE member").await {
            Ok(_) => self.phase = Phase::Open,
            Err(error) => self.give_up(error).await,
        }
    }

    async fn give_up(&mut self, error: sqlx::Error) {
        // There may be none any more.
        let _ = self.connection.execute("ROLLBACK").await;
        self.phase = Phase::Idle;
        self.tell(Err(error));
    }

    async fn enter(&mut self) -> Result<(), sqlx::Error> {
        self.clear().await;
        let is_first = self.phase == Phase::Idle;
        self.n_worked = if is_first { 1 } else { self.n_worked + 1 };
        // Before the statement: if it is cut off, the next one finds out.
        self.phase = Phase::Inside;
        self.connection.execute(if is_first { "BEGIN IMMEDIATE; SAVEPOINT member" } else { "SAVEPOINT member" }).await.map(drop)
    }

    async fn leave(&mut self) -> Result<(), sqlx::Error> {
        self.connection.execute("RELEASE member").await?;
        self.phase = Phase::Open;
        Ok(())
    }

    async fn commit(&mut self) {
        self.clear().await;
        if self.phase == Phase::Idle {
            return;
        }
        match self.connection.execute("COMMIT").await {
            Ok(_) => {
                self.phase = Phase::Idle;
                self.tell(Ok(()));
            }
            Err(error) => self.give_up(error).await,
        }
    }

    /// Tells all members. One has the error itself; the others its text and kind.
    fn tell(&mut self, outcome: Result<(), sqlx::Error>) {
        let outcome = outcome.map_err(EngineError::from);
        for waiter in self.waiters.drain(..) {
            // Who was dropped meanwhile is not told.
            let _ = waiter.send(outcome.as_ref().copied().map_err(shared));
        }
    }
}

/// The error of a transaction, for another who shared it.
pub(super) fn shared(error: &EngineError) -> EngineError {
    let copy = |source: &sqlx::Error| sqlx::Error::Protocol(format!("the transaction that was shared failed: {source}"));
    match error {
        EngineError::Full(source) => EngineError::Full(copy(source)),
        EngineError::Busy(source) => EngineError::Busy(copy(source)),
        EngineError::Database(source) => EngineError::Database(copy(source)),
        other => EngineError::Database(sqlx::Error::Protocol(other.to_string())),
    }
}

impl Group {
    /// Over the one connection that writes; on the runtime that it is called on.
    pub(super) fn new(connection: AnyConnection, lock: File) -> Self {
        let desk = Desk { connection, phase: Phase::Idle, n_worked: 0, waiters: Vec::new(), lock };
        Self { desk: Arc::new(Mutex::new(Some(desk))), n_queued: Arc::default(), runtime: Handle::current() }
    }

    /// Waits for a turn.
    pub(super) async fn begin(&self) -> Result<Member, sqlx::Error> {
        let queued = Queued::new(self);
        let turn = tokio::time::timeout(PATIENCE, self.turn()).await.map_err(|_| sqlx::Error::PoolTimedOut)?;
        queued.has_turn();
        let mut member = Member { group: self.clone(), desk: Some(turn.ok_or(sqlx::Error::PoolClosed)?) };
        if let Some(desk) = &mut member.desk {
            desk.enter().await?;
        }
        Ok(member)
    }

    /// None: the group is closed.
    async fn turn(&self) -> Option<Turn> {
        OwnedMutexGuard::try_map(self.desk.clone().lock_owned().await, Option::as_mut).ok()
    }

    /// Commits what is open, closes the connection and gives the lock back. Whoever wants to write afterwards is refused.
    pub(super) async fn close(&self) {
        let Some(mut desk) = self.desk.lock().await.take() else { return };
        desk.commit().await;
        let Desk { connection, lock, .. } = desk;
        // Nothing is open any more that it could lose.
        let _ = connection.close().await;
        drop(lock);
    }

    /// Commits unless another will.
    async fn end_turn(self, mut desk: Turn) {
        desk.clear().await;
        if self.n_queued.load(Ordering::Acquire) == 0 || desk.n_worked >= MAX_MEMBERS {
            desk.commit().await;
        }
    }
}

/// Waits for a turn. Members may rely on it to commit: if it gives up waiting, a task does.
struct Queued<'a> {
    group: &'a Group,
    has_turn: bool,
}

impl<'a> Queued<'a> {
    fn new(group: &'a Group) -> Self {
        group.n_queued.fetch_add(1, Ordering::AcqRel);
        Self { group, has_turn: false }
    }

    fn has_turn(mut self) {
        self.has_turn = true;
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.group.n_queued.fetch_sub(1, Ordering::AcqRel);
        if !self.has_turn {
            let group = self.group.clone();
            self.group.runtime.spawn(async move {
                if let Some(turn) = group.turn().await {
                    group.end_turn(turn).await;
                }
            });
        }
    }
}

/// Who has the connection. Rolled back if it is dropped.
#[derive(Debug)]
pub(super) struct Member {
    group: Group,
    // Always there until the turn ends.
    desk: Option<Turn>,
}

impl Member {
    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        &mut self.desk.as_mut().expect("the desk is given away by what takes the member").connection
    }

    /// Returns when everything that this member wrote or read is on disk.
    pub(super) async fn commit(mut self) -> Result<(), EngineError> {
        let (waiter, told) = oneshot::channel();
        if let Some(mut desk) = self.desk.take() {
            let group = self.group.clone();
            self.group.runtime.spawn(async move {
                match desk.leave().await {
                    Ok(()) => desk.waiters.push(waiter),
                    Err(error) => {
                        let _ = waiter.send(Err(error.into()));
                    }
                }
                group.end_turn(desk).await;
            });
        }
        told.await.unwrap_or_else(|_| Err(EngineError::Busy(sqlx::Error::PoolClosed)))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            self.group.runtime.spawn(self.group.clone().end_turn(desk));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::AnyPool;
    use tempfile::TempDir;

    use super::super::sqlite::pool;
    use super::*;

    struct World {
        group: Group,
        reader: AnyPool,
        folder: TempDir,
    }

    async fn world() -> World {
        sqlx::any::install_default_drivers();
        let folder = tempfile::tempdir().unwrap();
        let path: &Path = &folder.path().join("group.db");
        let writer = pool(path, "rwc", 1).await.unwrap().acquire().await.unwrap();
        let group = Group::new(writer.detach(), File::create(folder.path().join("lock")).unwrap());
        let mut member = group.begin().await.unwrap();
        member.connection().execute("CREATE TABLE notes(note BLOB NOT NULL)").await.unwrap();
        member.commit().await.unwrap();
        World { group, reader: pool(path, "ro", 1).await.unwrap(), folder }
    }

    impl World {
        async fn count(&self) -> i64 {
            sqlx::query_scalar("SELECT count(*) FROM notes").fetch_one(&self.reader).await.unwrap()
        }
    }

    async fn write(member: &mut Member, n_bytes: i64) -> Result<(), sqlx::Error> {
        sqlx::query("INSERT INTO notes(note) VALUES (zeroblob($1))").bind(n_bytes).execute(member.connection()).await.map(drop)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_was_committed_is_there_and_what_was_dropped_is_not() {
        let world = world().await;
        let mut writing = tokio::task::JoinSet::new();
        for i in 0..300 {
            let group = world.group.clone();
            writing.spawn(async move {
                let mut member = group.begin().await.unwrap();
                write(&mut member, 1).await.unwrap();
                if i % 3 > 0 {
                    member.commit().await.unwrap();
                }
            });
        }
        while let Some(written) = writing.join_next().await {
            written.unwrap();
        }
        assert_eq!(world.count().await, 200);
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_and_gives_up_strands_nobody() {
        let world = world().await;
        let mut first = world.group.begin().await.unwrap();
        write(&mut first, 1).await.unwrap();
        let mut second = Box::pin(world.group.begin());
        assert!(futures::poll!(&mut second).is_pending());
        let committed = tokio::spawn(first.commit());
        tokio::task::yield_now().await;
        drop(second);
        tokio::time::timeout(PATIENCE, committed).await.unwrap().unwrap().unwrap();
        assert_eq!(world.count().await, 1);
    }

    /// Somebody always waits for a turn, and works without a commit.
    #[tokio::test]
    async fn who_committed_does_not_wait_for_ever_for_those_who_do_not() {
        let world = world().await;
        let mut first = world.group.begin().await.unwrap();
        write(&mut first, 1).await.unwrap();
        let _never_served = Queued::new(&world.group);
        let committed = tokio::spawn(first.commit());
        for _ in 1..MAX_MEMBERS {
            assert!(!committed.is_finished());
            let mut other = world.group.begin().await.unwrap();
            write(&mut other, 1).await.unwrap();
        }
        tokio::time::timeout(PATIENCE, committed).await.unwrap().unwrap().unwrap();
        assert_eq!(world.count().await, 1);
    }

    #[tokio::test]
    async fn who_closes_waits_for_whoever_writes_and_frees_the_lock_though_others_hold_the_group() {
        let world = world().await;
        let path = world.folder.path().join("lock");
        world.group.desk.lock().await.as_ref().unwrap().lock.lock().unwrap();
        let mut member = world.group.begin().await.unwrap();
        write(&mut member, 1).await.unwrap();
        let mut closing = Box::pin(world.group.close());
        assert!(futures::poll!(&mut closing).is_pending());
        let late = tokio::spawn({
            let group = world.group.clone();
            async move { group.begin().await.map(drop) }
        });
        let (committed, ()) = tokio::join!(member.commit(), closing);
        committed.unwrap();
        File::open(path).unwrap().try_lock().expect("nobody has it");
        assert!(matches!(late.await.unwrap(), Err(sqlx::Error::PoolClosed)));
        assert_eq!(world.count().await, 1);
        world.group.close().await;
    }

    #[tokio::test]
    async fn a_full_disk_is_told_to_all_of_the_group_and_the_next_group_writes() {
        let world = world().await;
        let mut member = world.group.begin().await.unwrap();
        member.connection().execute("PRAGMA max_page_count = 16").await.unwrap();
        write(&mut member, 1).await.unwrap();
        // Somebody waits, so that the first does not commit alone.
        let second = tokio::spawn({
            let group = world.group.clone();
            async move {
                let mut member = group.begin().await?;
                write(&mut member, 1 << 20).await
            }
        });
        while world.group.n_queued.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        let first = member.commit().await;
        let code = second.await.unwrap().map_err(EngineError::from);
        assert!(matches!(code, Err(EngineError::Full(_))), "{code:?}");
        // SQLite may keep what came before the statement that failed, or not: what is told is what holds.
        assert_eq!(world.count().await, i64::from(first.is_ok()));
        let mut member = world.group.begin().await.unwrap();
        member.connection().execute("PRAGMA max_page_count = 1000000").await.unwrap();
        write(&mut member, 1 << 20).await.unwrap();
        member.commit().await.unwrap();
        assert_eq!(world.count().await, 1 + i64::from(first.is_ok()));
    }
}
