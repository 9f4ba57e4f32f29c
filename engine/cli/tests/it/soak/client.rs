//! One client of the crash test: it asks, writes down what it asked and was answered, and asks
//! again what the server died over.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt as _;
use placet_core::Decision;
use placet_proto::admission::v1 as pb;
use placet_proto::admission::v1::admission_service_client::AdmissionServiceClient;
use placet_proto::admission::v1::stream_request::Event;
use placet_proto::admission::v1::stream_response::Answer;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::load::{self, Ask, Dice, Held, Named};
use crate::server::claims;

type Service = AdmissionServiceClient<Channel>;

/// Events that a stream has on their way at a time: enough for batches of many.
const IN_FLIGHT: usize = 24;
/// Answered admissions that a client asks once more now and then.
const REMEMBERED: usize = 64;
/// Reservations that a client may want to go on, or to run jobs inside: the latest, most of which
/// are still held.
const RECENT: usize = 12;

/// How a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// One call after the other.
    Unary,
    /// One stream with many events on their way.
    Stream,
    /// One call for several requests.
    Gang,
}

impl Via {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::Stream => "stream",
            Self::Gang => "gang",
        }
    }
}

/// A file of JSON lines, each written before anything else happens.
#[derive(Debug)]
pub(super) struct Record(File);

impl Record {
    pub(super) fn new(path: &Path) -> Self {
        Self(File::create_new(path).unwrap())
    }

    pub(super) fn line(&mut self, line: &Value) {
        self.0.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub(super) fn asked(&mut self, cycle: u64, via: Via, ask: &Ask) {
        let (verb, id, what) = (ask.verb(), &ask.request_id, &ask.what);
        self.line(&json!({
            "cycle": cycle, "via": via.as_str(), "ask": verb, "request_id": id, "what": what,
        }));
    }

    pub(super) fn answered(&mut self, cycle: u64, id: &str, answer: &Answer) {
        let mut line = match answer {
            Answer::Admitted(it) => json!({
                "answer": "decision", "token": it.token, "position": it.position,
                "effect": it.effect().as_str_name(),
            }),
            Answer::Settled(it) => json!({
                "answer": "settlement", "reservation_id": it.reservation_id, "time": it.time,
                "state": it.state().as_str_name(), "epoch": it.epoch,
                "refunded_gpu_seconds": it.refunded_gpu_seconds,
            }),
            Answer::Error(it) => json!({
                "answer": "error", "status": it.status, "code": it.code, "message": it.message,
            }),
        };
        line["cycle"] = cycle.into();
        line["request_id"] = id.into();
        self.line(&line);
    }
}

/// What all clients of a cycle share.
#[derive(Debug, Clone)]
pub(super) struct Cycle {
    pub(super) number: u64,
    pub(super) url: String,
    /// Nothing new is asked any more.
    pub(super) drain: Arc<AtomicBool>,
    /// Answers so far.
    pub(super) answers: watch::Sender<u64>,
}

/// A client, over many lives of the server.
#[derive(Debug)]
pub(super) struct Client {
    name: String,
    via: Via,
    dice: Dice,
    record: Record,
    asked: u64,
    /// What was asked, or is about to be, and has not been answered, in order.
    pending: VecDeque<Ask>,
    /// Admissions that were answered, the latest last.
    decided: VecDeque<Ask>,
    /// Admissions whose reservations are to be released, and how these are named.
    held: VecDeque<(Ask, Named)>,
    /// Reservations that were made, the latest last.
    recent: VecDeque<Held>,
}

/// Whether an error says something about the request: others say that the server is not there, or
/// not now.
fn is_answer(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Internal
    )
}

/// The answer of a unary call; `None` if there was none.
fn answer_of(result: Result<Answer, Status>) -> Option<Answer> {
    result
        .or_else(|status| {
            let details = status.get_error_details();
            match details.error_info() {
                Some(named) if is_answer(status.code()) => Ok(Answer::Error(pb::Error {
                    status: status.code().into(),
                    code: named.reason.clone(),
                    message: status.message().to_owned(),
                    ..pb::Error::default()
                })),
                // Without details it was not the engine that spoke, but the transport.
                _ => Err(status),
            }
        })
        .ok()
}

/// A reservation, by the admission that made it.
fn by_request(ask: &Ask) -> Named {
    Named::Admission(ask.request_id.clone())
}

pub(super) async fn call(service: &mut Service, ask: &Ask) -> Option<Answer> {
    answer_of(match ask.event.clone() {
        Event::Admit(it) => service.admit(it).await.map(|it| Answer::Admitted(it.into_inner())),
        Event::Confirm(it) => service.confirm(it).await.map(|it| Answer::Settled(it.into_inner())),
        Event::Release(it) => service.release(it).await.map(|it| Answer::Settled(it.into_inner())),
    })
}

/// The answers to what may be a gang: one for each of its members.
async fn call_all(service: &mut Service, ask: &Ask) -> Option<Vec<Answer>> {
    if ask.members.is_empty() {
        return call(service, ask).await.map(|answer| vec![answer]);
    }
    match service.admit_gang(load::gang_request(ask)).await {
        Ok(it) => Some(it.into_inner().members.into_iter().map(Answer::Admitted).collect()),
        Err(status) => answer_of(Err(status)).map(|answer| vec![answer; ask.members.len()]),
    }
}

