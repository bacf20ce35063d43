//! The command as a process: the demo from end to end, verification without service, exit codes, and documents that were tampered with.

#[path = "client/service.rs"]
#[allow(dead_code, reason = "the tests of the client use the rest")]
mod service;

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use service::Service;
use zkinfer_circuits::recursion::digest::input_commitment;
use zkinfer_client::encoding::{digest_bytes, parse_digest};
use zkinfer_client::{
    Client, ClientError, ContextNonce, InputSalt, JobInput, JobRequest, LocalVerifyError, OtherAnswer, ProfileName, RemoteKey,
    RemoteVerifyError, StatementInput, Verified, verify_locally,
};

const CONTEXT: &str = "zkinfer demo";
/// Changes tried on each document.
const N_CHANGES: usize = 120;

fn zkinfer(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zkinfer")).args(arguments).env_remove("ZKINFER_API_KEY").output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn the_demo_proves_a_digit_and_its_proof_verifies_without_service() {
    let out = tempfile::tempdir().unwrap();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("circuits");
    let folder = out.path().to_str().unwrap();
    let demo = zkinfer(&["demo", "--json", "--out", folder, "--cache-dir", cache.to_str().unwrap()]);
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stdout));
    let report = json(&demo);
    assert_eq!((&report["label"], &report["predicted"]), (&7.into(), &7.into()));
    let reasons: Vec<&str> = report["refusals"].as_array().unwrap().iter().map(|refusal| refusal["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["PROOF_INVALID", "PROOF_INVALID", "OTHER_MODEL", "PROOF_INVALID"]);
    assert!(report["proof_bytes"].as_u64().unwrap() <= 200_000, "{report}");

    let [proof, statement, key] = ["proof.zkp", "statement.zks", "key.zkvk"].map(|name| out.path().join(name));
    let documents = ["--proof", proof.to_str().unwrap(), "--statement", statement.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let verify = |more: &[&str]| zkinfer(&[&["verify", "--json"], &documents[..], more].concat());
    let accepted = verify(&["--context", CONTEXT]);
    assert_eq!(accepted.status.code(), Some(0));
    assert_eq!(json(&accepted)["verified"]["layers"], 3);
    let refused = verify(&["--context", "another use"]);
    assert_eq!((refused.status.code(), json(&refused)["reason"].as_str()), (Some(3), Some("OTHER_NONCE")));
    let strict = verify(&["--context", CONTEXT, "--profile", "strict"]);
    assert_eq!((strict.status.code(), json(&strict)["reason"].as_str()), (Some(3), Some("UNKNOWN_PARAMETERS")));
    for (option, bits) in [("--min-proven-bits", "80"), ("--min-heuristic-bits", "100")] {
        let weak = verify(&["--context", CONTEXT, option, bits]);
        assert_eq!((weak.status.code(), json(&weak)["reason"].as_str()), (Some(3), Some("WEAK_PARAMETERS")));
    }
    let commitment = json(&accepted)["verified"]["model_commitment"].as_str().unwrap().to_owned();
    assert_eq!(verify(&["--context", CONTEXT, "--model-commitment", &commitment]).status.code(), Some(0));
    let other = verify(&["--context", CONTEXT, "--model-commitment", &"00".repeat(32)]);
    assert_eq!((other.status.code(), json(&other)["reason"].as_str()), (Some(3), Some("OTHER_MODEL")));
    let enough = verify(&["--context", CONTEXT, "--min-proven-bits", "57.5", "--min-heuristic-bits", "89.25"]);
    assert_eq!(enough.status.code(), Some(0));
    let inspected = zkinfer(&["model", "inspect", "--json", key.to_str().unwrap()]);
    assert_eq!(json(&inspected)["layers"].as_array().unwrap().len(), 3);

    let documents = [&key, &statement, &proof].map(|path| std::fs::read(path).unwrap());
    refuses_changed_documents(&documents);
    refuses_other_answers(&documents);
    the_service_verifies_too(&documents);
}

/// The verifier of a service that has none of the documents: as the client's own.
fn the_service_verifies_too([key, statement, proof]: &[Vec<u8>; 3]) {
    let nonce = ContextNonce::of_context(CONTEXT.as_bytes());
    let local = |proof: &[u8]| verify_locally(key, statement, proof, &[ProfileName::Default], nonce);
    let mut changed = proof.clone();
    changed[proof.len() / 2] ^= 1;
    let Err(LocalVerifyError::Refused(expected)) = local(&changed) else { panic!("a changed byte") };
    let run = async {
        let service = Service::start().await;
        let client = Client::connect(&service.address).await.unwrap();
        let key = RemoteKey::Bytes(key);
        let accepted = client.verify_remotely(proof, statement, key, nonce).await.unwrap();
        assert_eq!(accepted, local(proof).unwrap().statement);
        match client.verify_remotely(&changed, statement, key, nonce).await {
            Err(RemoteVerifyError::Refused { reason, .. }) => assert_eq!(reason, expected.reason()),
            other => panic!("{other:?}"),
        }
        let other_use = client.verify_remotely(proof, statement, key, ContextNonce::ZERO).await;
        assert!(matches!(other_use, Err(RemoteVerifyError::OtherNonce)), "{other_use:?}");
        let nobody = client.verify_remotely(proof, statement, RemoteKey::Model("tenants/default/models/nobody"), nonce).await;
        match nobody {
            Err(RemoteVerifyError::Client(ClientError::Refused(refusal))) => assert_eq!(refusal.reason, "NOT_FOUND"),
            other => panic!("{other:?}"),
        }
        service.stop().await;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(run);
}

/// Each changed byte and each truncation is refused; what the key says for display only (its last bytes) is bound by nothing.
fn refuses_changed_documents(documents: &[Vec<u8>; 3]) {
    let nonce = ContextNonce::of_context(CONTEXT.as_bytes());
    let verify = |[key, statement, proof]: &[Vec<u8>; 3]| verify_locally(key, statement, proof, &[ProfileName::Default], nonce);
    let verified = verify(documents).unwrap();
    let display_bytes = 2 * (8 + 8 + 8 + 8) + verified.key.input.name.len() + verified.key.output.name.len() + 8 * 4;
    for document in 0..3 {
        let length = documents[document].len() - if document == 0 { display_bytes } else { 0 };
        for change in 0..N_CHANGES {
            let at = change * (length - 1) / (N_CHANGES - 1);
            let mut flipped = documents.clone();
            flipped[document][at] ^= 1 << (change % 8);
            assert!(matches!(verify(&flipped), Err(LocalVerifyError::Refused(_))), "document {document}, byte {at}");
            let mut cut = documents.clone();
            cut[document].truncate(at);
            assert!(matches!(verify(&cut), Err(LocalVerifyError::Refused(_))), "document {document}, cut at {at}");
        }
    }
}

/// What is proved is compared with what was asked for.
fn refuses_other_answers([key, statement, proof]: &[Vec<u8>; 3]) {
    let nonce = ContextNonce::of_context(CONTEXT.as_bytes());
    let hidden = verify_locally(key, statement, proof, &[ProfileName::Default], nonce).unwrap();
    let commitment = digest_bytes(hidden.key.model_commitment);
    let (input, mut other) = (vec![7; 784], vec![7; 784]);
    other[783] = 8;
    let mut shown = hidden.clone();
    shown.statement.input = StatementInput::Public(input.clone());
    let public = |input: Vec<u8>| JobRequest::new("model", JobInput::Uint8(input));
    let private = public(input.clone()).with_private_input();
    let floats = |bytes: &[u8]| {
        let tensor = &hidden.key.input;
        let real = |byte: &u8| ((f64::from(*byte) - tensor.zero_point as f64) * tensor.scale) as f32;
        JobRequest::npy("model", npy(&bytes.iter().map(real).collect::<Vec<_>>()))
    };
    let check = |verified: &Verified, request: &JobRequest| verified.check_answers(request);
    let salts = [[7; 32], [8; 32]].map(|bytes| InputSalt::from_bytes(&bytes).unwrap());
    let mut salted = hidden.clone();
    let commitment_of_input = input_commitment(&input, parse_digest(salts[0].expose()).unwrap()).unwrap();
    salted.statement.input = StatementInput::Committed(commitment_of_input);
    let opening = |request: JobRequest, salt: usize| request.with_input_salt(salts[salt].clone());
    assert!(check(&salted, &opening(public(input.clone()), 0)).is_ok() && check(&salted, &opening(floats(&input), 0)).is_ok());
    assert!(matches!(check(&salted, &opening(public(input.clone()), 1)), Err(OtherAnswer::Input)));
    assert!(matches!(check(&salted, &opening(public(other.clone()), 0)), Err(OtherAnswer::Input)));
    assert!(matches!(check(&shown, &opening(public(input.clone()), 0)), Err(OtherAnswer::InputShown)));
    assert!(check(&hidden, &private).is_ok());
    assert!(check(&shown, &public(input.clone())).is_ok() && check(&shown, &floats(&input)).is_ok());
    assert!(hidden.check_model(&commitment).is_ok());
    assert!(matches!(hidden.check_model(&[0; 32]), Err(OtherAnswer::Model)));
    assert!(matches!(check(&shown, &private), Err(OtherAnswer::InputShown)));
    assert!(matches!(check(&hidden, &public(input)), Err(OtherAnswer::InputHidden)));
    assert!(matches!(check(&shown, &floats(&other)), Err(OtherAnswer::Input)));
    assert!(matches!(check(&shown, &public(other)), Err(OtherAnswer::Input)));
}

/// A .npy file of float32.
fn npy(values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", values.len());
    let header = format!("{header:<117}\n");
    let start = [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    start.into_iter().chain(values.iter().flat_map(|value| value.to_le_bytes())).collect()
}

#[test]
fn exit_codes_tell_what_went_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nonsense");
    std::fs::write(&path, b"nonsense").unwrap();
    let path = path.to_str().unwrap();
    let code = |arguments: &[&str]| zkinfer(arguments).status.code();
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["verify", "--proof", path, "--statement", path, "--key", "/does/not/exist"]), Some(1));
    assert_eq!(code(&["verify"]), Some(2));
    assert_eq!(code(&["verify", "--proof", path, "--statement", path, "--key", path]), Some(3));
    assert_eq!(code(&["estimate", "--model", "digits", "--server", "http://127.0.0.1:1"]), Some(4));
    let refused = zkinfer(&["verify", "--json", "--proof", path, "--statement", path, "--key", path]);
    let refused = json(&refused);
    assert_eq!((refused["exit_code"].as_u64(), refused["reason"].as_str()), (Some(3), Some("KEY_ENCODING")));
}

#[test]
fn networks_are_imported_inspected_and_committed_without_service() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    let network = models.join("mlp-breast-cancer/model.onnx");
    let calibration = models.join("mlp-breast-cancer/inputs.npy");
    let arguments = [network.to_str().unwrap(), "--calibration", calibration.to_str().unwrap(), "--json"];
    let run = |command: &str, more: &[&str]| json(&zkinfer(&[&["model", command], &arguments[..], more].concat()));
    assert_eq!(run("import", &[])["report"]["layers"].as_array().unwrap().len(), 3);
    assert_eq!(run("inspect", &[])["multiply_accumulates"], 30 * 32 + 32 * 16 + 16 * 2);
    let (zero, again, salted) = (run("commit", &[]), run("commit", &[]), run("commit", &["--salt", &"01".repeat(32)]));
    assert_eq!(zero["model_commitment"], again["model_commitment"]);
    assert_eq!(zero["program_digest"], salted["program_digest"]);
    assert_ne!(zero["model_commitment"], salted["model_commitment"]);
}
