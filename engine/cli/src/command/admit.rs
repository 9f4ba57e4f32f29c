//! `placet admit`: asks for decisions, one or a million.

mod gang;

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use placet_core::{Effect, utc};
use placet_proto::admission::v1::{AdmitResponse, Settlement, stream_response::Answer};

use super::waiver::read_token;
use crate::answer::{self, Place, Problem};
use crate::connection::{Connection, LocalArgs, ServerArgs, block_on};
use crate::events::{LineError, Shape, Source};
use crate::exit::{Exit, Failure};
use crate::print::{Printer, Tone, plain};
use crate::proof;
use crate::stream::{self, Row, Sink};
use crate::tally::Tally;

/// Most events on their way that may be asked for: the server bounds its own.
const MAX_IN_FLIGHT: u64 = 4_096;
/// Files from this size on get a progress bar, in bytes.
const LONG_FILE_BYTES: u64 = 1024 * 1024;

const EXAMPLES: &str = "\
A file holds one request as JSON, or one event a line as JSONL:
  {\"admit\": {...}}  {\"confirm\": {...}}  {\"release\": {...}}
each with an optional \"time\".

Answers come in the order of the events. A broken line is reported and the run
goes on. Exit code: 0 decided (for a single request: permitted), 2 a single
request is denied, 1 otherwise.

With --gang the requests of all files are decided together: all of them are
admitted (exit code 0), or none is (2).

Examples:
  placet admit request.json
  placet admit --format json request.json > decision.json
  generate | placet admit --in-flight 64 --format json - > decisions.jsonl
  placet admit --gang run-7 workers.jsonl
  placet admit --waiver w-17.waiver request.json
  placet admit --local --bundle policies/reference \\
    --facts policies/reference/facts.yaml request.json";

/// Ask for decisions
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AdmitArgs {
    /// Requests or events to send; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Most events on their way at a time, 1 to 4096
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u64).range(1..=MAX_IN_FLIGHT))]
    in_flight: u64,
    /// Admit the requests together or not at all, 2 to 32 of them, under this name
    #[arg(long, value_name = "ID", conflicts_with_all = ["in_flight", "summary"])]
    gang: Option<String>,
    /// File of a waiver that the single request brings; repeat for several
    #[arg(long, value_name = "FILE", conflicts_with = "gang")]
    waiver: Vec<PathBuf>,
    /// How the counts at the end are written, on standard error [default: human, for events only]
    #[arg(long, value_name = "FORMAT")]
    summary: Option<SummaryFormat>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    local: LocalArgs,
}

/// How the counts at the end are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SummaryFormat {
    /// A table
    Human,
    /// One line of JSON
    Json,
    /// Not at all
    None,
}

pub(super) fn run(args: &AdmitArgs, printer: &mut Printer) -> Result<Exit, Failure> {
    if args.files.iter().filter(|file| file.as_os_str() == "-").count() > 1 {
        return Err(Failure::usage("`-` is given twice, but there is one standard input"));
    }
    let waivers = args.waiver.iter().map(|file| read_token(file)).collect::<Result<Vec<_>, _>>()?;
    let mut sources =
        args.files.iter().map(|file| Source::open(file)).collect::<Result<Vec<_>, _>>()?;
    for source in &mut sources {
        source.waive(&waivers)?;
    }
    let single = matches!(sources.as_slice(), [source] if source.shape() == Shape::Single);
    let in_flight = usize::try_from(args.in_flight).unwrap_or(usize::MAX);
    let mut report = Report {
        names: sources.iter().map(|source| source.name().to_owned()).collect(),
        bar: if single { None } else { progress(&args.files) },
        passed_bytes: 0,
        passed_source: 0,
        last_bytes: 0,
        single,
        header: !single && !printer.json() && std::io::stdout().is_terminal(),
        tally: Tally::new()?,
        printer,
    };
    if let Some(name) = &args.gang {
        let members = gang::members(sources)?;
        let answer = block_on(async {
            let connection = Connection::open(&args.server, &args.local).await?;
            let answer = gang::ask(connection.client(), name.clone(), members).await;
            let closed = connection.close().await;
            let answer = answer?;
            closed.map(|()| answer)
        })?;
        return report.gang(&answer.members);
    }
    let ended = block_on(async {
        let connection = Connection::open(&args.server, &args.local).await?;
        let ended = stream::run(connection.client(), sources, in_flight, &mut report).await;
        let closed = connection.close().await;
        let ended = ended?;
        closed.map(|()| ended)
    })?;
    report.finish(&ended, args.summary)
}

