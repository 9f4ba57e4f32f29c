//! What a scheduler's submit hook asks and how it retries.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use placet_core::{Decision, Expect, Verifier};
use placet_proto::admission::v1::admission_service_client::AdmissionServiceClient;
use placet_proto::admission::v1::{
    AdmitRequest, AdmitResponse, IsolationLevel, Job, PriorityClass, admit_request,
};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// A job as a batch scheduler describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobDescription {
    /// Who pays: Slurm's account.
    pub account: String,
    /// The scheduler's number for it; with `restarts` it names the attempt.
    pub job_id: u64,
    /// How often it was put back into the queue.
    pub restarts: u32,
    /// Where: Slurm's partition.
    pub partition: String,
    /// Models and GPUs in Slurm's form, such as `gpu:H100:8`.
    pub gres: String,
    /// Longest run time in Slurm's form, such as `2-12:00:00` or `90` (minutes).
    pub time_limit: String,
    /// The owner's own work, not sold capacity.
    pub internal: bool,
    /// How far it is kept apart: a name of the contract, such as `PASSTHROUGH`.
    pub isolation: String,
    /// May displace others.
    pub may_preempt: bool,
}

impl JobDescription {
    /// The request that asks for it. The same description gives the same request: a retry is safe.
    ///
    /// # Errors
    /// A part is not in the scheduler's own form.
    pub fn request(&self) -> Result<AdmitRequest> {
        let (model, count) = gres(&self.gres)
            .with_context(|| format!("`{}` is not like `gpu:H100:8`", self.gres))?;
        let seconds = seconds(&self.time_limit)
            .with_context(|| format!("`{}` is no time limit like `2-12:00:00`", self.time_limit))?;
        let isolation = IsolationLevel::from_str_name(&self.isolation.to_ascii_uppercase())
            .with_context(|| format!("`{}` is no isolation level", self.isolation))?;
        let class = if self.internal {
            PriorityClass::InternalResearch
        } else {
            PriorityClass::ExternalCommercial
        };
        let job = Job {
            cluster_id: self.partition.clone(),
            gpu_count: count,
            duration_seconds: seconds,
            isolation_level: isolation.into(),
            gpu_models: vec![model],
            may_preempt: self.may_preempt,
            ..Job::default()
        };
        Ok(AdmitRequest {
            request_id: format!("slurm-{}-{}", self.job_id, self.restarts),
            tenant_id: self.account.clone(),
            principal: None,
            priority_class: class.into(),
            subject: Some(admit_request::Subject::Job(job)),
            extends: None,
            waivers: Vec::new(),
        })
    }
}

fn gres(text: &str) -> Option<(String, u32)> {
    let (model, count) = text.strip_prefix("gpu:")?.split_once(':')?;
    Some((model.to_owned(), count.parse().ok()?))
}

