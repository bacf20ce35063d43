//! Lists of jobs and models: a page, or one after another through all pages.

use std::collections::HashMap;

use zkinfer_proto::v1::job::State;
use zkinfer_proto::v1::{self, Job, Model};

use crate::client::Client;
use crate::status::ClientError;

/// Which jobs are listed; by default all of the tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only jobs of the model of this full name, or of one that was deleted and had it; empty: of all.
    pub model: String,
    /// Only jobs in one of these states; empty: in all.
    pub states: Vec<State>,
    /// Only jobs that carry all of these labels.
    pub labels: HashMap<String, String>,
    /// Only jobs of the batch of this full name; empty: of all, and of none.
    pub batch: String,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// So many items at most; 0: the service's default. More than `Limits.max_page_size` is taken as that.
    pub size: u32,
    /// The `next_page_token` of the page before; empty: the first page.
    pub token: String,
}

impl Page {
    fn wire_size(&self) -> i32 {
        i32::try_from(self.size).unwrap_or(i32::MAX)
    }
}

/// What can be listed. Implemented for jobs and models.
#[allow(async_fn_in_trait, reason = "implemented here only; nobody needs bounds on the futures")]
pub trait Listed: Sized {
    /// Which of them.
    type Filter;

    /// A page, and the token of the next one; empty: that was all.
    ///
    /// # Errors
    /// See [`ClientError`].
    async fn fetch(client: &Client, filter: &Self::Filter, page: &Page) -> Result<(Vec<Self>, String), ClientError>;
}

impl Listed for Job {
    type Filter = JobFilter;

    async fn fetch(client: &Client, filter: &JobFilter, page: &Page) -> Result<(Vec<Self>, String), ClientError> {
        let answer = client.jobs_page(filter, page).await?;
        Ok((answer.jobs, answer.next_page_token))
    }
}

impl Listed for Model {
    type Filter = ();

    async fn fetch(client: &Client, (): &(), page: &Page) -> Result<(Vec<Self>, String), ClientError> {
        let answer = client.models_page(page).await?;
        Ok((answer.models, answer.next_page_token))
    }
}

/// A list, newest first, whose pages are fetched as they are needed.
#[derive(Debug)]
pub struct Listing<T: Listed> {
    client: Client,
    filter: T::Filter,
    /// The page that is fetched next.
    page: Page,
    is_last: bool,
    /// What is left of the page that was fetched last.
    items: std::vec::IntoIter<T>,
}

impl<T: Listed> Listing<T> {
    fn new(client: Client, filter: T::Filter) -> Self {
        Self { client, filter, page: Page::default(), is_last: false, items: Vec::new().into_iter() }
    }

    /// Fetches so many at a time; as [`Page::size`].
    pub fn with_page_size(mut self, size: u32) -> Self {
        self.page.size = size;
        self
    }

    /// The next one; `None` after the last. After an error it may be called again: nothing is lost.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(item) = self.items.next() {
                return Ok(Some(item));
            }
            if self.is_last {
                return Ok(None);
            }
            let (items, next_token) = T::fetch(&self.client, &self.filter, &self.page).await?;
            self.items = items.into_iter();
            self.is_last = next_token.is_empty();
            self.page.token = next_token;
        }
    }

    /// All that are left, in memory: of jobs there may be many.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn all(mut self) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        while let Some(item) = self.next().await? {
            all.push(item);
        }
        Ok(all)
    }
}

impl Client {
    /// Jobs of the tenant, newest first.
    pub fn jobs(&self, filter: &JobFilter) -> Listing<Job> {
        Listing::new(self.clone(), filter.clone())
    }

    /// One page of [`Self::jobs`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn jobs_page(&self, filter: &JobFilter, page: &Page) -> Result<v1::ListJobsResponse, ClientError> {
        let message = v1::ListJobsRequest {
            parent: String::new(),
            page_size: page.wire_size(),
            page_token: page.token.clone(),
            model: filter.model.clone(),
            states: filter.states.iter().map(|&state| state.into()).collect(),
            labels: filter.labels.clone().into_iter().collect(),
            batch: filter.batch.clone(),
        };
        self.repeat(async || Ok(self.proof_service().list_jobs(self.request(message.clone())).await?.into_inner())).await
    }

    /// All models of the tenant, newest first.
    pub fn models(&self) -> Listing<Model> {
        Listing::new(self.clone(), ())
    }

    /// One page of [`Self::models`].
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn models_page(&self, page: &Page) -> Result<v1::ListModelsResponse, ClientError> {
        let message = v1::ListModelsRequest { parent: String::new(), page_size: page.wire_size(), page_token: page.token.clone() };
        self.repeat(async || Ok(self.model_service().list_models(self.request(message.clone())).await?.into_inner())).await
    }
}