fn progress(files: &[PathBuf]) -> Option<ProgressBar> {
    let bytes = files.iter().map(|file| std::fs::metadata(file).map(|it| it.len()).ok());
    let bytes = bytes.sum::<Option<u64>>().filter(|bytes| *bytes >= LONG_FILE_BYTES)?;
    // Beside rows on the same screen a bar would only flicker.
    if !std::io::stderr().is_terminal() || std::io::stdout().is_terminal() {
        return None;
    }
    let style = ProgressStyle::with_template("{bar:30} {percent:>3}%  {msg}  {eta} left").ok()?;
    Some(ProgressBar::new(bytes).with_style(style))
}

/// Writes rows as they come, and counts them.
struct Report<'a> {
    names: Vec<String>,
    bar: Option<ProgressBar>,
    passed_bytes: u64,
    passed_source: usize,
    last_bytes: u64,
    single: bool,
    header: bool,
    tally: Tally,
    printer: &'a mut Printer,
}

impl Sink for Report<'_> {
    fn row(&mut self, row: Row) -> Result<(), Failure> {
        self.advance(&row);
        let name = self.names.get(row.source).cloned().unwrap_or_default();
        let file = Some(name.as_str()).filter(|_| self.names.len() > 1);
        let place = Place { file, line: row.line };
        let (response, took) = match row.outcome {
            Ok(answered) => answered,
            Err(error) => return self.broken(place, &name, &error),
        };
        self.tally.took(took);
        match response.answer {
            Some(Answer::Admitted(response)) => self.decided(place, &response),
            Some(Answer::Settled(settlement)) => self.settled(place, &settlement),
            Some(Answer::Error(error)) => {
                self.problem(place, &name, &row.request_id, &Problem::from(error))
            }
            None => Err(Failure::new("the server sent an answer that this version does not know")
                .hint("use the `placet` of the server's version")),
        }
    }

    fn pause(&mut self) -> Result<(), Failure> {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{} answered", self.tally.answered()));
        }
        self.printer.flush()
    }
}

