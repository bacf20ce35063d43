//! What operators see and set (with the scope `admin`).

use zkinfer_proto::v1::admin_service_client::AdminServiceClient;
use zkinfer_proto::v1::{self, Queue, Quota, Worker};

use crate::client::Client;
use crate::status::ClientError;

impl Client {
    /// The workers that are connected, newest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn workers(&self) -> Result<Vec<Worker>, ClientError> {
        let call = async || {
            let mut service = AdminServiceClient::new(self.channel());
            Ok(service.list_workers(self.request(v1::ListWorkersRequest {})).await?.into_inner())
        };
        Ok(self.repeat(call).await?.workers)
    }

    /// Gives a worker no more tasks, or some again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cordon_worker(&self, session: &str, cordoned: bool) -> Result<(), ClientError> {
        let message = v1::CordonWorkerRequest { session: session.to_owned(), cordoned };
        let call = async || {
            let mut service = AdminServiceClient::new(self.channel());
            Ok(service.cordon_worker(self.request(message.clone())).await?.into_inner())
        };
        self.repeat(call).await.map(drop)
    }

    /// What a tenant, `tenants/{tenant}`, may take.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn quota(&self, tenant: &str) -> Result<Quota, ClientError> {
        let message = v1::GetQuotaRequest { tenant: tenant.to_owned() };
        let call = async || {
            let mut service = AdminServiceClient::new(self.channel());
            Ok(service.get_quota(self.request(message.clone())).await?.into_inner())
        };
        self.repeat(call).await
    }

    /// Replaces a tenant's quota.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_quota(&self, quota: &Quota) -> Result<Quota, ClientError> {
        let message = v1::SetQuotaRequest { quota: Some(quota.clone()) };
        let call = async || {
            let mut service = AdminServiceClient::new(self.channel());
            Ok(service.set_quota(self.request(message.clone())).await?.into_inner())
        };
        self.repeat(call).await
    }

    /// How many tasks wait and run.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn queue(&self) -> Result<Queue, ClientError> {
        let call = async || {
            let mut service = AdminServiceClient::new(self.channel());
            Ok(service.get_queue(self.request(v1::GetQueueRequest {})).await?.into_inner())
        };
        self.repeat(call).await
    }
}
