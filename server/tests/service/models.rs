//! Registration of models, and what of it is public.

use tonic::Code;
use zkinfer_proto::v1;

use crate::harness::{Service, config, expect_error, fields};
use crate::scripted_prover::PRIVATE_MARK;

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_registered_with_its_facts_and_its_private_part_stays_inside() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let created = client.create_model("mlp", "steps=3").await;
    assert_eq!(created.state(), v1::model::State::Compiling);
    assert_eq!(created.parameter_set, "scripted-v1/default");
    assert_eq!(created.weights_visibility(), v1::model::Visibility::Private);
    assert_eq!(created.last_sequence, 1);

    let model = client.model_end(&created.name).await;
    assert_eq!(model.state(), v1::model::State::Ready);
    let registered = model.registered.unwrap();
    assert_eq!(registered.model_commitment.len(), 32);
    assert_eq!(registered.inputs[0].shape, [4]);
    assert_eq!(registered.stage_times[0].name, "layer");
    assert_eq!(model.progress.unwrap().fraction, 1.0);
    let key = client.read(&registered.verifier_key_artifact).await.unwrap();
    assert_eq!(key, registered.model_commitment);
    let report = client.read(&registered.quantization_report_artifact).await.unwrap();
    assert_eq!(report, b"{\"layers\":[]}");

    // The private material lies in the internal folder; its name is no public artifact.
    let hash = internal_artifact(folder.path());
    let status = client.read(&format!("tenants/default/artifacts/{hash}")).await.unwrap_err();
    expect_error(&status, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}

fn internal_artifact(data_dir: &std::path::Path) -> String {
    let mut found = Vec::new();
    let mut folders = vec![data_dir.join("artifacts/internal")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    let [path] = &found[..] else { panic!("one internal artifact, not {found:?}") };
    assert!(std::fs::read(path).unwrap().starts_with(PRIVATE_MARK));
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_refused_fails_with_its_reason_and_takes_no_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let name = client.create_model("odd", "steps=1 reject").await.name;
    let model = client.model_end(&name).await;
    assert_eq!(model.state(), v1::model::State::Failed);
    let failure = model.failure.unwrap();
    assert_eq!(failure.reason, "UNSUPPORTED_OP");
    assert!(failure.message.contains("Frob"));
    assert!(!failure.retryable);

    let request = crate::harness::job_request(&name, "steps=1");
    let status = client.proofs.create_job(request).await.unwrap_err();
    let details = expect_error(&status, Code::FailedPrecondition, "MODEL_NOT_READY");
    assert!(details.precondition_failure().is_some());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wrong_fields_of_a_model_are_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let request = v1::CreateModelRequest {
        model_id: "No Good".into(),
        request_id: "seven".into(),
        model: Some(v1::Model {
            source_artifact: "../../etc/passwd".into(),
            weights_visibility: 9,
            parameter_set: "weak".into(),
            labels: [("no spaces".to_owned(), String::new())].into(),
            quantization: Some(v1::QuantizationOptions { percentile: 12.0, ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let status = client.models.create_model(request).await.unwrap_err();
    let details = expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
    let expected = [
        "request_id",
        "model_id",
        "model.labels",
        "model.source_artifact",
        "model.weights_visibility",
        "model.quantization.percentile",
        "model.parameter_set",
    ];
    assert_eq!(fields(&details), expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_gives_one_model_and_one_answer() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let source_artifact = client.upload(b"steps=1").await;
    let labels = [("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())].into();
    let request = v1::CreateModelRequest {
        model_id: "mlp".into(),
        model: Some(v1::Model { source_artifact, labels, ..Default::default() }),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let first = client.models.create_model(request.clone()).await.unwrap().into_inner();
    client.model_end(&first.name).await;
    let again = client.models.create_model(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);

    let mut other = request.clone();
    other.model_id = "other".into();
    let status = client.models.create_model(other).await.unwrap_err();
    let details = expect_error(&status, Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(details.resource_info().unwrap().resource_name, request.request_id);

    let unnamed = v1::CreateModelRequest { request_id: String::new(), ..request };
    let status = client.models.create_model(unnamed).await.unwrap_err();
    let details = expect_error(&status, Code::AlreadyExists, "ALREADY_EXISTS");
    assert_eq!(details.resource_info().unwrap().resource_name, "tenants/default/models/mlp");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_newest_first_in_pages() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    for i in 0..5 {
        client.create_model(&format!("m{i}"), "steps=1").await;
    }
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = v1::ListModelsRequest { page_size: 2, page_token, parent: "tenants/default".into() };
        let page = client.models.list_models(request).await.unwrap().into_inner();
        names.extend(page.models.into_iter().map(|model| model.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let mut expected: Vec<String> = (0..5).map(|i| format!("tenants/default/models/m{i}")).collect();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_never_exceeds_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.message_bytes = 32 << 10;
    config.limits.chunk_bytes = 16 << 10;
    config.limits.inline_input_bytes = 16 << 10;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let source_artifact = client.upload(b"steps=1").await;
    let labels = (0..50).map(|i| (format!("label-{i}"), "x".repeat(200))).collect();
    let model = v1::Model { source_artifact, labels, ..Default::default() };
    for i in 0..5 {
        let request = v1::CreateModelRequest { model_id: format!("m{i}"), model: Some(model.clone()), ..Default::default() };
        client.models.create_model(request).await.unwrap();
    }
    let (mut n_models, mut n_pages, mut page_token) = (0, 0, String::new());
    loop {
        let request = v1::ListModelsRequest { page_token, ..Default::default() };
        let page = client.models.list_models(request).await.unwrap().into_inner();
        n_models += page.models.len();
        n_pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((n_models, n_pages), (5, 3));
    service.stop().await;
}
