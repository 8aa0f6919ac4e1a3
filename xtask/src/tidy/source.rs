//! A Rust file taken apart just far enough for the rules: code, comments, functions, test modules.
//!
//! Not a parser. Comments and the insides of literals are blanked out of the code, so that braces
//! and words found there are real ones; everything keeps its line.

use std::ops::RangeInclusive;

/// The lines of a source file, code and comments apart. Lines are numbered from 1.
pub struct Source {
    code: Vec<String>,
    comments: Vec<String>,
}

/// A function with its body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// From the line of `fn` to the line of the closing brace.
    pub lines: RangeInclusive<usize>,
}

impl Source {
    /// Takes a file apart.
    pub fn new(text: &str) -> Self {
        let mut split = Splitter { code: String::new(), comments: String::new() };
        let chars: Vec<char> = text.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            at += split.step(&chars, at);
        }
        let lines = |s: String| s.lines().map(str::to_owned).collect();
        Self { code: lines(split.code), comments: lines(split.comments) }
    }

    /// Every line's code, with its number.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.iter().enumerate().map(|(i, line)| (i + 1, line.as_str()))
    }

    /// Every line's comment, with its number.
    pub fn comments(&self) -> impl Iterator<Item = (usize, &str)> {
        self.comments.iter().enumerate().map(|(i, line)| (i + 1, line.as_str()))
    }

    /// The comment on a line or on the line above it.
    pub fn comment_near(&self, line: usize) -> String {
        let first = line.saturating_sub(2);
        self.comments[first.min(self.comments.len())..line.min(self.comments.len())].join(" ")
    }

    /// Every function that has a body, inner functions too.
    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (number, line) in self.code() {
            for column in words(line, "fn") {
                let name: String = line[column + 2..]
                    .trim_start()
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                if name.is_empty() {
                    continue; // The type of a function pointer.
                }
                if let Some(end) = self.end_of_body(number, column) {
                    found.push(Function { name, lines: number..=end });
                }
            }
        }
        found
    }

    /// The lines of modules under `#[cfg(test)]`.
    pub fn test_modules(&self) -> Vec<RangeInclusive<usize>> {
        let starts = self.code().filter_map(|(n, line)| Some((n, line.find("#[cfg(test)]")?)));
        starts.filter_map(|(n, column)| Some(n..=self.end_of_body(n, column + 12)?)).collect()
    }

    /// The line that closes the first brace opened from there on; nothing if the item ends before.
    fn end_of_body(&self, line: usize, column: usize) -> Option<usize> {
        let mut nesting = 0_usize;
        let mut braces = 0_usize;
        for (number, text) in self.code().skip(line - 1) {
            let text = if number == line { &text[column..] } else { text };
            for c in text.chars() {
                match c {
                    '(' | '[' if braces == 0 => nesting += 1,
                    ')' | ']' if braces == 0 => nesting = nesting.saturating_sub(1),
                    ';' if braces == 0 && nesting == 0 => return None,
                    '{' => braces += 1,
                    '}' if braces <= 1 => return (braces == 1).then_some(number),
                    '}' => braces -= 1,
                    _ => {}
                }
            }
        }
        None
    }
}

/// The byte positions at which `word` stands as a word of its own.
pub fn words<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

struct Splitter {
    code: String,
    comments: String,
}

impl Splitter {
    /// Takes one token from `chars[at..]` and returns its length.
    fn step(&mut self, chars: &[char], at: usize) -> usize {
        let rest = &chars[at..];
        let inside_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
        match rest {
            ['/', '/', ..] => {
                let length = rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
                self.comment(&rest[..length])
            }
            ['/', '*', ..] => self.comment(&rest[..block_comment(rest)]),
            ['r', '"' | '#', ..] if !inside_word => self.raw_string(rest, 1),
            ['b' | 'c', 'r', '"' | '#', ..] if !inside_word => self.raw_string(rest, 2),
            ['"', ..] => self.literal(&rest[..quoted(rest, '"')]),
            ['\'', '\\', ..] => self.literal(&rest[..quoted(rest, '\'')]),
            ['\'', _, '\'', ..] => self.literal(&rest[..3]),
            [c, ..] => {
                self.push(*c, ' ');
                1
            }
            [] => 0,
        }
    }

    fn push(&mut self, code: char, comment: char) {
        let newline = code == '\n' || comment == '\n';
        self.code.push(if newline { '\n' } else { code });
        self.comments.push(if newline { '\n' } else { comment });
    }

    fn comment(&mut self, text: &[char]) -> usize {
        text.iter().for_each(|c| self.push(' ', *c));
        text.len()
    }

    /// Keeps the quotes, blanks what stands between them.
    fn literal(&mut self, text: &[char]) -> usize {
        for (i, c) in text.iter().enumerate() {
            let edge = i == 0 || i + 1 == text.len();
            self.push(if edge || *c == '\n' { *c } else { ' ' }, ' ');
        }
        text.len()
    }

    fn raw_string(&mut self, rest: &[char], prefix: usize) -> usize {
        let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
        let open = prefix + hashes;
        if rest.get(open) != Some(&'"') {
            self.push(rest[0], ' '); // A raw identifier.
            return 1;
        }
        let mut end = open + 1;
        while end < rest.len() {
            let tail = &rest[end + 1..];
            if rest[end] == '"' && tail.len() >= hashes && tail[..hashes].iter().all(|c| *c == '#')
            {
                return self.literal(&rest[..end + 1 + hashes]);
            }
            end += 1;
        }
        self.literal(rest)
    }
}

/// The length of a block comment, which may hold others.
fn block_comment(text: &[char]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        match text[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] if depth == 1 => return at + 2,
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    text.len()
}

/// The length of a literal in quotes, in which a backslash hides the next character.
fn quoted(text: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}