impl Report<'_> {
    fn advance(&mut self, row: &Row) {
        if row.source != self.passed_source {
            self.passed_source = row.source;
            self.passed_bytes += self.last_bytes;
        }
        self.last_bytes = row.bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.passed_bytes + row.bytes);
        }
    }

    fn decided(&mut self, place: Place<'_>, response: &AdmitResponse) -> Result<(), Failure> {
        let claims = proof::claims(&response.token)
            .map_err(|failure| failure.context("the server sent an unreadable decision"))?;
        let codes = answer::codes(&claims);
        match claims.effect {
            Effect::Permit => self.tally.admitted(),
            Effect::Deny => self.tally.denied(&codes),
        }
        if self.printer.json() {
            let line = answer::decision_json(Some(place), response, &claims)?;
            return self.printer.data(&line);
        }
        if self.single {
            let card = answer::decision_card(self.printer, &claims);
            return self.printer.data(&card);
        }
        let detail = match &claims.reservation {
            Some(reservation) => match answer::later_start(&claims) {
                Some(start) => format!("{} from {}", reservation.id, utc(start)),
                None => reservation.id.to_string(),
            },
            None => codes.join(" "),
        };
        let word = answer::effect_column(self.printer, claims.effect);
        self.columns(place, &word, &response.request_id, &detail)
    }

    /// The decisions on a gang, in the order of its members.
    fn gang(mut self, members: &[AdmitResponse]) -> Result<Exit, Failure> {
        for (line, member) in (1..).zip(members) {
            self.decided(Place { file: None, line }, member)?;
        }
        self.printer.flush()?;
        Ok(if self.tally.has_denials() { Exit::Denied } else { Exit::Done })
    }

    fn settled(&mut self, place: Place<'_>, settlement: &Settlement) -> Result<(), Failure> {
        let state = answer::state(settlement);
        self.tally.settled(state);
        if self.printer.json() {
            let line = answer::settlement_json(Some(place), settlement)?;
            return self.printer.data(&line);
        }
        if self.single {
            let card = answer::settlement_card(self.printer, settlement);
            return self.printer.data(&card);
        }
        self.columns(place, state, &settlement.request_id, &settlement.reservation_id)
    }

    fn columns(
        &mut self,
        place: Place<'_>,
        result: &str,
        request: &str,
        detail: &str,
    ) -> Result<(), Failure> {
        if std::mem::take(&mut self.header) {
            let header = answer::columns("LINE", "RESULT", "REQUEST", "RESERVATION OR CODES");
            let header = self.printer.tone(Tone::Strong, &header);
            self.printer.data(&header)?;
        }
        let line = place.line.to_string();
        self.printer.data(&answer::columns(&line, result, &plain(request), &plain(detail)))
    }

    fn broken(&mut self, place: Place<'_>, name: &str, error: &LineError) -> Result<(), Failure> {
        // A request that spans lines has its own count of them.
        let line = if self.single { error.line.unwrap_or(place.line) } else { place.line };
        let position = match error.column {
            Some(column) => format!("{name}:{line}:{column}"),
            None if self.single => name.to_owned(),
            None => format!("{name}:{line}"),
        };
        self.tally.error(error.code);
        self.tell(&format!("{position}: {}", error.message))?;
        if self.printer.json() {
            let place = Place { line, ..place };
            return self.printer.data(&answer::problem_json(place, "", &Problem::from(error))?);
        }
        Ok(())
    }

    fn problem(
        &mut self,
        place: Place<'_>,
        name: &str,
        request_id: &str,
        problem: &Problem,
    ) -> Result<(), Failure> {
        self.tally.error(&problem.code);
        let position = if self.single { name.to_owned() } else { format!("{name}:{}", place.line) };
        self.tell(&format!("{position}: {}", plain(&problem.message)))?;
        if self.printer.json() {
            return self.printer.data(&answer::problem_json(place, request_id, problem)?);
        }
        Ok(())
    }

    /// Says on standard error what went wrong, without tearing the bar.
    fn tell(&mut self, message: &str) -> Result<(), Failure> {
        self.printer.flush()?;
        match &self.bar {
            Some(bar) => bar.suspend(|| self.printer.error(message)),
            None => self.printer.error(message),
        }
        Ok(())
    }

    fn finish(
        mut self,
        ended: &stream::Ended,
        summary: Option<SummaryFormat>,
    ) -> Result<Exit, Failure> {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.printer.flush()?;
        self.tally.unanswered(ended.unanswered);
        for failure in &ended.failures {
            self.printer.error(failure.message());
        }
        let absent = if self.single { SummaryFormat::None } else { SummaryFormat::Human };
        match summary.unwrap_or(absent) {
            SummaryFormat::Human => self.printer.note(&self.tally.summary().human()),
            SummaryFormat::Json => self.printer.note(&self.tally.summary().json()?),
            SummaryFormat::None => {}
        }
        let whole = ended.failures.is_empty() && self.tally.is_clean();
        Ok(match (whole, self.single && self.tally.has_denials()) {
            (false, _) => Exit::Failed,
            (true, true) => Exit::Denied,
            (true, false) => Exit::Done,
        })
    }
}
