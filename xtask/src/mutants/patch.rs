//! One planted defect: its text form, and how it gets into a source file.
//!
//! Owns the format of `crates/faultsim/mutants/NAME.txt`: a rule, a sentence, perhaps the story of the simulator that is about it, and one or more edits that say
//! which text of which file is replaced by what.
//! An edit does not replace: it makes the program choose at run time, so that one build holds every defect and each run has at most one.
//! Invariant: the text to be replaced stands in its file exactly once, or the defect is refused; it is a whole expression or whole
//! statements, and so is what is planted.

use anyhow::{Context, Result, bail, ensure};

/// A defect that breaks a rule of `docs/safety-rules.md`.
#[derive(Debug, PartialEq, Eq)]
pub struct Mutant {
    /// Its name, that of its file.
    pub name: String,
    /// The rule that it breaks.
    pub rule: String,
    /// What the product then does wrong, in a sentence.
    pub what: String,
    /// The simulator's story of just that, which is played first.
    pub story: Option<String>,
    /// Where.
    pub edits: Vec<Edit>,
}

/// One text of one file, and what is planted in its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Edit {
    /// Path from the repository's root.
    pub file: String,
    instead_of: String,
    plant: String,
}

impl Mutant {
    /// Reads the text of the file called `name`.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let mut lines = text.lines().peekable();
        let mut field = |key: &str| -> Result<String> {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(key).and_then(|l| l.strip_prefix(": "));
            value.map(str::to_owned).with_context(|| format!("{name}: `{key}: ...` is missing"))
        };
        let (rule, what) = (field("rule")?, field("what")?);
        let story = lines.next_if(|line| line.starts_with("story: "));
        let story = story.and_then(|line| line.strip_prefix("story: ")).map(str::to_owned);
        let mut edits = Vec::new();
        while let Some(line) = lines.next() {
            let file = line.strip_prefix("file: ");
            let file = file.with_context(|| format!("{name}: `file: ...`, not {line:?}"))?;
            ensure!(lines.next() == Some("--- instead of"), "{name}: `--- instead of` is missing");
            let instead_of = until(&mut lines, "--- plant", name)?;
            let plant = until(&mut lines, "--- end", name)?;
            ensure!(!instead_of.is_empty(), "{name}: nothing to be replaced in {file}");
            edits.push(Edit { file: file.to_owned(), instead_of, plant });
        }
        ensure!(!edits.is_empty(), "{name}: no edit");
        Ok(Self { name: name.to_owned(), rule, what, story, edits })
    }
}

fn until<'a>(lines: &mut impl Iterator<Item = &'a str>, end: &str, name: &str) -> Result<String> {
    let mut kept = Vec::new();
    for line in lines {
        if line == end {
            return Ok(kept.join("\n"));
        }
        kept.push(line);
    }
    bail!("{name}: `{end}` is missing")
}

impl Edit {
    /// The file's text with a choice between what stands there and what is planted.
    pub fn apply(&self, name: &str, content: &str) -> Result<String> {
        let count = content.matches(&self.instead_of).count();
        let file = &self.file;
        ensure!(
            count == 1,
            "mutant {name}: the text to be replaced stands {count} times in {file}, not once: bring \
             crates/faultsim/mutants/{name}.txt up to date"
        );
        let choice = format!(
            "if crate::planted({name:?}) {{\n{}\n}} else {{\n{}\n}}",
            self.plant, self.instead_of
        );
        // A choice among expressions may stand inside a larger one.
        let is_statements = self.instead_of.ends_with([';', '}']);
        let choice = if is_statements { choice } else { format!("({choice})") };
        Ok(content.replacen(&self.instead_of, &choice, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "rule: F1\nwhat: A flush is skipped.\nfile: a.rs\n--- instead of\nflush()\n--- plant\nOk(())\n--- end\n";

    #[test]
    fn a_choice_is_put_where_the_text_stands() {
        let mutant = Mutant::parse("f1-skip", TEXT).expect("well formed");
        assert_eq!((mutant.rule.as_str(), mutant.what.as_str()), ("F1", "A flush is skipped."));
        let edited = mutant.edits[0].apply("f1-skip", "let a = flush();").expect("stands once");
        let expected = "let a = (if crate::planted(\"f1-skip\") {\nOk(())\n} else {\nflush()\n});";
        assert_eq!(edited, expected);
    }

    #[test]
    fn a_story_may_be_named() {
        let named = TEXT.replace("file: ", "story: flush-fails\nfile: ");
        let story = |text: &str| Mutant::parse("f1-skip", text).expect("well formed").story;
        assert_eq!(story(TEXT), None);
        assert_eq!(story(&named).as_deref(), Some("flush-fails"));
    }

    #[test]
    fn a_text_that_is_not_there_or_twice_is_refused() {
        let mutant = Mutant::parse("f1-skip", TEXT).expect("well formed");
        for content in ["", "flush(); flush();"] {
            let error = mutant.edits[0].apply("f1-skip", content).expect_err("not once");
            assert!(error.to_string().contains("f1-skip.txt"), "{error}");
        }
        let plant_is_missing = TEXT.replace("--- plant\n", "");
        for broken in ["", "rule: F1\n", "rule: F1\nwhat: x\n", plant_is_missing.as_str()] {
            assert!(Mutant::parse("f1-skip", broken).is_err(), "{broken:?}");
        }
    }
}
