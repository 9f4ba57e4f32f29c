//! Adds an entry to the text of a manifest, and leaves every other byte of it alone.

/// The manifest with an entry at the end of its list of policies; none if that is no list with a
/// line of its own for each entry. The entry is indented as its template is: by two blanks.
pub(super) fn add(manifest: &str, entry: &str) -> Option<String> {
    let lines: Vec<&str> = manifest.split_inclusive('\n').collect();
    let key = lines.iter().position(|line| is_key(line))?;
    let below = || lines.iter().enumerate().skip(key + 1);
    let (_, first) = below().find(|(_, line)| is_content(line))?;
    let indent = depth(first);
    if !is_item(first) {
        return None;
    }
    let ends = |line: &str| depth(line) < indent || depth(line) == indent && !is_item(line);
    let end = below().find(|(_, line)| is_content(line) && ends(line));
    let end = end.map_or(lines.len(), |(at, _)| at);
    // Comments before what follows the list belong to that, if they are not deeper than the list.
    let inside = |line: &str| is_content(line) || is_comment(line) && depth(line) > indent;
    let last = below().take_while(|(at, _)| *at < end).filter(|(_, line)| inside(line)).last()?.0;
    let newline = if manifest.contains("\r\n") { "\r\n" } else { "\n" };
    let (before, after) = lines.split_at(last + 1);
    let mut text = before.concat();
    if !text.ends_with('\n') {
        text.push_str(newline);
    }
    for line in entry.lines() {
        let line = line.strip_prefix("  ").unwrap_or(line);
        text.push_str(&" ".repeat(indent));
        text.push_str(line);
        text.push_str(newline);
    }
    text.push_str(&after.concat());
    Some(text)
}

fn is_key(line: &str) -> bool {
    let rest = line.strip_prefix("policies:").map(str::trim);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn is_content(line: &str) -> bool {
    !line.trim().is_empty() && !is_comment(line)
}

fn is_item(line: &str) -> bool {
    let text = line.trim();
    text == "-" || text.starts_with("- ")
}

/// How many blanks a line begins with.
fn depth(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = "  - name: n\n    source: n.rego\n";

    #[test]
    fn the_entry_comes_last_and_the_rest_stays_as_it_is() {
        let manifest = "# m\nrevision: \"1\" # r\npolicies: # p\n  # first\n\n  - name: a\n    \
                        source: a.rego\n    # of a\n\n# of required\nrequired:\n  lease: [a]\n";
        let added = add(manifest, ENTRY).unwrap();
        let (before, after) = manifest.split_once("\n# of required").unwrap();
        assert_eq!(added, format!("{before}{ENTRY}\n# of required{after}"));
    }

    #[test]
    fn it_is_indented_as_the_others_are_and_ends_its_lines_as_they_do() {
        let added = add("policies:\r\n- name: a\r\n  source: a.rego\r\nrequired: {}", ENTRY);
        let expected = "policies:\r\n- name: a\r\n  source: a.rego\r\n- name: n\r\n  source: \
                        n.rego\r\nrequired: {}";
        assert_eq!(added.unwrap(), expected);
        let added = add("policies:\n    - {name: a, source: a.rego}", ENTRY).unwrap();
        let expected = "policies:\n    - {name: a, source: a.rego}\n    - name: n\n      source: \
                        n.rego\n";
        assert_eq!(added, expected);
    }

    #[test]
    fn what_is_no_list_of_lines_is_left_to_a_person() {
        for manifest in ["policies: []\n", "policies:\n  {}\n", "policies:\n", "a: 1\n", ""] {
            assert_eq!(add(manifest, ENTRY), None, "{manifest}");
        }
    }
}
