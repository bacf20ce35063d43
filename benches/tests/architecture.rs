//! The layers of ARCHITECTURE.md, checked against Cargo's own metadata: who may depend on whom, and with which features.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Each crate of the workspace, and the crates of the workspace that it may depend on (for building, running or testing).
const LAYERS: &[(&str, &[&str])] = &[
    ("zkinfer-circuits", &[]),
    ("zkinfer-proto", &[]),
    ("zkinfer-kernels", &["zkinfer-circuits"]),
    ("zkinfer-server", &["zkinfer-kernels", "zkinfer-circuits", "zkinfer-proto"]),
    ("zkinfer-client", &["zkinfer-circuits", "zkinfer-proto"]),
    ("zkinfer-python", &["zkinfer-circuits"]),
    ("zkinfer-cli", &["zkinfer-client", "zkinfer-server", "zkinfer-circuits", "zkinfer-proto"]),
    ("zkinfer-benches", &["zkinfer-circuits", "zkinfer-proto", "zkinfer-kernels", "zkinfer-server", "zkinfer-client", "zkinfer-cli"]),
];

/// What the mathematics must not know: the wire, the disk's formats, databases, devices, an async runtime.
const FOREIGN_TO_CIRCUITS: &[&str] = &["tokio", "tonic", "tonic-prost", "hyper", "tower", "sqlx", "object_store", "cudarc", "clap"];

/// The cryptography: exact versions, from the package registry, unpatched.
const EXACT: &[&str] = &["plonky2", "plonky2_field", "starky", "cudarc"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("benches lies in the workspace").to_owned()
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

/// The packages of the workspace, by name.
fn packages() -> BTreeMap<String, Value> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--no-deps", "--format-version", "1", "--locked"])).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages are a list");
    packages.iter().map(|package| (text(package, "name"), package.clone())).collect()
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn dependencies(package: &Value) -> impl Iterator<Item = &Value> {
    package["dependencies"].as_array().into_iter().flatten()
}

fn allowed(name: &str) -> &'static [&'static str] {
    let layer = LAYERS.iter().find(|(layer, _)| *layer == name);
    layer.unwrap_or_else(|| panic!("{name} has no layer: add it to the table here and to ARCHITECTURE.md")).1
}

#[test]
fn every_crate_depends_only_on_lower_layers() {
    let packages = packages();
    for (name, package) in &packages {
        let names = dependencies(package).map(|dependency| text(dependency, "name"));
        // Tests of a crate may ask for a feature of it.
        let workspace: Vec<String> = names.filter(|dependency| packages.contains_key(dependency) && dependency != name).collect();
        for dependency in workspace {
            assert!(allowed(name).contains(&dependency.as_str()), "{name} must not depend on {dependency}");
        }
    }
    assert_eq!(packages.len(), LAYERS.len(), "the table and the workspace name the same crates");
}

#[test]
fn circuits_know_no_wire_no_disk_and_no_device() {
    let packages = packages();
    for dependency in dependencies(&packages["zkinfer-circuits"]) {
        let name = text(dependency, "name");
        assert!(!FOREIGN_TO_CIRCUITS.contains(&name.as_str()), "circuits must not depend on {name}");
    }
}

#[test]
fn the_client_has_no_prover_in_its_tree() {
    ["zkinfer-client", "zkinfer-python"].iter().for_each(|client| check_tree(client));
}

fn check_tree(client: &str) {
    let tree = cargo(&["tree", "--package", client, "--edges", "normal,build", "--prefix", "none", "--format", "{p}|{f}", "--locked"]);
    let circuits: Vec<&str> = tree.lines().filter(|line| line.starts_with("zkinfer-circuits ")).collect();
    assert!(!circuits.is_empty(), "the client verifies, so it needs circuits:\n{tree}");
    for line in tree.lines() {
        let forbidden = ["zkinfer-kernels ", "zkinfer-server ", "cudarc ", "sqlx "].iter().find(|name| line.starts_with(**name));
        assert_eq!(forbidden, None, "the client's tree holds {line}");
    }
    for line in circuits {
        assert!(!line.contains("prover") && !line.contains("default"), "the client's circuits have the prover: {line}");
    }
}

#[test]
fn cuda_is_off_unless_asked_for() {
    let packages = packages();
    for (name, package) in &packages {
        let default = package["features"]["default"].to_string();
        assert!(!default.contains("cuda"), "{name} turns cuda on by default");
    }
    let cudarc = dependencies(&packages["zkinfer-kernels"]).find(|dependency| dependency["name"] == "cudarc");
    assert_eq!(cudarc.map(|dependency| &dependency["optional"]), Some(&Value::Bool(true)));
}

#[test]
fn cryptography_is_pinned_and_comes_from_the_registry() {
    for (name, package) in &packages() {
        for dependency in dependencies(package).filter(|dependency| EXACT.contains(&text(dependency, "name").as_str())) {
            let (requirement, source) = (text(dependency, "req"), text(dependency, "source"));
            assert!(requirement.starts_with('='), "{name} asks for {} {requirement}", dependency["name"]);
            assert!(source.starts_with("registry+"), "{name} takes {} from {source:?}", dependency["name"]);
        }
    }
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has a manifest");
    assert!(!manifest.contains("[patch"), "no dependency is patched");
}

#[test]
fn every_crate_inherits_the_lints() {
    for (name, package) in &packages() {
        let manifest = std::fs::read_to_string(text(package, "manifest_path")).expect("a package has a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{name} does not inherit the lints of the workspace");
    }
}
