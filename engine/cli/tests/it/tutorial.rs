//! The tutorial of `policies/README.md`, command by command: what it prints is what comes out.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::server::{READY, VARIABLES, root};

/// The heading of the tutorial, which goes on until the next of its rank.
const HEADING: &str = "## From an auditor's sentence to an enforced policy\n";
/// Stands for any text in a line, and alone for any lines.
const ANYTHING: &str = "...";

/// What a reader of the tutorial does.
#[derive(Debug)]
enum Step {
    /// Writes a file.
    Write { path: String, text: String },
    /// Types a command, and sees these lines.
    Run { command: String, expected: Vec<String> },
}

/// The steps of a text in Markdown. A block is a dialogue with a shell, or a file whose path stands
/// in backticks at the end of the line before it.
fn steps(markdown: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut before = "";
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            before = if line.is_empty() { before } else { line };
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if language == "console" {
            dialogue(&block, &mut steps);
            continue;
        }
        let path = before.strip_suffix("`:").and_then(|before| before.rsplit('`').next());
        let path = path.unwrap_or_else(|| panic!("no file is named before a block: {before}"));
        steps.push(Step::Write { path: path.to_owned(), text: block.join("\n") + "\n" });
    }
    steps
}

fn dialogue(block: &[&str], steps: &mut Vec<Step>) {
    for line in block {
        if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step::Run { command: command.to_owned(), expected: Vec::new() });
            continue;
        }
        let Some(Step::Run { command, expected }) = steps.last_mut() else {
            panic!("output before any command: {line}");
        };
        match line.strip_prefix("> ") {
            Some(more) => *command = format!("{command}\n{more}"),
            None => expected.push((*line).to_owned()),
        }
    }
}

/// Whether lines are as they are told.
fn fits(expected: &[String], found: &[&str]) -> bool {
    match (expected.split_first(), found.split_first()) {
        (None, found) => found.is_none(),
        (Some((any, rest)), found_first) if any == ANYTHING => {
            fits(rest, found) || found_first.is_some_and(|(_, later)| fits(expected, later))
        }
        (Some((line, rest)), Some((first, later))) => line_fits(line, first) && fits(rest, later),
        (Some(_), None) => false,
    }
}

fn line_fits(expected: &str, found: &str) -> bool {
    let (expected, mut found) = (expected.trim_end(), found.trim_end());
    let mut parts = expected.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(rest) = found.strip_prefix(first) else { return false };
    found = rest;
    let mut open = false;
    for part in parts {
        open = part.is_empty();
        let Some((_, rest)) = found.split_once(part) else { return false };
        found = rest;
    }
    open || found.is_empty()
}

/// Somebody who follows the tutorial in a directory.
struct Reader {
    directory: PathBuf,
    server: Option<(Child, BufReader<ChildStderr>)>,
    url: String,
    /// How the last command ended.
    code: i32,
}

impl Reader {
    fn new(directory: &Path) -> Self {
        let url = "http://127.0.0.1:1".into();
        Self { directory: directory.to_owned(), server: None, url, code: 0 }
    }

    /// A shell in the directory, that finds the binary by its name.
    fn shell(&self, script: &str) -> Command {
        let binary = Path::new(env!("CARGO_BIN_EXE_placet")).parent().unwrap();
        let mut path = binary.as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        for variable in VARIABLES {
            shell.env_remove(variable);
        }
        shell.args(["-c", script]).current_dir(&self.directory).stdin(Stdio::null());
        // The server's addresses are any that are free, and its clients know where it is.
        shell.env("PLACET_LISTEN", "127.0.0.1:0").env("PLACET_HTTP", "127.0.0.1:0");
        shell.env("PLACET_SERVER", &self.url).env("PATH", path);
        shell
    }

    /// Types a command; what a terminal would show.
    fn types(&mut self, command: &str) -> String {
        if let Some(server) = command.strip_suffix(" &") {
            return self.starts(server);
        }
        if command == "kill %1" {
            // Its last words need somebody who listens.
            let (mut server, _stderr) = self.server.take().unwrap();
            let id = server.id().to_string();
            assert!(Command::new("kill").arg(id).status().unwrap().success());
            assert_eq!(server.wait().unwrap().code(), Some(0));
            return String::new();
        }
        let script = format!("exec 2>&1\n(exit {})\n{command}", self.code);
        let output = self.shell(&script).output().unwrap();
        self.code = output.status.code().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a server, and waits until it says where it answers.
    fn starts(&mut self, command: &str) -> String {
        let mut shell = self.shell(&format!("exec {command}"));
        let mut child = shell.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (_, stderr) = self.server.insert((child, BufReader::new(stderr)));
        let (mut shown, mut line) = (String::new(), String::new());
        while !line.starts_with(READY) {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it did not start:\n{shown}");
            shown.push_str(&line);
        }
        let address = line.strip_prefix(READY).and_then(|rest| rest.split(' ').next()).unwrap();
        self.url = format!("http://{address}");
        shown
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some((mut server, mut stderr)) = self.server.take() {
            drop(server.kill());
            drop(server.wait());
            let mut rest = String::new();
            drop(stderr.read_to_string(&mut rest));
        }
    }
}

#[test]
fn the_tutorial_works_command_by_command() {
    let readme = std::fs::read_to_string(root().join("policies/README.md")).unwrap();
    let (_, tutorial) = readme.split_once(HEADING).unwrap();
    let tutorial = tutorial.split("\n## ").next().unwrap();
    let steps = steps(tutorial);
    let commands = steps.iter().filter(|step| matches!(step, Step::Run { .. })).count();
    assert!(commands >= 15 && steps.len() >= commands + 4, "{steps:#?}");
    let directory = tempfile::tempdir().unwrap();
    let mut reader = Reader::new(directory.path());
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Write { path, text } => {
                // Each file is one of the scaffold, which the reader edits.
                let path = directory.path().join(path);
                assert!(path.is_file(), "{} is not there", path.display());
                std::fs::write(path, text).unwrap();
            }
            Step::Run { command, expected } => {
                let shown = reader.types(command);
                let found: Vec<&str> = shown.lines().collect();
                let fits = fits(expected, &found);
                assert!(fits, "$ {command}\n{shown}\n--- told\n{}", expected.join("\n"));
                let asked = matches!(steps.get(at + 1),
                    Some(Step::Run { command, .. }) if command == "echo $?");
                assert!(reader.code == 0 || asked, "$ {command}: {}\n{shown}", reader.code);
            }
        }
    }
    assert!(reader.server.is_none(), "the tutorial stops the server");
}

#[test]
fn what_is_told_is_compared() {
    let told = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (expected, found) in [
        ("a\n...\nb", "a\nx\ny\nb"),
        ("...", ""),
        ("...\nb\n...", "b"),
        ("a ... c", "a b c"),
        ("dec-...", "dec-12"),
        ("a", "a  "),
    ] {
        assert!(fits(&told(expected), &found.lines().collect::<Vec<_>>()), "{expected}");
    }
    for (expected, found) in [
        ("", "a"),
        ("a", ""),
        ("a", "ab"),
        ("a\n...\nb", "a\nx"),
        ("a ... c", "a b d"),
        ("a...b", "b"),
        ("...\nb", "b\nc"),
    ] {
        assert!(!fits(&told(expected), &found.lines().collect::<Vec<_>>()), "{expected}");
    }
}
