//! Batches, followed through streams that break, and waits over calls that fail: of a service that does what the test tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use zkinfer_client::{Client, ClientError, ClientOptions, RetryPolicy};
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_proto::v1::proof_service_server::{ProofService, ProofServiceServer};

type Events<T> = tokio_stream::Iter<std::vec::IntoIter<Result<T, Status>>>;

const TOTAL: usize = 8;
/// Nothing of it waits for longer.
const SILENCE: Duration = Duration::from_secs(1);

/// How the streams of a [`Scripted`] service go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Script {
    /// Each begins with what the one before told, tells of one job more, twice, and breaks; after the last job it ends.
    Break,
    /// Each ends without a word.
    SayNothing,
    /// All jobs have ended; the first stream ends before it tells so.
    SayLate,
    /// No stream is ever begun to be answered.
    Hang,
    /// There are none. Of the calls that wait for a job the first fails, the second ends before the job, and by the third it has ended.
    EndLate,
}

/// A service with one batch.
struct Scripted {
    script: Script,
    streams: Arc<AtomicUsize>,
}

impl Scripted {
    /// A client of it, and how many streams were opened, or waits begun.
    async fn start(script: Script) -> (Client, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let streams = Arc::new(AtomicUsize::new(0));
        let server = Server::builder().add_service(ProofServiceServer::new(Self { script, streams: streams.clone() }));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let retry = RetryPolicy { attempts: 3, first_wait: Duration::from_millis(1), ..RetryPolicy::default() };
        (Client::connect_with(&address, ClientOptions { retry, silence: SILENCE, ..ClientOptions::default() }).await.unwrap(), streams)
    }

    fn batch(&self) -> v1::Batch {
        batch(match self.script {
            Script::Break => self.streams.load(Ordering::SeqCst).min(TOTAL),
            Script::SayNothing | Script::Hang | Script::EndLate => 0,
            Script::SayLate => TOTAL,
        })
    }
}

fn batch(n_ended: usize) -> v1::Batch {
    v1::Batch { total: TOTAL as i32, succeeded: n_ended as i32, queued: (TOTAL - n_ended) as i32, ..Default::default() }
}

/// The first event of a stream: so many jobs have ended.
fn first_event(n_ended: usize) -> v1::BatchEvent {
    v1::BatchEvent { batch: Some(batch(n_ended)), ended: (0..n_ended).map(|job| format!("job-{job}")).collect() }
}

fn not_scripted<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not scripted"))
}

#[tonic::async_trait]
impl ProofService for Scripted {
    type WatchBatchStream = Events<v1::BatchEvent>;
    type WatchJobStream = Events<v1::JobEvent>;

    async fn get_batch(&self, _: Request<v1::GetBatchRequest>) -> Result<Response<v1::Batch>, Status> {
        Ok(Response::new(self.batch()))
    }

    async fn watch_batch(&self, _: Request<v1::WatchBatchRequest>) -> Result<Response<Self::WatchBatchStream>, Status> {
        let n_streams = self.streams.fetch_add(1, Ordering::SeqCst) + 1;
        let mut events = Vec::new();
        match self.script {
            Script::Break => {
                let n_ended = n_streams.min(TOTAL);
                events.push(Ok(first_event(n_ended - 1)));
                events.push(Ok(v1::BatchEvent { batch: Some(batch(n_ended)), ended: vec![format!("job-{}", n_ended - 1)] }));
                events.push(Ok(v1::BatchEvent { batch: Some(batch(n_ended)), ended: Vec::new() }));
                if n_streams < TOTAL {
                    events.push(Err(Status::unavailable("broken")));
                }
            }
            Script::SayLate if n_streams > 1 => events.push(Ok(first_event(TOTAL))),
            Script::Hang => std::future::pending().await,
            Script::SayNothing | Script::SayLate | Script::EndLate => {}
        }
        Ok(Response::new(tokio_stream::iter(events)))
    }

    async fn create_job(&self, _: Request<v1::CreateJobRequest>) -> Result<Response<v1::Job>, Status> {
        not_scripted()
    }

    async fn batch_create_jobs(&self, _: Request<v1::BatchCreateJobsRequest>) -> Result<Response<v1::BatchCreateJobsResponse>, Status> {
        not_scripted()
    }

    async fn get_job(&self, _: Request<v1::GetJobRequest>) -> Result<Response<v1::Job>, Status> {
        not_scripted()
    }

    async fn list_job_tasks(&self, _: Request<v1::ListJobTasksRequest>) -> Result<Response<v1::ListJobTasksResponse>, Status> {
        not_scripted()
    }

