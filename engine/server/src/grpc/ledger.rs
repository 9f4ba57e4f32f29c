//! The service that tells what is held: bounds, pages, and the same rule of who may ask as control.

use std::pin::Pin;

use futures::stream::{Stream, StreamExt as _};
use placet_core::{AccountPath, Id, ReservationState};
use placet_proto::FieldError;
use placet_proto::admission::v1::ReservationState as ProtoState;
use placet_proto::ledger::v1 as proto;
use placet_proto::ledger::v1::ledger_service_server::LedgerService;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::caller::operator;
use super::changes::{self, Asked};
use super::convert;
use super::follow::Watchers;
use crate::admission::Admission;
use crate::error::AdmitError;
use crate::quota::{Accounts, Due, Filter, MAX_RESERVATIONS_PAGE, MAX_USAGE_PAGE};

/// Largest request in bytes: a hundred paths of 512 bytes each, and some more.
pub(super) const MAX_LOOK_BYTES: usize = 64 * 1024;
/// Most accounts that one request names.
const MAX_NAMED: usize = 100;
/// Accounts of a page if the request does not say.
const USAGE_PAGE: usize = 500;
/// Reservations of a page if the request does not say.
const RESERVATIONS_PAGE: usize = 100;

/// The ledger service over one decision point.
#[derive(Debug, Clone)]
pub(super) struct LedgerLook {
    pub(super) admission: Admission,
    pub(super) operators: std::sync::Arc<[Id]>,
    /// True once the server stops.
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) watchers: Watchers,
}

impl LedgerLook {
    fn refused(&self, error: impl Into<AdmitError>) -> Status {
        let error = error.into();
        error.log();
        self.admission.failed(&error);
        error.to_status()
    }
}

#[tonic::async_trait]
impl LedgerService for LedgerLook {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<proto::WatchResponse, Status>> + Send>>;

    async fn usage(
        &self,
        request: Request<proto::UsageRequest>,
    ) -> Result<Response<proto::UsageResponse>, Status> {
        operator(&request, &self.operators)?;
        let request = request.into_inner();
        let asked = accounts(&request).map_err(|error| self.refused(error))?;
        let report = self.admission.usage(asked, request.at_least).await;
        let (report, limits) = report.map_err(|error| self.refused(error))?;
        let accounts = report.accounts.into_iter().zip(limits);
        Ok(Response::new(proto::UsageResponse {
            position: report.position,
            time: report.time,
            accounts: accounts
                .map(|(account, limit)| convert::account_use(account, limit))
                .collect(),
            next: report.next.map(String::from).unwrap_or_default(),
        }))
    }

    async fn reservations(
        &self,
        request: Request<proto::ReservationsRequest>,
    ) -> Result<Response<proto::ReservationsResponse>, Status> {
        operator(&request, &self.operators)?;
        let request = request.into_inner();
        let (filter, after, most) = filter(&request).map_err(|error| self.refused(error))?;
        let report = self.admission.reservations(filter, after, most, request.at_least).await;
        let report = report.map_err(|error| self.refused(error))?;
        let reservation = |it| convert::reservation(it, report.time);
        Ok(Response::new(proto::ReservationsResponse {
            position: report.position,
            time: report.time,
            reservations: report.reservations.into_iter().map(reservation).collect(),
            next: report.next.map(|(at, id)| format!("{at}:{id}")).unwrap_or_default(),
        }))
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        operator(&request, &self.operators)?;
        let asked = Asked::read(&request.into_inner()).map_err(|error| self.refused(error))?;
        let log = self.admission.log();
        let told = changes::open(&self.watchers, log, asked, self.stopped.clone());
        let told = told.map_err(|error| self.refused(error))?;
        let look = self.clone();
        Ok(Response::new(Box::pin(told.map(move |told| told.map_err(|it| look.refused(it))))))
    }
}

fn wrong(message: impl Into<String>, hint: &str) -> FieldError {
    FieldError::new("OUT_OF_BOUNDS", message, hint)
}

fn path(text: &str) -> Result<AccountPath, FieldError> {
    AccountPath::new(text).map_err(|error| {
        FieldError::new("BAD_NAME", error.to_string(), "give a path such as `tenant/acme/gpu`")
    })
}

/// An absent text or a checked one.
fn optional<T>(
    text: &str,
    read: impl FnOnce(&str) -> Result<T, FieldError>,
    field: &str,
) -> Result<Option<T>, FieldError> {
    if text.is_empty() {
        return Ok(None);
    }
    read(text).map(Some).map_err(|error| error.inside(field))
}

fn page_size(asked: u32, usual: usize, most: usize) -> Result<usize, FieldError> {
    match usize::try_from(asked) {
        Ok(0) => Ok(usual),
        Ok(size) if size <= most => Ok(size),
        Ok(_) | Err(_) => {
            let message = format!("is {asked}, at most {most} fit a page");
            Err(wrong(message, "ask for the rest with `after`").inside("page_size"))
        }
    }
}

