//! The dashboard's answers over HTTP: to whom, what, and how they follow what happens.

// That a job is half done only the browser is shown.
#[allow(dead_code)]
mod site;

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;
use zkinfer_server::auth::Authentication;
use zkinfer_server::engine::{FailedAttempt, FailureCause, Usage};

use site::{HOSTILE, Port, SECRET, Site, new_key};

const ANSWERS: [&str; 8] = [
    "api/session",
    "api/overview",
    "api/live",
    "api/jobs",
    "api/jobs/acme/0199aaaa-0000-7000-8000-000000000000",
    "api/jobs/acme/0199aaaa-0000-7000-8000-000000000000/live",
    "api/models",
    "api/other",
];

fn request(site: &Site, path: &str) -> reqwest::RequestBuilder {
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(Duration::from_secs(20));
    client.build().unwrap().get(format!("http://{}/dashboard/{path}", site.address))
}

async fn read(site: &Site, path: &str) -> Value {
    let response = request(site, path).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

async fn refusal(request: reqwest::RequestBuilder, code: StatusCode) -> String {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), code);
    assert!(response.headers().contains_key("content-security-policy"));
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1);
    body["error"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_operators_key_nothing_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let (operator, tenant) = (new_key(&path, "operator", "admin"), new_key(&path, "laptop", "models.read,jobs.read,jobs.create"));
    let site = Site::start(folder.path(), Authentication::none().with_keys(&path).unwrap(), Port::Network).await;
    site.model("acme", "net", 1).await;
    for answer in ANSWERS {
        let nobody = request(&site, answer);
        let wrong = request(&site, answer).bearer_auth("zki_00");
        let of_tenant = request(&site, answer).bearer_auth(&tenant);
        let twice = request(&site, answer).bearer_auth(&operator).bearer_auth(&operator);
        for refused in [nobody, wrong, of_tenant, twice] {
            let error = refusal(refused, StatusCode::UNAUTHORIZED).await;
            assert!(error.contains("scope admin"), "{error}");
        }
    }
    for open in ["", "assets/app.js", "assets/style.css", "assets/icon.svg"] {
        let response = request(&site, open).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["x-frame-options"], "DENY");
        assert!(!response.headers().contains_key("set-cookie"));
    }
    assert_eq!(request(&site, "assets/nothing.js").send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let answered = request(&site, "api/models").bearer_auth(&operator).send().await.unwrap();
    assert_eq!((answered.status(), &answered.headers()["cache-control"]), (StatusCode::OK, &"no-store".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_only_this_machine_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start(folder.path(), Authentication::none(), Port::Loopback).await;
    read(&site, "api/session").await;
    let error = refusal(request(&site, "api/jobs").header("host", "attacker.example"), StatusCode::FORBIDDEN).await;
    assert!(error.contains("localhost"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start(folder.path(), Authentication::none(), Port::Network).await;
    let error = refusal(request(&site, "api/jobs"), StatusCode::UNAUTHORIZED).await;
    assert!(error.contains("--keys"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_all_tenants_are_paged_and_filtered_and_labels_are_data() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start(folder.path(), Authentication::none(), Port::Loopback).await;
    for tenant in ["acme", "rival"] {
        site.model(tenant, "net", 1).await;
    }
    let mut created = Vec::new();
    for tenant in ["acme", "rival", "acme", "rival", "acme"] {
        created.push(site.job(tenant, "net", HOSTILE).await.id);
    }
    let mut listed: Vec<Value> = Vec::new();
    let mut path = "api/jobs?size=2".to_owned();
    loop {
        let page = read(&site, &path).await;
        listed.extend(page["jobs"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("api/jobs?size=2&after={next}");
    }
    let mut ids: Vec<&str> = listed.iter().map(|job| job["id"].as_str().unwrap()).collect();
    let key = |job: &Value| (job["created_ms"].as_i64().unwrap(), job["id"].as_str().unwrap().to_owned());
    assert!(listed.windows(2).all(|pair| key(&pair[0]) > key(&pair[1])), "newest first");
    ids.sort_unstable();
    created.sort_unstable();
    assert_eq!(ids, created);
    assert!(listed.iter().all(|job| job["labels"]["note"] == HOSTILE && job["state"] == "QUEUED"));
    let of_rival = read(&site, "api/jobs?tenant=rival").await;
    assert_eq!(of_rival["jobs"].as_array().unwrap().len(), 2);
    assert!(read(&site, "api/jobs?state=SUCCEEDED").await["jobs"].as_array().unwrap().is_empty());
    assert_eq!(read(&site, "api/jobs?state=QUEUED&model=net").await["jobs"].as_array().unwrap().len(), 5);
    for (wrong, field) in
        [("state=LOST", "state"), ("state=UNSPECIFIED", "state"), ("size=all", "size"), ("after=x", "after"), ("after=x.y", "after")]
    {
        let error = refusal(request(&site, &format!("api/jobs?{wrong}")), StatusCode::BAD_REQUEST).await;
        assert!(error.starts_with(field), "{error}");
    }
    for absent in [ANSWERS[4], ANSWERS[5], ANSWERS[7], "api/jobs/acme/..%2f..%2fmodels"] {
        refusal(request(&site, absent), StatusCode::NOT_FOUND).await;
    }
    let models = read(&site, "api/models").await;
    assert_eq!(models["models"][0]["display_name"], HOSTILE);
    assert_eq!(models["models"][1]["n_parameters"], 1234);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_shows_every_attempt_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start(folder.path(), Authentication::none(), Port::Loopback).await;
    site.model("acme", "net", 1).await;
    let job = site.job("acme", "net", "x").await;
    let session = site.session("node", &["cuda:0", "cpu"]).await;
    let leased = site.lease(&session).await;
    let failed = FailedAttempt { cause: FailureCause::DeviceLost, reason: String::new(), message: "Xid 79".into(), damaged: Vec::new() };
    site.engine.fail(&leased.lease, failed, Usage { device: "cuda:0".into(), ..Usage::default() }).await.unwrap();
    let overview = read(&site, "api/overview").await;
    assert_eq!(
        (&overview["queue"]["ready"], &overview["jobs"]["RUNNING"], &overview["models"]["READY"]),
        (&1.into(), &1.into(), &1.into())
    );
    let again = site.lease(&session).await;
    site.finish(&again, "cpu", "the device failed").await;
    let layer = site.lease(&session).await;
    site.engine.cordon(&session, true).await.unwrap();
    let worker = read(&site, "api/overview").await["workers"][0].clone();
    assert_eq!((&worker["worker"], &worker["is_cordoned"], &worker["n_running"]), (&"node".into(), &true.into(), &1.into()));
    assert_eq!((&worker["tasks"][0]["name"], &worker["tasks"][0]["id"]), (&"layer-0000".into(), &job.id.as_str().into()));
    site.engine.cordon(&session, false).await.unwrap();
    site.finish(&layer, "cuda:0", "").await;
    let outer = site.lease(&session).await;
    site.finish(&outer, "cpu", "").await;

    let page = read(&site, &format!("api/jobs/acme/{}", job.id)).await;
    assert_eq!((&page["job"]["state"], &page["proof_bytes"]), (&"SUCCEEDED".into(), &2048.into()));
    let attempts = |task: usize| page["tasks"][task]["attempts"].as_array().unwrap();
    assert_eq!([attempts(0).len(), attempts(1).len(), attempts(2).len()], [2, 1, 1]);
    assert_eq!((&attempts(0)[0]["outcome"], &attempts(0)[0]["device"]), (&"DEVICE_LOST".into(), &"cuda:0".into()));
    assert_eq!(attempts(0)[1]["outcome"], "DONE");
    assert_eq!(page["tasks"][2]["needs"][0], "layer-0000");
    let outcomes: Vec<&str> = page["notes"].as_array().unwrap().iter().map(|note| note["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["DEVICE_LOST", "FALLBACK"]);
    let everything = [page, read(&site, "api/jobs").await, read(&site, "api/models").await, read(&site, "api/overview").await];
    for text in everything.map(|answer| answer.to_string()) {
        for secret in ["artifacts/", std::str::from_utf8(&SECRET).unwrap(), &hex::encode(SECRET), "salt", "seed", "nonce", "digest"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

/// Reads a stream's events one by one.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(site: &Site, path: &str) -> Self {
        let response = request(site, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The data of the next event; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).map(|data| serde_json::from_str(data).unwrap());
                self.text = rest.to_owned();
                match data {
                    Some(data) => return Some(data),
                    None => continue,
                }
            }
            let chunk = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next().await.expect("the stream goes on");
            if is_it(&event) {
                return event;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_followed_from_a_snapshot_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start(folder.path(), Authentication::none(), Port::Loopback).await;
    site.model("acme", "net", 1).await;
    let job = site.job("acme", "net", "x").await;
    let mut events = Events::open(&site, &format!("api/jobs/acme/{}/live", job.id)).await;
    let snapshot = events.next().await.unwrap();
    assert_eq!((&snapshot["job"]["state"], &snapshot["job"]["labels"]["note"]), (&"QUEUED".into(), &"x".into()));
    let session = site.session("node", &["cpu"]).await;
    for name in ["witness", "layer-0000", "outer"] {
        let leased = site.lease(&session).await;
        assert_eq!(leased.lease.task.name, name);
        events.until(|page| page["tasks"].as_array().unwrap().iter().any(|task| task["name"] == name && task["state"] == "RUNNING")).await;
        site.finish(&leased, "cpu", "").await;
    }
    events.until(|page| page["job"]["state"] == "SUCCEEDED").await;
    assert_eq!(events.next().await, None, "a final job changes no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_is_followed_until_the_service_closes() {
    let folder = tempfile::tempdir().unwrap();
    let site = Site::start(folder.path(), Authentication::none(), Port::Loopback).await;
    site.model("acme", "net", 1).await;
    let mut events = Events::open(&site, "api/live").await;
    assert_eq!(events.next().await.unwrap()["queue"]["ready"], 0);
    site.job("acme", "net", "x").await;
    events.until(|page| page["queue"]["ready"] == 1 && page["queue"]["waiting"] == 2).await;
    site.closing.cancel();
    while events.next().await.is_some() {}
    let Site { engine, .. } = &site;
    assert_eq!(std::sync::Arc::strong_count(engine), 1, "nobody holds the engine");
}
