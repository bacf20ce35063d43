//! The dashboard over scripted workers, for the test with a browser (`test.sh`): it says on its first line where it is and which keys open it, then does
//! what the lines of its input say and answers each with a line. It ends with its input.
//!
//! Lines: `job TENANT MODEL` (answers the id), `lease WORKER` (the task), `progress WORKER LAYERS`, `done WORKER DEVICE [WHY IT FELL BACK]`,
//! `lost WORKER DEVICE`, `cordon WORKER`. A worker is `one` or `two`, and holds one task at a time.

// It has one port; the tests over HTTP have both kinds.
#[allow(dead_code)]
mod site;

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _};

use zkinfer_proto::v1;
use zkinfer_server::auth::Authentication;
use zkinfer_server::engine::{FailedAttempt, FailureCause, Leased, Usage};

use site::{HOSTILE, Port, Site, new_key};

struct Script {
    site: Site,
    sessions: HashMap<&'static str, String>,
    held: HashMap<String, Leased>,
}

impl Script {
    async fn act(&mut self, line: &str) -> String {
        let mut words = line.splitn(4, ' ');
        let (verb, who) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (what, why) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match verb {
            "job" => return self.site.job(who, what, HOSTILE).await.id,
            "lease" => {
                let leased = self.site.lease(&self.sessions[who]).await;
                let name = leased.lease.task.name.clone();
                self.held.insert(who.to_owned(), leased);
                return name;
            }
            "progress" => self.site.progress(&self.held[who], what.parse().expect("a number of layers")).await,
            "done" => {
                let leased = self.held.remove(who).expect("it holds a task");
                self.site.finish(&leased, what, why).await;
            }
            "lost" => {
                let leased = self.held.remove(who).expect("it holds a task");
                let failed =
                    FailedAttempt { cause: FailureCause::DeviceLost, reason: String::new(), message: HOSTILE.into(), damaged: Vec::new() };
                let usage = Usage { device: what.into(), ..Usage::default() };
                self.site.engine.fail(&leased.lease, failed, usage).await.expect("the attempt fails");
                self.site.hub.changed(&leased.lease.task.subject);
            }
            "cordon" => drop(self.site.engine.cordon(&self.sessions[who], true).await),
            _ => panic!("{line:?} is no line of a script"),
        }
        "ok".to_owned()
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime starts");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys");
    let (operator, tenant) = (new_key(&path, "operator", "admin"), new_key(&path, "laptop", "jobs.read"));
    let authentication = Authentication::none().with_keys(&path).expect("the keys were just made");
    let mut script = runtime.block_on(async {
        let site = Site::start(folder.path(), authentication, Port::Loopback).await;
        for tenant in ["acme", "rival"] {
            site.model(tenant, "net", 4).await;
        }
        site.model("acme", "whole", 0).await;
        // So that it is always the other's tasks that are leased.
        let paused = v1::Quota { tenant: "tenants/rival".into(), paused: true, ..Default::default() };
        site.engine.set_quota("rival", paused).await.expect("a quota is set");
        let one = site.session("gpu-node-one", &["cuda:0", "cuda:1"]).await;
        let two = site.session("gpu-node-two", &["cuda:0"]).await;
        Script { site, sessions: HashMap::from([("one", one), ("two", two)]), held: HashMap::new() }
    });
    let mut out = std::io::stdout();
    let facts = serde_json::json!({ "address": script.site.address.to_string(), "operator": operator, "tenant": tenant });
    writeln!(out, "{facts}").expect("somebody listens");
    for line in std::io::stdin().lock().lines() {
        let answer = runtime.block_on(script.act(&line.expect("lines are text")));
        writeln!(out, "{answer}").expect("somebody listens");
    }
    script.site.closing.cancel();
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
}
