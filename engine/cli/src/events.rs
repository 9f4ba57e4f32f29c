//! Requests and events out of files: JSON with one request, or JSONL with one event a line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use placet_proto::FieldError;
use placet_proto::admission::v1::{AdmitRequest, StreamRequest, stream_request};
use placet_proto::json::from_json;
use serde::de::IgnoredAny;

use crate::exit::Failure;

/// Longest line, and largest single request, in bytes: the contract's own bound.
const MAX_LINE_BYTES: usize = placet_proto::json::MAX_JSON_BYTES;
/// Bytes read from a file at once.
const READ_BYTES: usize = 64 * 1024;
/// Status of a line that is no event: gRPC's INVALID_ARGUMENT.
pub(crate) const INVALID_ARGUMENT: i32 = 3;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One request.
    Single,
    /// One event a line.
    Events,
}

/// One event, or why a line is none.
#[derive(Debug)]
pub(crate) struct Line {
    /// Number of its line in its file, from 1.
    pub(crate) number: u64,
    /// Bytes of the file up to its end.
    pub(crate) bytes: u64,
    /// What it holds.
    pub(crate) event: Result<Box<StreamRequest>, LineError>,
}

/// Why a line is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LineError {
    /// Where in the line, from 1, where that is known.
    pub(crate) column: Option<usize>,
    /// Which line of a request that spans several, from 1.
    pub(crate) line: Option<u64>,
    /// Stable code.
    pub(crate) code: &'static str,
    /// Path of the offending field; empty if no one field is at fault.
    pub(crate) field: String,
    /// For a person, the remedy on a line of its own.
    pub(crate) message: String,
}

impl LineError {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { column: None, line: None, code, field: String::new(), message: message.into() }
    }
}

/// A file of requests or events, or standard input.
pub(crate) struct Source {
    name: String,
    shape: Shape,
    reader: Box<dyn BufRead + Send>,
    number: u64,
    bytes: u64,
    /// Brought by a single request beside its own.
    waivers: Vec<String>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("shape", &self.shape).finish()
    }
}

/// How reading a line ended.
enum Taken {
    End,
    Line,
    TooLong,
}

