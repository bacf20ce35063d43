//! Which devices there are, and which of them compute rightly.
//!
//! A process of its own looks at the driver, and one more tests each device, so that whatever a driver does happens to nobody else.

use std::ffi::OsString;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use zkinfer_kernels::devices::{Device, NoDevice};
use zkinfer_kernels::select::DeviceChoice;
use zkinfer_server::supervisor::Children;

/// Devices are numbered as the management library does.
const DEVICE_ORDER: (&str, &str) = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID");
/// How long the devices may take to be listed.
const LIST: Duration = Duration::from_secs(60);
/// How long a device may take to pass its test: as long as a child may take to its first word.
const TEST: Duration = Duration::from_secs(300);

/// Numbers devices as the management library does in a process that is to be started, unless the environment says otherwise.
pub(super) fn number_devices(command: &mut Command) {
    if std::env::var_os(DEVICE_ORDER.0).is_none() {
        command.env(DEVICE_ORDER.0, DEVICE_ORDER.1);
    }
}

/// A device that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) ordinal: usize,
    name: String,
}

impl Listed {
    /// For logs and metrics.
    pub(super) fn short_name(&self) -> String {
        format!("cuda:{}", self.ordinal)
    }

    /// For people.
    pub(super) fn title(&self) -> String {
        format!("cuda:{} ({})", self.ordinal, self.name)
    }
}

/// What a process says that lists the devices.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listing {
    devices: Vec<Listed>,
    /// Why there are none.
    none: Option<String>,
}

impl Listing {
    pub(super) fn of(found: Result<Vec<Device>, NoDevice>) -> Self {
        let listed = |device: Device| Listed { ordinal: device.ordinal, name: device.name };
        match found {
            Ok(devices) => Self { devices: devices.into_iter().map(listed).collect(), none: None },
            Err(none) => Self { devices: Vec::new(), none: Some(none.to_string()) },
        }
    }
}

/// What a process says that tests a device.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Tested {
    /// Why it cannot be used, if it cannot.
    pub(super) error: Option<String>,
}

/// The devices that were looked for.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Each computes; none: the CPU does.
    pub(super) usable: Vec<Listed>,
    /// Failed their test, and why.
    failed: Vec<(Listed, String)>,
    /// Why there are none at all.
    none: Option<String>,
}

impl Found {
    /// Why the CPU computes in this process.
    pub(super) fn why_cpu(&self) -> String {
        if !self.usable.is_empty() {
            return "devices compute in processes of their own".to_owned();
        }
        let failed: Vec<String> = self.failed.iter().map(|(device, error)| format!("{} cannot be used: {error}", device.title())).collect();
        if failed.is_empty() { self.none.clone().unwrap_or_else(|| "as chosen".to_owned()) } else { failed.join("; ") }
    }

    /// Logs what is not used, and tells it to whoever asks later.
    pub(super) fn tell(&self, children: &Children) {
        for (device, error) in &self.failed {
            tracing::error!(
                device = device.title(),
                error,
                "the device fails its self-test: it is not used until this process is started again"
            );
            children.pass_over(&device.short_name(), &device.title(), &format!("it failed its self-test: {error}"));
        }
        if self.usable.is_empty() {
            tracing::info!(reason = self.why_cpu(), "no device is used");
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }
}

/// Looks for devices.
pub(super) struct Looker {
    /// The command that lists and tests, without its options.
    command: Vec<OsString>,
    memory_mib: Option<u32>,
}

impl Looker {
    /// Devices are tested with no more memory than they will be used with.
    pub(super) fn of_this_program(memory_mib: Option<u32>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program cannot be found")?;
        Ok(Self { command: vec![program.into(), "devices".into()], memory_mib })
    }

    /// The devices to use: all that pass their test, or those that were named, each of which must.
    pub(super) async fn find(&self, choice: &DeviceChoice) -> anyhow::Result<Found> {
        let DeviceChoice::Ordinals(asked) = choice else { return self.tested().await };
        let found = self.test_all(self.listed(asked).await?).await;
        match found.failed.first() {
            Some((Listed { ordinal, .. }, error)) => anyhow::bail!("device {ordinal} was asked for and cannot be used: {error}"),
            None => Ok(found),
        }
    }

    /// All devices that pass their test.
    pub(super) async fn tested(&self) -> anyhow::Result<Found> {
        let Listing { devices, none } = self.list().await?;
        Ok(self.test_all(Found { usable: devices, none, ..Found::default() }).await)
    }

    /// The devices that were named, untested.
    pub(super) async fn listed(&self, asked: &[usize]) -> anyhow::Result<Found> {
        let listing = self.list().await?;
        let find = |ordinal: &usize| {
            let device = listing.devices.iter().find(|device| device.ordinal == *ordinal);
            let missing = || format!("device {ordinal} was asked for, but it is not there; `zkinferd devices` tells which are, and why");
            device.cloned().with_context(missing)
        };
        Ok(Found { usable: asked.iter().map(find).collect::<anyhow::Result<_>>()?, ..Found::default() })
    }

    async fn list(&self) -> anyhow::Result<Listing> {
        let line = ["--list".to_owned()];
        let output = tokio::time::timeout(LIST, self.ask(&line)).await.context("the devices cannot be listed in time")??;
        anyhow::ensure!(output.status.success(), "the devices cannot be listed: the process that does ended with {}", output.status);
        serde_json::from_slice(last_line(&output)).context("the list of devices cannot be read")
    }