/// The accounts asked for.
fn accounts(request: &proto::UsageRequest) -> Result<Accounts, FieldError> {
    let most = page_size(request.page_size, USAGE_PAGE, MAX_USAGE_PAGE)?;
    let not_next_page = "repeat the request, with `next` of the page before as `after`";
    let prefix = optional(&request.prefix, path, "prefix")?;
    let behind = |text: &str| path(text).map_err(|_no_path| wrong("is no page", not_next_page));
    let after = optional(&request.after, behind, "after")?;
    if request.accounts.is_empty() {
        return Ok(Accounts::Under { prefix, after, most });
    }
    if prefix.is_some() || after.is_some() {
        let field = if prefix.is_some() { "prefix" } else { "after" };
        let message = "is given beside `accounts`, which come all at once";
        return Err(wrong(message, "give one of the two").inside(field));
    }
    if request.accounts.len() > MAX_NAMED {
        let message = format!("has {} paths, at most {MAX_NAMED}", request.accounts.len());
        return Err(wrong(message, "ask for their prefix, or several times").inside("accounts"));
    }
    let mut named = Vec::with_capacity(request.accounts.len());
    for (at, text) in request.accounts.iter().enumerate() {
        let inside = |error: FieldError| error.inside(&format!("[{at}]")).inside("accounts");
        let account = path(text).map_err(inside)?;
        if named.contains(&account) {
            return Err(inside(wrong("is named twice", "name each account once")));
        }
        named.push(account);
    }
    named.sort_unstable();
    Ok(Accounts::Named(named))
}

/// The reservations asked for: which, behind which, and how many.
fn filter(
    request: &proto::ReservationsRequest,
) -> Result<(Filter, Option<Due>, usize), FieldError> {
    let id = |text: &str| {
        let bad = |error: placet_core::NameError| {
            FieldError::new("BAD_NAME", error.to_string(), "give the tenant's id")
        };
        Id::new(text).map_err(bad)
    };
    let state = match request.state() {
        ProtoState::Unspecified => None,
        ProtoState::Reserved => Some(ReservationState::Reserved),
        ProtoState::Active => Some(ReservationState::Active),
        ProtoState::Released
        | ProtoState::Expired
        | ProtoState::Revoked
        | ProtoState::NotReserved => {
            let message = "is one in which nothing is held";
            return Err(wrong(message, "give RESERVED or ACTIVE; the log has those that ended")
                .inside("state"));
        }
    };
    let due = |text: &str| -> Result<Due, FieldError> {
        let parts = text.split_once(':');
        let due = parts.and_then(|(at, id)| Some((at.parse().ok()?, Id::new(id).ok()?)));
        let hint = "repeat the request, with `next` of the page before as `after`";
        due.ok_or_else(|| wrong("is no page", hint))
    };
    let filter = Filter {
        tenant: optional(&request.tenant_id, id, "tenant_id")?,
        account: optional(&request.account, path, "account")?,
        state,
    };
    let after = optional(&request.after, due, "after")?;
    let most = page_size(request.page_size, RESERVATIONS_PAGE, MAX_RESERVATIONS_PAGE)?;
    Ok((filter, after, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request that is wrong, and in which field.
    type Wrong<T> = (fn(&mut T), &'static str);

    #[test]
    fn what_is_asked_of_accounts_is_read_strictly() {
        let ask = |change: fn(&mut proto::UsageRequest)| {
            let mut request = proto::UsageRequest::default();
            change(&mut request);
            accounts(&request)
        };
        let all = Accounts::Under { prefix: None, after: None, most: USAGE_PAGE };
        assert_eq!(ask(|_| {}), Ok(all));
        let named = ask(|it| it.accounts = vec!["b".to_owned(), "a".to_owned()]).unwrap();
        let sorted = ["a", "b"].map(|text| path(text).unwrap()).to_vec();
        assert_eq!(named, Accounts::Named(sorted));
        let cases: [Wrong<proto::UsageRequest>; 9] = [
            (|it| it.prefix = "tenant/".to_owned(), "prefix"),
            (|it| it.accounts = vec![String::new()], "accounts[0]"),
            (|it| it.accounts = vec!["a".to_owned(); 2], "accounts[1]"),
            (|it| it.accounts = (0..=100).map(|n| format!("a/{n}")).collect(), "accounts"),
            (|it| (it.accounts, it.prefix) = (vec!["a".to_owned()], "a".to_owned()), "prefix"),
            (|it| (it.accounts, it.after) = (vec!["a".to_owned()], "a".to_owned()), "after"),
            (|it| it.after = "no page".to_owned(), "after"),
            (|it| it.page_size = 1_001, "page_size"),
            (|it| it.page_size = u32::MAX, "page_size"),
        ];
        for (change, field) in cases {
            assert_eq!(ask(change).unwrap_err().field, field);
        }
    }

    #[test]
    fn what_is_asked_of_reservations_is_read_strictly() {
        let ask = |change: fn(&mut proto::ReservationsRequest)| {
            let mut request = proto::ReservationsRequest::default();
            change(&mut request);
            filter(&request)
        };
        assert_eq!(ask(|_| {}), Ok((Filter::default(), None, RESERVATIONS_PAGE)));
        let (_, after, most) = ask(|it| {
            (it.after, it.page_size) = ("17:rsv:1".to_owned(), 500);
        })
        .unwrap();
        assert_eq!((after, most), (Some((17, Id::new("rsv:1").unwrap())), 500));
        let cases: [Wrong<proto::ReservationsRequest>; 7] = [
            (|it| it.tenant_id = "a b".to_owned(), "tenant_id"),
            (|it| it.account = "/".to_owned(), "account"),
            (|it| it.set_state(ProtoState::Released), "state"),
            (|it| it.set_state(ProtoState::NotReserved), "state"),
            (|it| it.after = "17".to_owned(), "after"),
            (|it| it.after = "-1:rsv".to_owned(), "after"),
            (|it| it.page_size = 501, "page_size"),
        ];
        for (change, field) in cases {
            assert_eq!(ask(change).unwrap_err().field, field);
        }
    }
}
