//! The admin API, as a program of the customer's would use it.

use std::collections::BTreeMap;

use anyhow::ensure;
use narvaro::admin::{JobId, JobInfo, JobProgress, JobStarted, SubscriptionInfo};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::service::Service;

pub(super) struct Admin {
    http: reqwest::Client,
    address: String,
    token: String,
}

impl Admin {
    pub(super) fn of(service: &Service) -> anyhow::Result<Self> {
        let (address, token) = service.admin()?;
        Ok(Self { http: reqwest::Client::builder().no_proxy().build()?, address, token })
    }

    pub(super) async fn renew_all(&self) -> anyhow::Result<JobStarted> {
        self.post("subscriptions/renew", json!({ "all": true })).await
    }

    pub(super) async fn job(&self, job: &JobId) -> anyhow::Result<JobProgress> {
        self.get(&format!("jobs/{job}")).await
    }

    pub(super) async fn jobs(&self) -> anyhow::Result<Vec<JobInfo>> {
        self.get("jobs").await
    }

    pub(super) async fn cancel(&self, job: &JobId) -> anyhow::Result<JobProgress> {
        self.post(&format!("jobs/{job}/cancel"), json!({})).await
    }

    /// How many mailboxes are in which state.
    pub(super) async fn states(&self) -> anyhow::Result<BTreeMap<String, usize>> {
        let list: Vec<SubscriptionInfo> = self.get("subscriptions").await?;
        let mut states = BTreeMap::new();
        for one in list {
            *states.entry(one.health.health.name()).or_default() += 1;
        }
        Ok(states)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.ask(self.http.get(format!("{}/{path}", self.address))).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> anyhow::Result<T> {
        self.ask(self.http.post(format!("{}/{path}", self.address)).json(&body)).await
    }

    async fn ask<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder) -> anyhow::Result<T> {
        let answer = request.bearer_auth(&self.token).send().await?;
        let (status, body) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "the admin API answers {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }
}