impl Client {
    pub(super) fn new(folder: &Path, number: u64, via: Via, seed: u64) -> Self {
        let name = format!("c{number}");
        let record = Record::new(&folder.join(format!("{name}.jsonl")));
        let (pending, decided, held) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (dice, recent) = (Dice::new(seed, number), VecDeque::new());
        Self { name, via, dice, record, asked: 0, pending, decided, held, recent }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Requests that were asked, or were about to be, and not answered.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Asks until the server dies, or all is answered that was asked before the cycle drains.
    pub(super) async fn run(mut self, cycle: Cycle) -> Self {
        let Ok(service) = Service::connect(cycle.url.clone()).await else { return self };
        match self.via {
            Via::Unary | Via::Gang => self.call_one_by_one(service, &cycle).await,
            Via::Stream => self.stream(service, &cycle).await,
        }
        self
    }

    async fn call_one_by_one(&mut self, mut service: Service, cycle: &Cycle) {
        loop {
            if self.pending.is_empty() {
                if cycle.drain.load(Ordering::Relaxed) {
                    return;
                }
                self.draw();
            }
            let ask = self.pending.front().expect("one was just drawn").clone();
            // Now and then two ask the same thing at the same time.
            let twice = ask.verb() == "admit" && self.dice.once_in(12);
            let mut other = service.clone();
            self.write_down(cycle, &ask);
            let answers = if twice {
                self.write_down(cycle, &ask);
                futures::join!(call_all(&mut service, &ask), call_all(&mut other, &ask))
            } else {
                (call_all(&mut service, &ask).await, None)
            };
            let mut answered = false;
            for answers in [answers.0, answers.1].into_iter().flatten() {
                if !answered {
                    self.pending.pop_front();
                }
                let each = ask.each();
                assert_eq!(answers.len(), each.len(), "every member of a gang is answered");
                let again = answered || !self.remember(&ask, &answers);
                for (one, answer) in each.iter().zip(&answers) {
                    self.take(cycle, one, answer, again);
                }
                answered = true;
            }
            if !answered {
                return;
            }
        }
    }

    async fn stream(&mut self, mut service: Service, cycle: &Cycle) {
        let (send, events) = mpsc::channel(IN_FLIGHT);
        let opened = service.admit_stream(ReceiverStream::new(events)).await;
        let Ok(mut answers) = opened.map(tonic::Response::into_inner) else { return };
        // The first so many of the pending are on their way.
        let mut sent = 0;
        loop {
            while sent < IN_FLIGHT {
                if sent == self.pending.len() {
                    if cycle.drain.load(Ordering::Relaxed) {
                        break;
                    }
                    self.draw();
                }
                let ask = self.pending[sent].clone();
                self.record.asked(cycle.number, self.via, &ask);
                let event = pb::StreamRequest { event: Some(ask.event), time: None };
                if send.send(event).await.is_err() {
                    return;
                }
                sent += 1;
            }
            if sent == 0 {
                return;
            }
            let Some(Ok(response)) = answers.next().await else { return };
            let answer = response.answer.expect("every answer says something");
            if let Answer::Error(error) = &answer
                && !is_answer(Code::from(error.status))
            {
                return;
            }
            let same = |ask: &Ask| ask.request_id == response.request_id;
            let at = self.pending.iter().position(same).expect("only what was asked is answered");
            assert!(at < sent, "{} was answered before it was asked again", response.request_id);
            let ask = self.pending.remove(at).expect("it was just found");
            sent -= 1;
            let again = !self.remember(&ask, std::slice::from_ref(&answer));
            self.take(cycle, &ask, &answer, again);
        }
    }

    fn write_down(&mut self, cycle: &Cycle, ask: &Ask) {
        let via = if ask.members.is_empty() { self.via } else { Via::Gang };
        for one in ask.each() {
            self.record.asked(cycle.number, via, &one);
        }
    }

    /// Keeps an admission that was decided, to ask it once more; whether it is new.
    fn remember(&mut self, ask: &Ask, answers: &[Answer]) -> bool {
        let decided = answers.iter().all(|answer| matches!(answer, Answer::Admitted(_)));
        if !decided || self.decided.iter().any(|one| one.request_id == ask.request_id) {
            return false;
        }
        self.decided.push_back(ask.clone());
        if self.decided.len() > REMEMBERED {
            self.decided.pop_front();
        }
        true
    }

    /// Writes an answer down and learns from it.
    fn take(&mut self, cycle: &Cycle, ask: &Ask, answer: &Answer, again: bool) {
        self.record.answered(cycle.number, &ask.request_id, answer);
        cycle.answers.send_modify(|answers| *answers += 1);
        match answer {
            Answer::Error(error) => {
                let stale = load::in_next_epoch(ask).filter(|_| error.code == "STALE_EPOCH");
                self.pending.extend(stale);
            }
            Answer::Settled(settled) => self.settled(settled),
            Answer::Admitted(admitted) if !again => {
                let decision: Decision = claims(&admitted.token);
                self.admitted(ask, &decision);
            }
            Answer::Admitted(_) => {}
        }
    }

    fn settled(&mut self, settled: &pb::Settlement) {
        let at = self.recent.iter().position(|held| held.id == settled.reservation_id);
        let Some(at) = at else { return };
        // Some of those that have ended are kept, to be asked for all the same.
        if settled.state() == pb::ReservationState::Active {
            self.recent[at].confirmed = true;
        } else if !self.dice.once_in(6) {
            self.recent.remove(at);
        }
    }

    fn admitted(&mut self, ask: &Ask, decision: &Decision) {
        let Some(reservation) = &decision.reservation else { return };
        let id = reservation.id.to_string();
        if decision.extends.is_some() {
            if let Some(held) = self.recent.iter_mut().find(|held| held.id == id) {
                held.go_on(reservation);
            }
            return;
        }
        let held = Held::new(ask, decision).expect("it is a reservation of its own");
        if self.dice.once_in(30) {
            // Nobody has confirmed it yet.
            self.of_held(&held);
        }
        self.recent.push_back(held);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        if self.via == Via::Unary {
            self.settle(ask, |dice| {
                let itself = dice.once_in(2);
                if itself { Named::Itself(id.clone()) } else { by_request(ask) }
            });
        }
    }

    /// Asks for more time for a reservation, or for jobs inside it; which need not be a lease.
    fn of_held(&mut self, held: &Held) {
        if self.dice.once_in(2) || !(held.is_lease() || self.dice.once_in(8)) {
            let name = self.next_name();
            self.pending.push_back(load::longer(name, held, &mut self.dice));
            return;
        }
        let mut jobs = Vec::new();
        for _ in 0..2 + self.dice.below(2) {
            let name = self.next_name();
            jobs.push(load::inside(name, held, &mut self.dice));
        }
        if self.via == Via::Unary && self.dice.once_in(4) {
            let name = self.next_name();
            jobs.truncate(2);
            jobs = vec![load::gang(name, jobs, &mut self.dice)];
        } else if self.via == Via::Stream {
            for job in &jobs {
                self.pending.push_back(job.clone());
                self.settle(job, |_| by_request(job));
            }
            return;
        }
        self.pending.extend(jobs);
    }

    fn next_name(&mut self) -> String {
        let number = self.number();
        format!("{}-{number}", self.name)
    }

    /// What becomes of an admission, which is named somehow: most are confirmed and released again
    /// at once or later, some are confirmed alone, a few are forgotten or released without having
    /// been confirmed. What is sold is kept longer, so that there is somebody to displace; what
    /// runs inside a lease too, so that the lease ends before it.
    fn settle(&mut self, ask: &Ask, named: impl Fn(&mut Dice) -> Named) {
        let fate = self.dice.below(20);
        if fate > 2 {
            let (wrong, named) = (self.dice.once_in(40), named(&mut self.dice));
            let number = self.number();
            self.pending.push_back(load::settle(true, number, ask, named, wrong));
        }
        let kept = if load::stays(ask) { 16 } else { 10 };
        match fate {
            0 | 1 | 3..6 => {}
            6.. if fate < kept => {
                let named = named(&mut self.dice);
                self.held.push_back((ask.clone(), named));
            }
            _ => {
                let (number, named) = (self.number(), named(&mut self.dice));
                self.pending.push_back(load::settle(false, number, ask, named, false));
            }
        }
    }

    fn number(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }

    /// Adds something new to what is pending.
    fn draw(&mut self) {
        if let Some((ask, named)) = self.take_held() {
            let number = self.number();
            self.pending.push_back(load::settle(false, number, &ask, named, false));
            return;
        }
        if !self.decided.is_empty() && self.dice.once_in(16) {
            // Somebody asks again although there was an answer.
            let at = self.dice.below(u64::try_from(self.decided.len()).unwrap());
            self.pending.push_back(self.decided[usize::try_from(at).unwrap()].clone());
            return;
        }
        // Now and then one that has ended.
        let any = self.dice.once_in(12);
        let held: Vec<&Held> = self.recent.iter().filter(|held| any || held.runs()).collect();
        if !held.is_empty() && self.dice.once_in(4) {
            let held = (*self.dice.one(&held)).clone();
            self.of_held(&held);
            return;
        }
        let name = self.next_name();
        if self.via == Via::Unary && self.dice.once_in(10) {
            self.pending.push_back(load::gang(name, Vec::new(), &mut self.dice));
            return;
        }
        let ask = load::admit(name, &mut self.dice);
        self.pending.push_back(ask.clone());
        if self.via == Via::Stream {
            // A stream does not wait for the answer.
            self.settle(&ask, |_| by_request(&ask));
        }
    }

    /// A reservation to release now, a while after it was made.
    fn take_held(&mut self) -> Option<(Ask, Named)> {
        if self.held.is_empty() || !self.dice.once_in(8) {
            return None;
        }
        let at = self.dice.below(u64::try_from(self.held.len()).unwrap());
        self.held.remove(usize::try_from(at).unwrap())
    }
}
