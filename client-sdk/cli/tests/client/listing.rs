//! Lists over several pages, with filters.

use zkinfer_client::proto::job::State;
use zkinfer_client::{JobFilter, ModelRequest, Page};
use zkinfer_server::limits::Limits;

use crate::jobs::{FOR_EVER, job, register, start};
use crate::{command, refusal};

#[tokio::test]
async fn jobs_are_listed_newest_first_over_all_pages_of_a_filter() {
    let (service, client, model) = start(Limits::default()).await;
    let other_model = register(&client, ModelRequest::new("other", "")).await;
    let mut created = Vec::new();
    for (model, run) in [(&model, "1"), (&model, "1"), (&model, "2"), (&other_model, "1"), (&model, "1")] {
        created.push(client.create_job(&job(model, "steps=1").with_label("run", run)).await.unwrap().name);
    }
    let batch = client.create_batch(&[job(&model, "steps=1"), job(&model, "reject")]).await.unwrap();
    for name in created.iter().chain(batch.jobs.iter().map(|job| &job.name)) {
        client.wait_job(name, FOR_EVER).await.unwrap();
    }
    let of_run = JobFilter { labels: [("run".to_owned(), "1".to_owned())].into(), ..JobFilter::default() };
    let filter = JobFilter { model: model.clone(), states: vec![State::Succeeded, State::Queued], ..of_run.clone() };
    let expected = [4, 1, 0].map(|index: usize| created[index].clone());

    let mut page = Page { size: 2, token: String::new() };
    let first = client.jobs_page(&filter, &page).await.unwrap();
    page.token = first.next_page_token;
    assert!(!page.token.is_empty());
    let second = client.jobs_page(&filter, &page).await.unwrap();
    assert_eq!((first.jobs.len(), second.jobs.len(), second.next_page_token.as_str()), (2, 1, ""));
    let by_pages: Vec<String> = first.jobs.into_iter().chain(second.jobs).map(|job| job.name).collect();
    assert_eq!(by_pages, expected);
    for size in [0, 1, 2, 3, u32::MAX] {
        let all = client.jobs(&filter).with_page_size(size).all().await.unwrap();
        assert_eq!(all.into_iter().map(|job| job.name).collect::<Vec<_>>(), expected, "{size} a page");
    }

    let count = async |filter: &JobFilter| client.jobs(filter).with_page_size(3).all().await.unwrap().len();
    assert_eq!((count(&JobFilter::default()).await, count(&of_run).await), (7, 4));
    let of_batch = JobFilter { batch: batch.batch, ..JobFilter::default() };
    let failed = JobFilter { states: vec![State::Failed], ..of_batch.clone() };
    assert_eq!((count(&of_batch).await, count(&failed).await), (2, 1));
    let mut none = client.jobs(&JobFilter { states: vec![State::Cancelled], ..JobFilter::default() });
    assert!(none.next().await.unwrap().is_none() && none.next().await.unwrap().is_none());
    let wrong = Page { token: "no token".to_owned(), ..Page::default() };
    assert_eq!(refusal(client.jobs_page(&filter, &wrong).await.unwrap_err()).fields[0].field, "page_token");

    let (code, said) = command(&service, &["jobs", "--label", "run=1", "--model", "digits", "--limit", "2"]).await;
    let listed: Vec<&str> = said["jobs"].as_array().unwrap().iter().map(|job| job["job"].as_str().unwrap()).collect();
    assert_eq!((code, listed, &said["more"]), (Some(0), vec![&*expected[0], &*expected[1]], &true.into()));
    service.stop().await;
}

#[tokio::test]
async fn models_are_listed_newest_first_with_what_their_requests_say() {
    let (service, client, first) = start(Limits::default()).await;
    let described = ModelRequest {
        display_name: "The second".to_owned(),
        labels: [("kind".to_owned(), "tabular".to_owned())].into(),
        ..ModelRequest::new("second", "")
    };
    let second = register(&client, described).await;
    let third = register(&client, ModelRequest::new("third", "")).await;
    let models = client.models().with_page_size(2).all().await.unwrap();
    assert_eq!(models.iter().map(|model| &model.name).collect::<Vec<_>>(), [&third, &second, &first]);
    assert_eq!((models[1].display_name.as_str(), models[1].labels["kind"].as_str()), ("The second", "tabular"));
    let page = client.models_page(&Page { size: 2, token: String::new() }).await.unwrap();
    assert_eq!((page.models.len(), page.next_page_token.is_empty()), (2, false));

    let (code, said) = command(&service, &["model", "list", "--limit", "2"]).await;
    let listed: Vec<&str> = said["models"].as_array().unwrap().iter().map(|model| model["model"].as_str().unwrap()).collect();
    assert_eq!((code, listed, &said["more"]), (Some(0), vec![&*third, &*second], &true.into()));
    assert_eq!((said["models"][1]["labels"]["kind"].as_str(), said["models"][1]["layers"].as_u64()), (Some("tabular"), Some(2)));
    let (code, said) = command(&service, &["model", "list"]).await;
    assert_eq!((code, said["models"].as_array().unwrap().len(), &said["more"]), (Some(0), 3, &false.into()));
    service.stop().await;
}