/// Slurm's `minutes`, `minutes:seconds`, `hours:minutes:seconds`, `days-hours[:minutes[:seconds]]`.
fn seconds(text: &str) -> Option<u64> {
    let (days, rest) = match text.split_once('-') {
        Some((days, rest)) => (Some(days.parse::<u64>().ok()?), rest),
        None => (None, text),
    };
    let parts: Option<Vec<u64>> = rest.split(':').map(|part| part.parse().ok()).collect();
    let (hours, minutes, seconds) = match (days.is_some(), parts?.as_slice()) {
        (true, [hours]) => (*hours, 0, 0),
        (true, [hours, minutes]) => (*hours, *minutes, 0),
        (false, [minutes]) => (0, *minutes, 0),
        (false, [minutes, seconds]) => (0, *minutes, *seconds),
        (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
        (_, _) => return None,
    };
    let days = days.unwrap_or(0).checked_mul(86_400)?;
    let hours = hours.checked_mul(3_600)?;
    days.checked_add(hours)?.checked_add(minutes.checked_mul(60)?)?.checked_add(seconds)
}

/// A submit hook: asks once, and once more if no answer came.
#[derive(Debug)]
pub struct Hook {
    client: AdmissionServiceClient<Channel>,
    deadline: Duration,
}

impl Hook {
    /// Talks to the server at `url`; every answer must come within `deadline`. Connects when it
    /// first asks.
    ///
    /// # Errors
    /// `url` is no address.
    pub fn new(url: &str, deadline: Duration) -> Result<Self> {
        let endpoint = Endpoint::from_shared(url.to_owned())
            .with_context(|| format!("`{url}` is no address like `http://127.0.0.1:7443`"))?
            .connect_timeout(deadline);
        Ok(Self { client: AdmissionServiceClient::new(endpoint.connect_lazy()), deadline })
    }

    /// Asks, and checks the answer as any PEP must: the claims of the token count, nothing beside
    /// it.
    ///
    /// # Errors
    /// No decision came, or one that is not to be trusted. The job must not start.
    pub async fn decide(
        &mut self,
        request: &AdmitRequest,
        verifier: &Verifier,
        expect: &Expect<'_>,
    ) -> Result<(Decision, String)> {
        let token = self.ask_twice(request).await?.token;
        let decision = verifier.verify(&token, expect).context("the decision is refused")?;
        if decision.request_id.as_str() != request.request_id {
            bail!("the decision answers another request, `{}`", decision.request_id);
        }
        Ok((decision, token))
    }

    async fn ask_twice(&mut self, request: &AdmitRequest) -> Result<AdmitResponse> {
        match self.ask(request).await {
            // The first attempt may have been decided and its answer lost: the same request id gets
            // that answer.
            Err(status) if worth_a_retry(&status) => self.ask(request).await,
            answer => answer,
        }
        .map_err(|status| {
            anyhow::anyhow!("no decision ({:?}): {}", status.code(), status.message())
        })
    }

    async fn ask(&mut self, request: &AdmitRequest) -> Result<AdmitResponse, Status> {
        let mut request = Request::new(request.clone());
        // The server learns the deadline too and does not work for an answer that nobody waits for.
        request.set_timeout(self.deadline);
        match tokio::time::timeout(self.deadline, self.client.admit(request)).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(elapsed) => Err(Status::deadline_exceeded(elapsed.to_string())),
        }
    }
}

fn worth_a_retry(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> JobDescription {
        JobDescription {
            account: "acme".to_owned(),
            job_id: 4711,
            restarts: 0,
            partition: "de-fra-1".to_owned(),
            gres: "gpu:H100:8".to_owned(),
            time_limit: "2-12:00:00".to_owned(),
            internal: false,
            isolation: "PASSTHROUGH".to_owned(),
            may_preempt: false,
        }
    }

    #[test]
    fn a_description_becomes_a_request() {
        let request = description().request().expect("a request");
        assert_eq!(request.request_id, "slurm-4711-0");
        let Some(admit_request::Subject::Job(job)) = &request.subject else { panic!("a job") };
        assert_eq!((job.gpu_count, job.duration_seconds), (8, 216_000));
        assert_eq!(description().request().expect("the same"), request);
    }

    #[test]
    fn time_limits_are_read_as_slurm_reads_them() {
        let known = [
            ("90", 5_400),
            ("90:30", 5_430),
            ("1:30:00", 5_400),
            ("1-0", 86_400),
            ("1-1:30", 91_800),
            ("2-12:00:00", 216_000),
        ];
        for (text, expected) in known {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "an hour", "1-", "1:2:3:4", "-1", "99999999999999999999", "1-:"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for gres in ["gpu:8", "gpu", "tpu:v5:8", "gpu:H100:many", "gpu:H100:-1"] {
            let job = JobDescription { gres: gres.to_owned(), ..description() };
            let error = job.request().expect_err(gres).to_string();
            assert!(error.contains(gres), "{error}");
        }
    }

    #[tokio::test]
    async fn without_a_server_there_is_no_decision() {
        // A port that was just free: nobody answers there.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address");
        drop(free);
        let mut hook =
            Hook::new(&format!("http://{address}"), Duration::from_secs(2)).expect("an address");
        let request = description().request().expect("a request");
        let error = hook.ask_twice(&request).await.expect_err("nobody answers");
        assert!(error.to_string().starts_with("no decision"), "{error}");
    }
}
