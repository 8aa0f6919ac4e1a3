//! Rules for Markdown: a relative link leads to a file of the repository, and its `#part` to a
//! heading there. Links to other sites are not followed: a check must not depend on the network.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;

/// Checks the links of the Markdown file at `path`. `exists` knows the repository's files and
/// folders, `anchors_of` the headings of another Markdown file.
pub fn check(
    path: &str,
    content: &str,
    exists: impl Fn(&str) -> bool,
    anchors_of: impl Fn(&str) -> BTreeSet<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, target) in targets(content) {
        if is_elsewhere(&target) {
            continue;
        }
        let (file, part) = target.split_once('#').unwrap_or((&target, ""));
        let resolved = if file.is_empty() { Some(path.to_owned()) } else { resolve(path, file) };
        let Some(resolved) = resolved.filter(|p| exists(p)) else {
            findings.push(Finding::fatal(line, format!("dead link: {target}")));
            continue;
        };
        if part.is_empty() || !resolved.ends_with(".md") {
            continue;
        }
        let known = if resolved == path { anchors(content) } else { anchors_of(&resolved) };
        if !known.contains(part) {
            findings.push(Finding::fatal(line, format!("no such heading: {target}")));
        }
    }
    findings
}

/// The anchors of a Markdown file, made from its headings as forges make them.
pub fn anchors(content: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut anchors = BTreeSet::new();
    for (_, line) in prose(content) {
        let hashes = line.chars().take_while(|c| *c == '#').count();
        let Some(title) = line.get(hashes..).filter(|t| hashes > 0 && t.starts_with(' ')) else {
            continue;
        };
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let count = seen.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    anchors
}

/// The lines outside code blocks, with their numbers.
fn prose(content: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    content.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        (!in_code && !fence).then_some((index + 1, line))
    })
}

/// The targets of all links and images: `[text](target "title")` and `[name]: target`.
fn targets(content: &str) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    for (number, line) in prose(content) {
        let line = without_code(line);
        let mut rest = line.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let end = after.find(')').unwrap_or(after.len());
            targets.push((number, clean(&after[..end])));
            rest = &after[end..];
        }
        let definition = line.trim_start().strip_prefix('[').and_then(|l| l.split_once("]: "));
        if let Some((_, target)) = definition {
            targets.push((number, clean(target)));
        }
    }
    targets.retain(|(_, target)| !target.is_empty());
    targets
}

fn clean(target: &str) -> String {
    let first = target.split_whitespace().next().unwrap_or_default();
    first.trim_start_matches('<').trim_end_matches('>').to_owned()
}

/// The line with its `inline code` taken out.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

fn is_elsewhere(target: &str) -> bool {
    let scheme = target.split(['/', '#']).next().unwrap_or_default();
    scheme.contains(':')
}

/// The path from the root that a link in the file at `from` names; nothing if it leaves the root.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    if link.starts_with('/') {
        parts.clear();
    }
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}