impl Source {
    /// Opens a file, or standard input for `-`, and finds out what it holds.
    ///
    /// # Errors
    /// It cannot be opened or read.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Self::detect(
                "standard input".to_owned(),
                None,
                Box::new(BufReader::new(io::stdin())),
            );
        }
        let name = path.display().to_string();
        let failed = |error: io::Error| Failure::new(format!("cannot read `{name}`: {error}"));
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(Failure::new(format!("`{name}` is a directory"))
                .hint("name the files in it, such as `dir/*.json`"));
        }
        let shape = match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl" | "ndjson") => Some(Shape::Events),
            _ => None,
        };
        Self::detect(name, shape, Box::new(BufReader::with_capacity(READ_BYTES, file)))
    }

    fn detect(
        name: String,
        shape: Option<Shape>,
        mut reader: Box<dyn BufRead + Send>,
    ) -> Result<Self, Failure> {
        let Some(shape) = shape else {
            let mut first = Vec::new();
            let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
            loop {
                let before = first.len();
                let mut bounded = reader.by_ref().take(limit);
                bounded
                    .read_until(b'\n', &mut first)
                    .map_err(|error| Failure::new(format!("cannot read `{name}`: {error}")))?;
                let blank = first.iter().all(u8::is_ascii_whitespace);
                if first.len() == before || !blank || first.len() > MAX_LINE_BYTES {
                    break;
                }
            }
            let shape = shape_of(&first);
            let reader = Box::new(Cursor::new(first).chain(reader));
            return Ok(Self { name, shape, reader, number: 0, bytes: 0, waivers: Vec::new() });
        };
        Ok(Self { name, shape, reader, number: 0, bytes: 0, waivers: Vec::new() })
    }

    /// Has the single request that it holds bring waivers, beside its own.
    ///
    /// # Errors
    /// It holds events: each of them brings its own.
    pub(crate) fn waive(&mut self, waivers: &[String]) -> Result<(), Failure> {
        if self.shape == Shape::Events && !waivers.is_empty() {
            return Err(Failure::usage(format!("`{}` holds events, not one request", self.name))
                .hint("write the waivers into `waivers` of each request"));
        }
        self.waivers = waivers.to_vec();
        Ok(())
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it holds.
    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    /// The next event; none at the end. Blank lines are passed over.
    ///
    /// # Errors
    /// The file cannot be read on.
    pub(crate) fn next(&mut self) -> Result<Option<Line>, Failure> {
        match self.shape {
            Shape::Single => self.whole(),
            Shape::Events => self.next_line(),
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        Failure::new(format!("cannot read `{}` after line {}: {error}", self.name, self.number))
    }

    fn next_line(&mut self) -> Result<Option<Line>, Failure> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = match self.read_line(&mut line) {
                Ok(read) => read,
                Err(error) => return Err(self.failure(&error)),
            };
            self.number += 1;
            let event = match read {
                Taken::End => return Ok(None),
                Taken::Line if line.iter().all(u8::is_ascii_whitespace) => continue,
                Taken::Line => event(&line),
                Taken::TooLong => Err(LineError::new(
                    "LINE_TOO_LONG",
                    format!("the line is longer than {MAX_LINE_BYTES} bytes"),
                )),
            };
            return Ok(Some(Line { number: self.number, bytes: self.bytes, event }));
        }
    }

    /// Reads up to a line's end, keeping at most [`MAX_LINE_BYTES`] of it.
    fn read_line(&mut self, line: &mut Vec<u8>) -> io::Result<Taken> {
        let (mut seen, mut too_long) = (false, false);
        loop {
            let chunk = match self.reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = end.map_or(chunk, |end| chunk.split_at(end).0);
            let room = MAX_LINE_BYTES.saturating_sub(line.len());
            let fits = part.len() <= room;
            line.extend(part.iter().take(room));
            let used = part.len() + usize::from(end.is_some());
            let at_end = chunk.is_empty();
            self.reader.consume(used);
            self.bytes += u64::try_from(used).unwrap_or(u64::MAX);
            seen |= used > 0;
            too_long |= !fits;
            if end.is_some() || at_end {
                return Ok(match (seen, too_long) {
                    (false, _) => Taken::End,
                    (true, true) => Taken::TooLong,
                    (true, false) => Taken::Line,
                });
            }
        }
    }

    fn whole(&mut self) -> Result<Option<Line>, Failure> {
        if self.number > 0 {
            return Ok(None);
        }
        self.number = 1;
        let limit = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX) + 1;
        let mut text = Vec::new();
        let read = self.reader.by_ref().take(limit).read_to_end(&mut text);
        if let Err(error) = read {
            return Err(self.failure(&error));
        }
        let event = if text.len() > MAX_LINE_BYTES {
            Err(LineError::new(
                "REQUEST_TOO_LARGE",
                format!("the request is larger than {MAX_LINE_BYTES} bytes"),
            ))
        } else {
            let waivers = std::mem::take(&mut self.waivers);
            single(&text).map(|event| with_waivers(event, waivers))
        };
        self.bytes += u64::try_from(text.len()).unwrap_or(u64::MAX);
        Ok(Some(Line { number: self.number, bytes: self.bytes, event }))
    }
}

/// Keys of an event's object; a request on its own has none of them.
const EVENT_KEYS: [&str; 3] = ["admit", "confirm", "release"];

/// Whether the first line is an event of its own, or the beginning of one request.
fn shape_of(first: &[u8]) -> Shape {
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(first) {
        Ok(object) if EVENT_KEYS.iter().any(|key| object.contains_key(*key)) => Shape::Events,
        Ok(_) => Shape::Single,
        Err(error) if error.is_eof() => Shape::Single,
        Err(_) => Shape::Events,
    }
}

/// Reads one line of JSONL.
fn event(line: &[u8]) -> Result<Box<StreamRequest>, LineError> {
    let text = text_of(line)?;
    let event: StreamRequest = from_json(text).map_err(|error| refused(text, &error))?;
    if event.event.is_none() {
        return Err(LineError::new(
            "EVENT_ABSENT",
            "the line holds none of `admit`, `confirm` and `release`",
        ));
    }
    Ok(Box::new(event))
}

/// Reads one request, with or without its envelope.
fn single(text: &[u8]) -> Result<Box<StreamRequest>, LineError> {
    let json = text_of(text)?;
    if json.trim().is_empty() {
        return Err(LineError::new("EMPTY", "it is empty: expected a request as JSON"));
    }
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).map_err(|error| broken(&error))?;
    if EVENT_KEYS.iter().any(|key| object.contains_key(*key)) {
        return event(text);
    }
    let admit: AdmitRequest = from_json(json).map_err(|error| refused(json, &error))?;
    Ok(Box::new(StreamRequest { event: Some(stream_request::Event::Admit(admit)), time: None }))
}

