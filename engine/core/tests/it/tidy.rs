//! What no other tool checks about the tree.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::sample::workspace;

const MAX_COLUMNS: usize = 100;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_FILE_LINES: usize = 1_000;
/// They say nothing of what a thing does.
const BANNED: [&str; 7] = ["manager", "handler", "helper", "util", "common", "misc", "info"];
const GENERATED: &str = "proto/src/generated/";

/// Files that git knows or would take, as paths from the root.
fn tree() -> Vec<String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace())
        .output()
        .expect("git is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let files: BTreeSet<_> = list.lines().map(str::to_owned).collect();
    // A file that was just deleted is still listed.
    files.into_iter().filter(|path| workspace().join(path).is_file()).collect()
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).expect("a file of the tree is readable")
}

fn sources() -> impl Iterator<Item = (String, String)> {
    let written = |path: &String| path.ends_with(".rs") && !path.starts_with(GENERATED);
    tree().into_iter().filter(written).map(|path| {
        let text = read(&path);
        (path, text)
    })
}

fn report(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn lines_are_short_and_ascii() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        // A snapshot repeats what a program printed, however wide.
        let mut in_snapshot = false;
        for (number, line) in (1..).zip(text.lines()) {
            let begins = line.ends_with("@r\"") || line.ends_with("@r#\"");
            let ends = matches!(line.trim(), "\");" | "\"#);");
            in_snapshot = begins || in_snapshot && !ends;
            let columns = line.chars().count();
            if columns > MAX_COLUMNS && !in_snapshot {
                problems.push(format!("{path}:{number}: {columns} columns"));
            }
            // The section sign stands in citations, such as RFC 6962 section numbers.
            if let Some(char) = line.chars().find(|char| !char.is_ascii() && *char != '\u{a7}') {
                problems.push(format!("{path}:{number}: `{}` is not ASCII", char.escape_unicode()));
            }
        }
    }
    report(&problems);
}

#[test]
fn functions_and_files_are_short() {
    let mut problems = Vec::new();
    for (path, text) in sources() {
        let tests =
            path.contains("/tests/") || path.contains("/benches/") || path.ends_with("tests.rs");
        let lines: Vec<_> = text.lines().collect();
        let code = lines.iter().position(|line| *line == "mod tests {").unwrap_or(lines.len());
        if !tests && code > MAX_FILE_LINES {
            problems.push(format!("{path}: {code} lines without its tests"));
        }
        for (at, length) in functions(&lines) {
            if length > MAX_FUNCTION_LINES {
                problems.push(format!("{path}:{}: a function of {length} lines", at + 1));
            }
        }
    }
    report(&problems);
}

/// First line (from 0) and length of every function. rustfmt closes one with a brace below its
/// first letter.
fn functions(lines: &[&str]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        if !words(code).take_while(|word| word.starts_with(char::is_alphabetic)).any(|w| w == "fn")
            || code.starts_with("//")
        {
            continue;
        }
        let indent = line.len() - code.len();
        let closing = format!("{}}}", " ".repeat(indent));
        let end = lines[at..].iter().position(|line| *line == closing);
        let declared = lines[at..].iter().position(|line| line.trim_end().ends_with(';'));
        match (end, declared) {
            // A declaration without a body, in a trait: it ends before any brace opens.
            (_, Some(last)) if !lines[at..=at + last].iter().any(|line| line.contains('{')) => {}
            (Some(last), _) => found.push((at, last + 1)),
            (None, _) => {}
        }
    }
    found
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty())
}

#[test]
fn names_say_something() {
    let defining =
        ["fn", "struct", "enum", "trait", "mod", "type", "const", "static", "let", "use"];
    let mut problems = Vec::new();
    for (path, text) in sources() {
        let stem = Path::new(&path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if is_banned(stem) {
            problems.push(format!("{path}: the file's name"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            let code = line.split("//").next().unwrap_or_default();
            let code = code.split('"').next().unwrap_or_default();
            let names: Vec<_> = words(code).collect();
            for pair in names.windows(2) {
                let name = if pair[0] == "mut" { continue } else { pair[1] };
                let defined = defining.contains(&pair[0]) && pair[0] != "use";
                if defined && is_banned(name) {
                    problems.push(format!("{path}:{number}: `{name}`"));
                }
            }
        }
    }
    report(&problems);
}

/// Whether a part of a snake_case or CamelCase name is a banned word.
fn is_banned(name: &str) -> bool {
    let mut snake = String::new();
    for char in name.chars() {
        if char.is_uppercase() {
            snake.push('_');
        }
        snake.extend(char.to_lowercase());
    }
    snake
        .split('_')
        .any(|part| BANNED.iter().any(|word| part.strip_suffix('s').unwrap_or(part) == *word))
}

#[test]
fn nothing_is_left_to_do_without_an_issue() {
    let mark = concat!("TO", "DO");
    let mut problems = Vec::new();
    for (path, text) in sources() {
        for (number, line) in (1..).zip(text.lines()) {
            let Some((_, rest)) = line.split_once(mark) else { continue };
            let numbered = rest
                .strip_prefix("(#")
                .is_some_and(|rest| rest.starts_with(|char: char| char.is_ascii_digit()));
            if !numbered {
                problems.push(format!("{path}:{number}: `{mark}` without `(#issue)`"));
            }
        }
    }
    report(&problems);
}

/// Targets of the links of a page, as paths from the root; links to other sites left out.
fn links(path: &str) -> Vec<String> {
    let folder = Path::new(path).parent().unwrap_or(Path::new(""));
    let text = read(path);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
    let local = targets.filter(|target| !target.is_empty() && !target.contains("://"));
    local.map(|target| normal(&folder.join(target))).collect()
}

fn normal(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.iter().filter_map(|part| part.to_str()) {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn every_page_is_linked_and_every_link_leads_somewhere() {
    let tree = tree();
    let pages: Vec<_> = tree.iter().filter(|path| path.ends_with(".md")).collect();
    let mut problems = Vec::new();
    let mut linked = BTreeSet::new();
    for page in &pages {
        for target in links(page) {
            if !workspace().join(&target).exists() {
                problems.push(format!("{page}: `{target}` does not exist"));
            }
            if target != **page {
                linked.insert(target);
            }
        }
    }
    for path in tree.iter().filter(|path| path.starts_with("engine/docs/")) {
        if !linked.contains(path) {
            problems.push(format!("{path}: no page links it"));
        }
    }
    report(&problems);
}
