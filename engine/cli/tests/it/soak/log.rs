//! Whoever reads the log of the crash test over HTTP, while it grows and its server is killed, and
//! writes down what was served. It is the log's witness, too.

use std::path::Path;

use placet_core::tile::{TileKind, TilePath, tiles};
use placet_core::{Digest, SigningKey, Witness, cosign};
use placet_proto::audit::v1::AddCosignaturesRequest;
use placet_proto::audit::v1::audit_service_client::AuditServiceClient;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;

use super::client::Record;
use super::load::Dice;
use super::moment;

/// Milliseconds between two questions: short against the second between two checkpoints, so that a
/// kill may come right after one was served, and long enough to leave the cores to the server.
const PAUSE_MS: u64 = 4;
/// One in how many questions is followed by one for a tile.
const TILED: u64 = 8;
/// What is asked for among tiles: leaves and their hashes mostly, and those of subtrees of 256.
const KINDS: [TileKind; 5] = [
    TileKind::Entries,
    TileKind::Entries,
    TileKind::Hashes(0),
    TileKind::Hashes(0),
    TileKind::Hashes(1),
];

/// One in how many checkpoints is cosigned only with the next one, perhaps in another process.
const LATE: u64 = 3;
/// Its name as a witness.
const WITNESS: &str = "witness.example/soak";

/// What a server said, complete.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// One reader of the log, over many lives of the server.
#[derive(Debug)]
pub(super) struct LogReader {
    record: Record,
    dice: Dice,
    /// The newest checkpoint that it was served.
    newest: String,
    /// With what it cosigns.
    key: SigningKey,
    /// Checkpoints that it has not cosigned, or was not told that its cosignature was taken.
    waiting: Vec<String>,
}

impl LogReader {
    pub(super) fn new(records: &Path, seed: u64) -> Self {
        let record = Record::new(&records.join("log.jsonl"));
        let (dice, key) = (Dice::new(seed, u64::MAX - 1), SigningKey::generate().unwrap());
        Self { record, dice, newest: String::new(), key, waiting: Vec::new() }
    }

    /// The key by which a server knows it as a witness.
    pub(super) fn verifier_key(&self) -> String {
        Witness::new(WITNESS, self.key.verifying_key().clone()).unwrap().to_string()
    }

    /// Asks for the checkpoint again and again until the server dies, and now and then for tiles
    /// that it covers.
    ///
    /// A checkpoint is written down when a process serves its first one, and when it serves another
    /// one: all that was served in between was the same, byte for byte.
    pub(super) async fn run(mut self, cycle: u64, port: u16, url: String) -> Self {
        let mut questions = 0_u64;
        let mut service = AuditServiceClient::connect(url).await.ok();
        while let Some(answer) = get(port, "checkpoint").await {
            let note = String::from_utf8_lossy(&answer.body).into_owned();
            let is_new = note != self.newest || questions == 0;
            questions += 1;
            if is_new {
                self.note(&json!({
                    "served": "checkpoint", "cycle": cycle, "status": answer.status, "note": note,
                }));
                if answer.status == 200 && text(&note) != text(&self.newest) {
                    self.waiting.push(note.clone());
                    if let Some(service) = &mut service
                        && !self.dice.once_in(LATE)
                    {
                        self.cosign(cycle, service).await;
                    }
                }
                self.newest = note;
            }
            // The second line says how many leaves there are (C2SP tlog-checkpoint).
            let size = self.newest.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0);
            let mut wanted = Vec::new();
            if is_new {
                let last = |kind| tiles(size).filter(|tile| tile.kind() == kind).last();
                wanted.extend([last(TileKind::Hashes(0)), last(TileKind::Entries)]);
            }
            if is_new || self.dice.once_in(TILED) {
                wanted.push(self.any_tile(size));
            }
            for path in wanted.into_iter().flatten() {
                let Some(tile) = get(port, &path.to_string()).await else { break };
                self.note(&json!({
                    "served": "tile", "cycle": cycle, "status": tile.status, "size": size,
                    "path": path.to_string(), "digest": Digest::of(&tile.body).to_string(),
                }));
            }
            moment(PAUSE_MS).await;
        }
        self.note(&json!({"served": "end", "cycle": cycle, "questions": questions}));
        self
    }

    /// Cosigns what waits for it. What a killed server may or may not have stored is cosigned once
    /// more later: the first time stays.
    async fn cosign(&mut self, cycle: u64, service: &mut AuditServiceClient<Channel>) {
        for waiting in std::mem::take(&mut self.waiting) {
            let now = placet_server::Clock::now();
            let line = cosign(&waiting, WITNESS, &self.key, now).unwrap();
            let note = format!("{waiting}{line}");
            match service.add_cosignatures(AddCosignaturesRequest { note }).await {
                Ok(told) => {
                    let note = told.into_inner().checkpoint;
                    self.note(&json!({"served": "cosigned", "cycle": cycle, "note": note}));
                }
                Err(status) => {
                    let refused = [Code::FailedPrecondition, Code::InvalidArgument, Code::NotFound];
                    assert!(!refused.contains(&status.code()), "what was served: {status}");
                    self.waiting.push(waiting);
                }
            }
        }
    }

    fn note(&mut self, line: &Value) {
        self.record.line(line);
    }

    /// Some tile of a log of that size, the last of its row half of the time, and cut off somewhere
    /// now and then.
    fn any_tile(&mut self, size: u64) -> Option<TilePath> {
        let kind = *self.dice.one(&KINDS);
        let row: Vec<TilePath> = tiles(size).filter(|tile| tile.kind() == kind).collect();
        let last = *row.last()?;
        let tile = if self.dice.once_in(2) { last } else { *self.dice.one(&row) };
        if !self.dice.once_in(3) {
            return Some(tile);
        }
        let width = 1 + self.dice.below(u64::from(tile.width()));
        let width = u16::try_from(width).expect("a tile is no wider than 256");
        Some(TilePath::new(kind, tile.index(), width).expect("it is a part of one that there is"))
    }
}

/// What a note says, without its signatures.
fn text(note: &str) -> &str {
    note.rsplit_once("\n\n").map_or(note, |(text, _)| text)
}

/// What the server says to a question under `/log/`; `None` if it died before it had said all.
async fn get(port: u16, path: &str) -> Option<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    // HTTP/1.0: the answer ends with the connection (RFC 1945 section 7.2.2).
    let question = format!("GET /log/{path} HTTP/1.0\r\n\r\n");
    stream.write_all(question.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..end]), answer[end + 4..].to_vec());
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // The end of the connection may be that of the server.
    let length: usize = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    })?;
    (body.len() == length).then_some(Answer { status, body })
}
