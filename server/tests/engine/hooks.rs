//! What a receiver of webhooks sees.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use zkinfer_server::engine::{Engine, NewWebhook, Webhooks};
use zkinfer_server::record_seal::{SecretKind, SecretPlace};
use zkinfer_server::webhooks::{Reach, Sender, sign};

use crate::world::{World, finish, seal, whole};

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

/// Nothing waits any more.
async fn make_due(world: &World) {
    world.execute("UPDATE outbox SET not_before_ms = 0").await;
    world.execute("UPDATE webhooks SET not_before_ms = 0").await;
}

fn outbox(world: &World) -> Arc<dyn Webhooks> {
    let engine: Arc<dyn Engine> = world.engine.clone();
    engine
}

pub(crate) async fn a_receiver_gets_the_signed_end_of_a_job_again_until_it_answers_well(world: World) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, secret) = (format!("http://{}/hook", listener.local_addr().unwrap()), [7; 32]);
    world.ready_model("acme", "net", whole()).await;
    world
        .engine
        .create_webhook(NewWebhook { tenant: "acme".into(), id: "hook".into(), url, secret: secret.to_vec().into() }, 16)
        .await
        .unwrap();
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    finish(&world, &world.lease(&session).await.lease).await.unwrap();
    let outbox = outbox(&world);
    let blind = Sender::new(outbox.clone(), Reach::Public).unwrap();
    assert_eq!(blind.send_due().await.unwrap(), 1, "it was tried, and not sent within");
    make_due(&world).await;
    let elsewhere = Sender::new(outbox.clone(), Reach::Anywhere).unwrap().to_ports(vec![443]);
    assert_eq!(elsewhere.send_due().await.unwrap(), 1, "nor to another port");
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err());
    make_due(&world).await;
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
        make_due(&world).await;
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "one id for all tries");
    assert_eq!(sender.send_due().await.unwrap(), 0, "it was heard");
    assert!(tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_err());
}

/// A tenant whose jobs' ends are told to `listener`, and how many have ended.
async fn hear(world: &World, tenant: &str, listener: &TcpListener, n_jobs: usize) {
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    world.ready_model(tenant, "net", whole()).await;
    world
        .engine
        .create_webhook(NewWebhook { tenant: tenant.into(), id: format!("hook-{tenant}"), url, secret: vec![7; 32].into() }, 16)
        .await
        .unwrap();
    let session = world.session().await;
    for _ in 0..n_jobs {
        world.job(tenant, "net").await;
        finish(world, &world.lease(&session).await.lease).await.unwrap();
    }
}

pub(crate) async fn a_receiver_that_never_answers_delays_nobody_else(world: World) {
    let (silent, lively) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    // More than are on their way at a time, and older.
    hear(&world, "silent", &silent, 140).await;
    hear(&world, "lively", &lively, 3).await;
    let closing = CancellationToken::new();
    let sending = tokio::spawn(Sender::new(outbox(&world), Reach::Anywhere).unwrap().run(closing.clone()));
    let (first, _) = silent.accept().await.unwrap();
    for _ in 0..3 {
        // Far less than the time for which an answer is waited.
        tokio::time::timeout(Duration::from_secs(5), receive(&lively, "204 No Content")).await.expect("is told at once");
    }
    assert!(tokio::time::timeout(Duration::from_millis(50), silent.accept()).await.is_err(), "one on its way at a time");
    closing.cancel();
    sending.await.unwrap();
    drop(first);
}

pub(crate) async fn one_failure_counts_for_all_that_a_webhook_was_to_hear(world: World) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    hear(&world, "acme", &listener, 3).await;
    let sender = Sender::new(outbox(&world), Reach::Anywhere).unwrap();
    for _ in 0..12 {
        let (_, sent) = tokio::join!(receive(&listener, "500 Oops"), sender.send_due());
        assert_eq!(sent.unwrap(), 1);
        assert_eq!(sender.send_due().await.unwrap(), 0, "it is left alone for a while");
        make_due(&world).await;
    }
    assert_eq!(sender.send_due().await.unwrap(), 0, "about a day: all of it is given up");
}

pub(crate) async fn secrets_lie_encrypted_and_those_from_before_stay_readable(world: World) {
    let seal = seal(&["a key of artifacts"]);
    let [before, now] = ["made without keys", "made with keys"].map(|text| *blake3::hash(text.as_bytes()).as_bytes());
    world.ready_model("acme", "net", whole()).await;
    let (old, new) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let stored = seal.seal(&now.into(), SecretPlace { kind: SecretKind::Webhook, tenant: "acme", id: "new" }).unwrap();
    for (id, listener, secret) in [("old", &old, before.to_vec().into()), ("new", &new, stored)] {
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        world.engine.create_webhook(NewWebhook { tenant: "acme".into(), id: id.into(), url, secret }, 16).await.unwrap();
    }
    assert!(world.tells(&before).await && !world.tells(&now).await);
    world.job("acme", "net").await;
    let session = world.session().await;
    finish(&world, &world.lease(&session).await.lease).await.unwrap();

    let is_signed = |(head, body): (String, String), secret: &[u8; 32]| {
        let (id, seconds) = (header(&head, "webhook-id"), header(&head, "webhook-timestamp").parse().unwrap());
        header(&head, "webhook-signature") == sign(secret, id, seconds, &body)
    };
    // Whose key is not there is not told, and holds up nobody else.
    let without_keys = Sender::new(outbox(&world), Reach::Anywhere).unwrap();
    let (heard, tried) = tokio::join!(receive(&old, "204 No Content"), without_keys.send_due());
    assert!(is_signed(heard, &before));
    assert_eq!(tried.unwrap(), 2);
    make_due(&world).await;
    let sender = Sender::new(outbox(&world), Reach::Anywhere).unwrap().opening(seal);
    let (heard, tried) = tokio::join!(receive(&new, "204 No Content"), sender.send_due());
    assert!(is_signed(heard, &now));
    assert_eq!(tried.unwrap(), 1);
}
