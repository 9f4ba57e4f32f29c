//! The only place that writes to standard output and standard error.
//!
//! Data goes to standard output, everything else to standard error. Colour is used only on a
//! terminal, and never if `NO_COLOR` is set (<https://no-color.org>).

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};

use crate::exit::Failure;

/// Width in columns that output must fit in if the terminal does not say its own.
const DEFAULT_WIDTH: u16 = 80;

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For a person
    #[default]
    Human,
    /// JSON, one object a line
    Json,
}

/// What a word stands for, and so which colour it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Bad,
    Warn,
    Strong,
}

impl Tone {
    /// The SGR parameter (ECMA-48 8.3.117).
    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Bad => "31",
            Self::Warn => "33",
            Self::Strong => "1",
        }
    }
}

/// Writes a command's output.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    out: BufWriter<Stdout>,
    colour_out: bool,
    colour_err: bool,
}

impl Printer {
    /// Writes in `format`, with colour where a terminal reads along.
    pub(crate) fn new(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            format,
            colour_out: wanted && io::stdout().is_terminal(),
            colour_err: wanted && io::stderr().is_terminal(),
            out: BufWriter::new(io::stdout()),
        }
    }

    /// Whether data is to be written as JSON.
    pub(crate) fn json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes lines of data.
    ///
    /// # Errors
    /// The reader is gone, or standard output cannot be written.
    pub(crate) fn data(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(|error| write_failure(&error))
    }

    /// Hands everything written so far to the reader.
    ///
    /// # Errors
    /// As [`Printer::data`].
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| write_failure(&error))
    }

    /// Writes lines that are no data: progress, warnings, summaries.
    #[expect(clippy::print_stderr, reason = "the one place that writes to standard error")]
    pub(crate) fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Writes why something failed, with the remedy below it.
    pub(crate) fn error(&self, message: &str) {
        if message.is_empty() {
            return;
        }
        let label = paint(self.colour_err, Tone::Bad, "error:");
        let mut lines = message.lines();
        self.note(&format!("{label} {}", lines.next().unwrap_or_default()));
        for line in lines {
            match line.strip_prefix("hint: ") {
                Some(hint) => self.hint(hint),
                None => self.note(line),
            }
        }
    }

    /// Writes a remedy or a next step.
    pub(crate) fn hint(&self, hint: &str) {
        self.note(&format!(" {} {hint}", paint(self.colour_err, Tone::Warn, "hint:")));
    }

    /// A word of data in its colour.
    pub(crate) fn tone(&self, tone: Tone, word: &str) -> String {
        paint(self.colour_out, tone, word)
    }
}

fn paint(colour: bool, tone: Tone, word: &str) -> String {
    if colour { format!("\u{1b}[{}m{word}\u{1b}[0m", tone.code()) } else { word.to_owned() }
}

fn write_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::reader_gone()
    } else {
        Failure::new(format!("cannot write standard output: {error}"))
    }
}

/// A table without borders that fits the terminal, or 80 columns.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = pairs();
    table.set_header(header);
    table
}

/// A table of names and values.
pub(crate) fn pairs() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(DEFAULT_WIDTH);
    }
    table
}

/// Text from outside, fit for a terminal: control characters are shown, not obeyed.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let shown = c.is_control() && c != '\n';
            let escaped = shown.then(|| c.escape_default().collect::<String>());
            escaped.unwrap_or_else(|| c.to_string()).chars().collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_cannot_move_the_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\u{7}"), "a\\u{1b}[2Jb\\u{7}");
        assert_eq!(plain("caf\u{e9}"), "caf\u{e9}");
    }

    #[test]
    fn a_table_fits_eighty_columns() {
        let mut table = table(["A", "B"]);
        table.add_row(["x".repeat(100), "y".repeat(100)]);
        assert!(table.trim_fmt().lines().all(|line| line.chars().count() <= 80));
    }
}