    async fn list_jobs(&self, _: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        not_scripted()
    }

    async fn delete_job(&self, _: Request<v1::DeleteJobRequest>) -> Result<Response<v1::DeleteJobResponse>, Status> {
        not_scripted()
    }

    async fn cancel_job(&self, _: Request<v1::CancelJobRequest>) -> Result<Response<v1::Job>, Status> {
        not_scripted()
    }

    async fn wait_job(&self, _: Request<v1::WaitJobRequest>) -> Result<Response<v1::Job>, Status> {
        let state = match (self.script, self.streams.fetch_add(1, Ordering::SeqCst)) {
            (Script::EndLate, 0) => return Err(Status::unavailable("away")),
            (Script::EndLate, 1) => State::Running,
            (Script::EndLate, _) => State::Succeeded,
            _ => return not_scripted(),
        };
        Ok(Response::new(v1::Job { state: state.into(), ..Default::default() }))
    }

    async fn watch_job(&self, _: Request<v1::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        std::future::pending().await
    }

    async fn estimate_job(&self, _: Request<v1::EstimateJobRequest>) -> Result<Response<v1::CostEstimate>, Status> {
        not_scripted()
    }

    async fn verify_proof(&self, _: Request<v1::VerifyProofRequest>) -> Result<Response<v1::VerifyProofResponse>, Status> {
        not_scripted()
    }
}

#[tokio::test]
async fn a_batch_that_gets_on_is_followed_through_more_broken_streams_than_there_are_attempts() {
    let (client, streams) = Scripted::start(Script::Break).await;
    let (mut ended, mut succeeded) = (Vec::new(), Vec::new());
    let on_event = |event: &v1::BatchEvent| {
        ended.extend(event.ended.clone());
        succeeded.push(event.batch.clone().unwrap_or_default().succeeded as usize);
    };
    let batch = client.finish_batch("tenants/t/batches/b", on_event).await.unwrap();
    assert_eq!((batch.succeeded as usize, streams.load(Ordering::SeqCst)), (TOTAL, TOTAL));
    assert_eq!(ended, first_event(TOTAL).ended, "each once");
    assert_eq!(succeeded, (0..=TOTAL).collect::<Vec<_>>(), "nothing is told twice");
}

#[tokio::test]
async fn ends_that_a_broken_stream_did_not_tell_are_told_by_the_next() {
    let (client, streams) = Scripted::start(Script::SayLate).await;
    let mut ended = Vec::new();
    client.finish_batch("tenants/t/batches/b", |event| ended.extend(event.ended.clone())).await.unwrap();
    assert_eq!((ended, streams.load(Ordering::SeqCst)), (first_event(TOTAL).ended, 2));
}

#[tokio::test]
async fn a_batch_whose_streams_only_end_is_given_up() {
    let (client, streams) = Scripted::start(Script::SayNothing).await;
    let error = client.finish_batch("tenants/t/batches/b", |_| {}).await.unwrap_err();
    assert!(matches!(&error, ClientError::Answer(problem) if problem.contains("again and again")), "{error}");
    assert_eq!(streams.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn streams_that_are_not_begun_to_be_answered_are_given_up() {
    let (client, streams) = Scripted::start(Script::Hang).await;
    let error = client.finish_batch("tenants/t/batches/b", |_| {}).await.unwrap_err();
    assert!(matches!(&error, ClientError::Answer(problem) if problem.contains("again and again")), "{error}");
    assert_eq!(streams.load(Ordering::SeqCst), 3);
    let error = client.watch_job("tenants/t/jobs/j").next().await.unwrap_err();
    assert!(matches!(&error, ClientError::Answer(problem) if problem.contains("again and again")), "{error}");
}

#[tokio::test]
async fn a_job_is_waited_for_over_calls_that_fail_and_calls_that_end_before_it() {
    let (client, calls) = Scripted::start(Script::EndLate).await;
    let job = client.wait_job("tenants/t/jobs/j", Duration::MAX).await.unwrap();
    assert_eq!((job.state(), calls.load(Ordering::SeqCst)), (State::Succeeded, 3));
}

#[tokio::test]
async fn a_wait_whose_time_is_over_asks_once() {
    let (client, calls) = Scripted::start(Script::EndLate).await;
    let error = client.wait_job("tenants/t/jobs/j", Duration::ZERO).await.unwrap_err();
    assert!(error.is_unavailable() && calls.load(Ordering::SeqCst) == 1, "{error}");
    let job = client.wait_job("tenants/t/jobs/j", Duration::ZERO).await.unwrap();
    assert_eq!((job.state(), calls.load(Ordering::SeqCst)), (State::Running, 2));
}