fn with_waivers(mut event: Box<StreamRequest>, waivers: Vec<String>) -> Box<StreamRequest> {
    if let Some(stream_request::Event::Admit(admit)) = &mut event.event {
        admit.waivers.extend(waivers);
    }
    event
}

fn text_of(bytes: &[u8]) -> Result<&str, LineError> {
    std::str::from_utf8(bytes).map_err(|error| LineError {
        column: Some(error.valid_up_to() + 1),
        ..LineError::new("MALFORMED_JSON", "the bytes are no UTF-8 text")
    })
}

/// Only a syntax error has a place; what is wrong with a field is said by its name.
fn refused(text: &str, error: &FieldError) -> LineError {
    match serde_json::from_str::<IgnoredAny>(text) {
        Err(syntax) => broken(&syntax),
        Ok(_) => LineError {
            field: error.field.clone(),
            ..LineError::new(error.code, error.to_string())
        },
    }
}

fn broken(error: &serde_json::Error) -> LineError {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    LineError {
        column: Some(error.column()),
        line: u64::try_from(error.line()).ok(),
        ..LineError::new("MALFORMED_JSON", whole.strip_suffix(&place).unwrap_or(&whole))
    }
}

/// The request id of an event; empty if it has none.
pub(crate) fn request_id(event: &StreamRequest) -> &str {
    match &event.event {
        Some(stream_request::Event::Admit(admit)) => &admit.request_id,
        Some(stream_request::Event::Confirm(confirm)) => &confirm.request_id,
        Some(stream_request::Event::Release(release)) => &release.request_id,
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: impl Into<Vec<u8>>, shape: Option<Shape>) -> Source {
        Source::detect("test".to_owned(), shape, Box::new(Cursor::new(text.into()))).unwrap()
    }

    fn confirm(id: &str) -> String {
        format!(
            "{{\"confirm\":{{\"request_id\":\"{id}\",\"tenant_id\":\"t\",\
             \"reservation\":{{\"reservation_id\":\"r\",\"epoch\":1}}}},\"time\":7}}"
        )
    }

    #[test]
    fn the_first_line_tells_events_from_a_request() {
        assert_eq!(source(confirm("a") + "\n", None).shape(), Shape::Events);
        assert_eq!(source("\n \n".to_owned() + &confirm("a"), None).shape(), Shape::Events);
        assert_eq!(source("{\n  \"request_id\": \"a\"\n}", None).shape(), Shape::Single);
        assert_eq!(source("{\"request_id\":\"a\"}", None).shape(), Shape::Single);
        assert_eq!(source("{broken\n", None).shape(), Shape::Events);
        assert_eq!(source("", None).shape(), Shape::Single);
    }

    #[test]
    fn a_broken_line_has_its_place_and_the_next_line_is_read() {
        let text = format!("{}\n\n{{\"confirm\": nope}}\n{}", confirm("a"), confirm("b"));
        let mut source = source(text, Some(Shape::Events));
        let first = source.next().unwrap().unwrap();
        assert_eq!((first.number, request_id(&first.event.unwrap())), (1, "a"));
        let broken = source.next().unwrap().unwrap();
        let error = broken.event.unwrap_err();
        assert_eq!((broken.number, error.column, error.code), (3, Some(14), "MALFORMED_JSON"));
        assert_eq!(error.message, "expected ident");
        let last = source.next().unwrap().unwrap();
        assert_eq!((last.number, last.event.unwrap().time), (4, Some(7)));
        assert!(source.next().unwrap().is_none());
        assert!(source.next().unwrap().is_none());
    }

    #[test]
    fn a_line_of_any_length_takes_bounded_memory() {
        let text = format!("{}\n{}\n", "x".repeat(3 * MAX_LINE_BYTES), confirm("b"));
        let mut source = source(text, Some(Shape::Events));
        let error = source.next().unwrap().unwrap().event.unwrap_err();
        assert_eq!(error.code, "LINE_TOO_LONG");
        assert_eq!(source.next().unwrap().unwrap().number, 2);
    }

    #[test]
    fn an_unknown_field_names_itself() {
        let mut source = source("{\"confirm\":{\"request_idd\":\"a\"}}", Some(Shape::Events));
        let error = source.next().unwrap().unwrap().event.unwrap_err();
        assert_eq!((error.code, error.field.as_str()), ("UNKNOWN_FIELD", "confirm.request_idd"));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let mut source = source(b"{\"a\":\"\xff\"}\n".to_vec(), Some(Shape::Events));
        let error = source.next().unwrap().unwrap().event.unwrap_err();
        assert_eq!((error.column, error.code), (Some(7), "MALFORMED_JSON"));
    }
}
