//! `zkinferd` as a process: certificates and keys that its own commands make, TLS, and SIGHUP.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use zkinfer_proto::v1;

use crate::harness::{Client, expect_error, with_bearer};
use crate::tokens::{AUDIENCE, ISSUER, Signer, claims_with};

pub(crate) fn zkinferd(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zkinferd")).args(arguments).env("ZKINFER_LOG", "info").output().unwrap()
}

fn parsed(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A running daemon. Killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: String,
    log: PathBuf,
}

impl Daemon {
    pub(crate) async fn start(folder: &Path, options: &[&str]) -> Self {
        let (address_file, log) = (folder.join("address"), folder.join("log"));
        let child = Command::new(env!("CARGO_BIN_EXE_zkinferd"))
            .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--log", "debug"])
            .arg("--data-dir")
            .arg(folder.join("data"))
            .arg("--address-file")
            .arg(&address_file)
            .args(options)
            .stderr(Stdio::from(std::fs::File::create(&log).unwrap()))
            .spawn()
            .unwrap();
        let started = async {
            loop {
                match std::fs::read_to_string(&address_file) {
                    Ok(address) => break address,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let address = tokio::time::timeout(Duration::from_secs(60), started).await.expect("the daemon listens");
        Self { child, address, log }
    }

    pub(crate) async fn connect(&self, certificates: &Path) -> Client {
        let read = |name: &str| std::fs::read(certificates.join(name)).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")))
            .identity(Identity::from_pem(read("client.pem"), read("client-key.pem")))
            .domain_name("zkinfer.test");
        let endpoint = Channel::from_shared(format!("https://{}", self.address)).unwrap().tls_config(tls).unwrap();
        Client::over(endpoint.connect().await.unwrap())
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit code, once the daemon has ended.
    pub(crate) async fn exit_code(&mut self) -> i32 {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the daemon answers to a key, as a code.
async fn code(client: &Client, key: &str) -> Code {
    let request = with_bearer(v1::ListJobsRequest::default(), key);
    match client.proofs.clone().list_jobs(request).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_make_certificates_and_keys_that_the_daemon_takes_and_no_secret_is_logged() {
    let folder = tempfile::tempdir().unwrap();
    let certificates = folder.path().join("certificates");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let file = |name: &str| text(&certificates.join(name));
    let keys = text(&folder.path().join("keys"));
    let make = ["certs", "--out", &text(&certificates), "--name", "localhost", "127.0.0.1", "zkinfer.test", "--client", "spiffe://acme/ci"];
    assert!(zkinferd(&make).status.success());
    assert_eq!(zkinferd(&make).status.code(), Some(1), "files that are there stay");
    for key in ["ca-key.pem", "server-key.pem", "client-key.pem"] {
        assert_eq!(std::fs::metadata(certificates.join(key)).unwrap().permissions().mode() & 0o777, 0o600, "{key}");
    }
    let create = |name: &str| {
        let scopes = "jobs.read,verify";
        parsed(&zkinferd(&["keys", "create", "--keys", &keys, "--tenant", "acme", "--name", name, "--scopes", scopes, "--json"]))
    };
    let (first, second) = (create("first"), create("second"));
    let [first_key, second_key] = [&first, &second].map(|made: &Value| made["key"].as_str().unwrap());
    std::fs::write(folder.path().join("map"), "spiffe://acme/ci ci scopes=models.read\n").unwrap();

    let (map, ca) = (text(&folder.path().join("map")), file("ca.pem"));
    let (server, server_key) = (file("server.pem"), file("server-key.pem"));
    let tls = ["--tls-cert", &server, "--tls-key", &server_key, "--tls-client-ca", &ca, "--tls-client-map", &map, "--keys", &keys];
    let signer = Signer::new("login", Algorithm::EdDSA);
    let public = text(&folder.path().join("login.pem"));
    std::fs::write(&public, &signer.public_pem).unwrap();
    let token = signer.sign(&claims_with("organisation", json!("umbrella")));
    let jwt = ["--jwt-keys", &public, "--jwt-issuer", ISSUER, "--jwt-audience", AUDIENCE, "--jwt-tenant-claim", "organisation"];
    let daemon = Daemon::start(folder.path(), &[&tls[..], &jwt[..]].concat()).await;
    let mut client = daemon.connect(&certificates).await;
    for credentials in [first_key, second_key, &token] {
        assert_eq!(code(&client, credentials).await, Code::Ok);
    }
    client.models.list_models(v1::ListModelsRequest::default()).await.expect("the certificate may");
    let status = client.models.list_models(with_bearer(v1::ListModelsRequest::default(), first_key)).await.unwrap_err();
    expect_error(&status, Code::PermissionDenied, "SCOPE_MISSING");

    assert!(zkinferd(&["keys", "revoke", "--keys", &keys, "acme/first"]).status.success());
    daemon.signal("-HUP");
    let noticed = async {
        while code(&client, first_key).await != Code::Unauthenticated {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), noticed).await.expect("the daemon notices");
    assert_eq!(code(&client, second_key).await, Code::Ok);
    let listed = parsed(&zkinferd(&["keys", "list", "--keys", &keys, "--json"]));
    let states: Vec<&str> = listed.as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["revoked", "active"]);
    let log = daemon.log();
    assert!(log.contains("API keys") && log.contains("read again"), "{log}");
    for secret in [first_key, second_key, &first_key[4..], &token, "PRIVATE KEY"] {
        assert!(!log.contains(secret) && !std::fs::read_to_string(&keys).unwrap().contains(secret));
    }
}

/// As a worker's is whose supervisor was killed.
#[test]
fn a_log_that_nobody_reads_any_more_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let address = folder.path().join("address");
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_zkinferd"))
        .args(["serve", "--listen", "127.0.0.1:0", "--device", "cpu", "--log", "debug", "--data-dir"])
        .arg(folder.path().join("data"))
        .arg("--address-file")
        .arg(&address)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(daemon.stderr.take());
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !address.exists() {
        assert!(daemon.try_wait().unwrap().is_none() && std::time::Instant::now() < end, "it starts");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(Command::new("kill").arg(daemon.id().to_string()).status().unwrap().success());
    assert_eq!(daemon.wait().unwrap().code(), Some(0), "it ends in order");
}

/// Opens a pipe once its reader is there.
fn opened(pipe: PathBuf) -> std::fs::File {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(std::fs::File::options().write(true).open(pipe)));
    receiver.recv_timeout(Duration::from_secs(60)).expect("it is read").unwrap()
}

#[test]
fn a_signal_to_read_files_again_does_not_end_a_process_that_still_starts() {
    let folder = tempfile::tempdir().unwrap();
    let text = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (pipe, data, cache) = (text("pipe"), text("data"), text("cache"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let worker = ["worker", "--device", "cpu", "--server", "https://127.0.0.1:1", "--cache-dir", &cache, "--tls-ca", &pipe];
    let serve = ["serve", "--device", "cpu", "--listen", "127.0.0.1:0", "--data-dir", &data, "--limits", &pipe];
    for (line, child) in [(&serve[..], None), (&worker[..], None), (&worker[..], Some("--child"))] {
        let mut process = Command::new(env!("CARGO_BIN_EXE_zkinferd"))
            .args(line)
            .args(child)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut file = opened(folder.path().join("pipe"));
        assert!(Command::new("kill").args(["-HUP", &process.id().to_string()]).status().unwrap().success());
        // Then it ends by itself, because of what it reads.
        let _ = file.write_all(b"neither limits nor a certificate");
        drop(file);
        let status = process.wait().unwrap();
        assert_eq!(status.code(), Some(1), "{line:?} {child:?}: {status}");
    }
}

#[test]
fn the_daemon_says_what_is_missing_to_listen_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = |more: &[&str]| {
        let output =
            zkinferd(&[&["serve", "--device", "cpu", "--listen", "0.0.0.0:0", "--data-dir", data.to_str().unwrap()], more].concat());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let nothing = serve(&[]);
    assert!(["--keys", "--jwt-keys", "--tls-cert", "--insecure-plaintext"].iter().all(|option| nothing.contains(option)), "{nothing}");
    let plaintext = serve(&["--insecure-plaintext"]);
    assert!(plaintext.contains("--keys") && !plaintext.contains("without TLS"), "{plaintext}");
    assert!(serve(&["--keys", "/does/not/exist"]).contains("/does/not/exist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_is_emptied_once_nobody_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let (data, cache) = (folder.path().join("data"), folder.path().join("data/cache"));
    let command = |name: &str| zkinferd(&["cache", name, "--json", "--data-dir", data.to_str().unwrap()]);
    let missing = command("clear");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("--cache-dir"), "{missing:?}");
    let daemon = Daemon::start(folder.path(), &[]).await;
    std::fs::write(cache.join("weights-of-a-test"), b"12345").unwrap();
    let refused = command("clear");
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("used by a running process") && message.contains(cache.to_str().unwrap()), "{message}");
    let shown = parsed(&command("show"));
    assert_eq!((&shown["used"], &shown["entries"]["weights"]), (&json!(true), &json!({ "files": 1, "bytes": 5 })));
    drop(daemon);
    let freed = parsed(&command("clear"));
    assert!(freed["freed"]["files"].as_u64() >= Some(1) && freed["freed"]["bytes"].as_u64() >= Some(5), "{freed}");
    assert!(!cache.join("weights-of-a-test").exists());
    let shown = parsed(&command("show"));
    assert_eq!((&shown["used"], &shown["entries"]), (&json!(false), &json!({})));
    let text = zkinferd(&["cache", "clear", "--cache-dir", cache.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&text.stdout).ends_with("freed: 0 files, 0 bytes\n"), "{text:?}");
}
