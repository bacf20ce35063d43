//! What a receiver of webhooks sees.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use zkinfer_server::engine::{Engine, NewWebhook, Webhooks};
use zkinfer_server::webhooks::{Reach, Sender, sign};

use crate::world::{World, finish, whole};

/// Takes one call, answers it with `status`; gives its head and its body.
async fn receive(listener: &TcpListener, status: &str) -> (String, String) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    let (head, length) = loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.unwrap();
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length: usize = header(head, "content-length").parse().unwrap();
        if body.len() == length {
            break (head.to_owned(), length);
        }
    };
    stream.write_all(format!("HTTP/1.1 {status}\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.unwrap();
    let body = String::from_utf8(bytes[bytes.len() - length..].to_vec()).unwrap();
    (head, body)
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
    line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim()).unwrap_or_else(|| panic!("no {name} in {head}"))
}

pub(crate) async fn a_receiver_gets_the_signed_end_of_a_job_again_until_it_answers_well(world: World) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, secret) = (format!("http://{}/hook", listener.local_addr().unwrap()), [7; 32]);
    world.ready_model("acme", "net", whole()).await;
    world.engine.create_webhook(NewWebhook { tenant: "acme".into(), id: "hook".into(), url, secret }, 16).await.unwrap();
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    finish(&world, &world.lease(&session).await.lease).await.unwrap();
    let outbox: Arc<dyn Engine> = world.engine.clone();
    let outbox: Arc<dyn Webhooks> = outbox;
    let blind = Sender::new(outbox.clone(), Reach::Public).unwrap();
    assert_eq!(blind.send_due().await.unwrap(), 1, "it was tried, and not sent within");
    world.execute("UPDATE outbox SET not_before_ms = 0").await;
    let sender = Sender::new(outbox, Reach::Anywhere).unwrap();
    let mut ids = Vec::new();
    // An error, a redirection that is not followed, then success.
    for status in ["500 Oops", "302 Found", "204 No Content"] {
        let ((head, body), sent) = tokio::join!(receive(&listener, status), sender.send_due());
        assert_eq!(sent.unwrap(), 1);
        let (id, seconds) = (header(&head, "webhook-id"), header(&head, "webhook-timestamp").parse().unwrap());
        assert_eq!(header(&head, "webhook-signature"), sign(&secret, id, seconds, &body));
        assert!(body.contains("SUCCEEDED") && body.contains(&job.id), "{body}");
        ids.push(id.to_owned());
        assert_eq!(sender.send_due().await.unwrap(), 0, "not before its time");
        world.execute("UPDATE outbox SET not_before_ms = 0").await;
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "one id for all tries");
    assert_eq!(sender.send_due().await.unwrap(), 0, "it was heard");
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err());
}