    async fn test_all(&self, found: Found) -> Found {
        let outcomes = join_all(found.usable.iter().map(|device| self.test(device.ordinal))).await;
        let (mut usable, mut failed) = (Vec::new(), found.failed);
        for (device, outcome) in found.usable.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => usable.push(device),
                Err(error) => failed.push((device, error)),
            }
        }
        Found { usable, failed, ..found }
    }

    async fn test(&self, ordinal: usize) -> Result<(), String> {
        let mut line = vec!["--test".to_owned(), ordinal.to_string()];
        line.extend(self.memory_mib.into_iter().flat_map(|limit| ["--device-memory-mib".to_owned(), limit.to_string()]));
        match tokio::time::timeout(TEST, self.ask(&line)).await {
            Ok(Ok(output)) => outcome(&output),
            Ok(Err(error)) => Err(format!("the process of its test cannot be started: {error}")),
            Err(_) => Err(format!("its test did not end within {} seconds", TEST.as_secs())),
        }
    }

    async fn ask(&self, arguments: &[String]) -> std::io::Result<Output> {
        let (program, first) = self.command.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(first).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        number_devices(&mut command);
        command.output().await
    }
}

/// What a test said. Its process may have been ended by the driver instead.
fn outcome(output: &Output) -> Result<(), String> {
    let failed = || format!("the process of its test ended with {}", output.status);
    match serde_json::from_slice(last_line(output)) {
        Ok(Tested { error: Some(error) }) => Err(error),
        Ok(Tested { error: None }) if output.status.success() => Ok(()),
        Ok(Tested { error: None }) | Err(_) => Err(failed()),
    }
}

/// A library of a driver may print before.
fn last_line(output: &Output) -> &[u8] {
    output.stdout.trim_ascii().rsplit(|byte| *byte == b'\n').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with these devices: the first says that it passes, the second that it fails, the third kills its process, the fourth passes and ends badly.
    fn looker(n_devices: usize, memory_mib: Option<u32>) -> Looker {
        let devices: Vec<Listed> = (0..n_devices).map(|ordinal| Listed { ordinal, name: "A".to_owned() }).collect();
        let none = devices.is_empty().then(|| "no driver".to_owned());
        let listing = serde_json::to_string(&Listing { devices, none }).unwrap();
        let text = format!(
            "echo noise of a driver\ncase \"$*\" in\n\
             --list) echo '{listing}' ;;\n\
             '--test 0') echo '{{\"error\":null}}' ;;\n\
             '--test 0 --device-memory-mib 9') echo '{{\"error\":\"out of memory\"}}' ;;\n\
             '--test 1') echo '{{\"error\":\"computes wrongly\"}}' ;;\n\
             '--test 2') kill -9 $$ ;;\n\
             '--test 3') echo '{{\"error\":null}}'; exit 7 ;;\n\
             *) exit 1 ;;\nesac\n"
        );
        Looker { command: vec!["sh".into(), "-c".into(), text.into(), "a script".into()], memory_mib }
    }

    fn ordinals(found: &Found) -> Vec<usize> {
        found.usable.iter().map(|device| device.ordinal).collect()
    }

    #[tokio::test]
    async fn a_device_that_fails_its_test_is_passed_over_with_the_reason() {
        let found = looker(4, None).find(&DeviceChoice::Auto).await.unwrap();
        assert_eq!(ordinals(&found), [0]);
        let children = Children::default();
        found.tell(&children);
        let told: Vec<String> = children.states().into_values().map(|state| state.cordoned.unwrap()).collect();
        assert_eq!(told[0], "it failed its self-test: computes wrongly");
        assert!(told[1].contains("ended with signal: 9") && told[2].contains("ended with exit status: 7"), "{told:?}");
    }

    #[tokio::test]
    async fn the_cpu_computes_where_no_device_passes_and_the_reason_is_told() {
        let none = looker(0, None).find(&DeviceChoice::Auto).await.unwrap();
        assert!(none.usable.is_empty() && !none.has_failed());
        assert_eq!(none.why_cpu(), "no driver");
        // It would pass with more memory than it will be given.
        let small = looker(1, Some(9)).find(&DeviceChoice::Auto).await.unwrap();
        assert!(small.usable.is_empty() && small.has_failed());
        assert_eq!(small.why_cpu(), "cuda:0 (A) cannot be used: out of memory");
    }

    #[tokio::test]
    async fn named_devices_must_be_there_and_pass() {
        let looker = looker(4, None);
        let found = async |asked: &[usize]| looker.find(&DeviceChoice::Ordinals(asked.to_vec())).await.map_err(|error| error.to_string());
        assert_eq!(ordinals(&found(&[0]).await.unwrap()), [0]);
        assert_eq!(found(&[0, 1]).await.unwrap_err(), "device 1 was asked for and cannot be used: computes wrongly");
        assert!(found(&[0, 9]).await.unwrap_err().starts_with("device 9 was asked for, but it is not there"));
        assert_eq!(ordinals(&looker.listed(&[1, 0]).await.unwrap()), [1, 0], "a worker tries them again and again");
    }
}
