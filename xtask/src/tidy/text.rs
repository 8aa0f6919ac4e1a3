//! Rules for every text file: no tabs, no blanks at a line's end, Unix line ends, a last newline.

use super::Finding;

/// Which files are text that people edit. Others, such as seeds and images, are only weighed.
const EXTENSIONS: [&str; 14] =
    ["rs", "md", "toml", "sh", "py", "yml", "yaml", "json", "html", "js", "css", "c", "h", "txt"];

/// Whether the rules apply to the file.
pub fn is_text(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((_, extension)) => EXTENSIONS.contains(&extension) || name == ".gitignore",
        None => path == ".ci/run" || name.starts_with("LICENSE"),
    }
}

/// Checks one file's text.
pub fn check(content: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in content.split('\n').enumerate() {
        let number = index + 1;
        if line.ends_with('\r') {
            findings.push(Finding::fatal(number, "carriage return at the end of the line"));
        } else if line.ends_with([' ', '\t']) {
            findings.push(Finding::fatal(number, "blanks at the end of the line"));
        }
        if line.trim_end().contains('\t') {
            findings.push(Finding::fatal(number, "tab; indent with spaces"));
        }
    }
    if !content.is_empty() && !content.ends_with('\n') {
        findings.push(Finding::fatal(content.lines().count(), "no newline at the end of the file"));
    }
    findings
}
