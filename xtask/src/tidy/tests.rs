//! The rules against small texts that break them one by one, and against texts that only seem to.

use std::collections::BTreeSet;

use super::source::{Function, Source};
use super::{Files, Finding, links, rust, text};

fn fatal(findings: &[Finding]) -> Vec<usize> {
    findings.iter().filter(|f| f.fatal).map(|f| f.line).collect()
}

fn rust_errors(path: &str, body: &str) -> Vec<usize> {
    fatal(&rust::check(path, &format!("//! Header.\n{body}")))
}

#[test]
fn a_file_opens_with_its_header() {
    assert_eq!(fatal(&rust::check("a.rs", "// Not a header.\nfn f() {}\n")), [1]);
    assert_eq!(fatal(&rust::check("a.rs", "//! Owns f.\nfn f() {}\n")), [0_usize; 0]);
}

#[test]
fn unfinished_code_is_found_but_not_in_comments_or_literals() {
    assert_eq!(rust_errors("a.rs", "fn f() { todo!() }\n"), [2]);
    assert_eq!(rust_errors("a.rs", "fn f() { std::dbg!(1); }\n"), [2]);
    assert_eq!(rust_errors("a.rs", "fn f() { unimplemented!() }\n"), [2]);
    assert_eq!(rust_errors("a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n"), [3]);
    let innocent = "// todo!() is banned\nconst A: &str = \"todo!() dbg!(x) #[ignore]\";\n\
                    const B: &str = r#\"a \" dbg!() \"#;\nfn my_dbg() { my_dbg!() }\n";
    assert_eq!(rust_errors("a.rs", innocent), [0_usize; 0]);
}

#[test]
fn a_todo_names_its_issue() {
    assert_eq!(rust_errors("a.rs", "// TODO: later\n// TODO #12: later\n"), [2]);
    assert_eq!(rust_errors("a.rs", "/* FIXME */\nconst TODO: &str = \"TODO\";\n"), [2]);
}

#[test]
fn tests_do_not_sleep_unless_they_poll() {
    let sleep = "fn f() { std::thread::sleep(D); }\n";
    assert_eq!(rust_errors("crates/cli/tests/e2e.rs", sleep), [2]);
    assert_eq!(rust_errors("crates/cli/src/wait.rs", sleep), [0_usize; 0]);
    let inner = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n    {sleep}}}\n");
    assert_eq!(rust_errors("crates/cli/src/wait.rs", &inner), [5]);
    let polling = format!("// Poll again.\n{sleep}");
    assert_eq!(rust_errors("crates/cli/tests/e2e.rs", &polling), [0_usize; 0]);
}

#[test]
fn unsafe_stays_in_its_homes() {
    let body = "// unsafe here\n#![deny(unsafe_code)]\nfn f() { unsafe { g() } }\n";
    assert_eq!(rust_errors("crates/engine/src/a.rs", body), [4]);
    assert_eq!(rust_errors("crates/parity/src/a.rs", body), [0_usize; 0]);
}

#[test]
fn long_files_fail_and_long_code_warns() {
    assert_eq!(rust_errors("a.rs", &"\n".repeat(599)), [0_usize; 0]);
    assert_eq!(rust_errors("a.rs", &"\n".repeat(600)), [0]);
    let warnings = |code: usize, path: &str| {
        let body = format!("//! Header.\n{}", "use a;\n".repeat(code));
        rust::check(path, &body).iter().filter(|f| !f.fatal).count()
    };
    assert_eq!(warnings(400, "a.rs"), 0);
    assert_eq!(warnings(401, "a.rs"), 1);
    assert_eq!(warnings(500, "a/tests.rs"), 0);
}

#[test]
fn test_modules_and_comments_do_not_count_as_code() {
    let body = format!(
        "//! Header.\n{}{}#[cfg(test)]\nmod tests {{\n{}}}\n",
        "use a;\n".repeat(390),
        "// Why.\n".repeat(50),
        "use b;\n".repeat(100)
    );
    assert!(rust::check("a.rs", &body).is_empty());
}

#[test]
fn long_functions_warn_then_fail() {
    let function =
        |lines: usize| format!("//! H.\nfn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    assert!(rust::check("a.rs", &function(70)).is_empty());
    let at_71 = rust::check("a.rs", &function(71));
    assert_eq!((at_71.len(), at_71[0].fatal, at_71[0].line), (1, false, 2));
    assert_eq!(fatal(&rust::check("a.rs", &function(100))), [0_usize; 0]);
    assert_eq!(fatal(&rust::check("a.rs", &function(101))), [2]);
}

#[test]
fn braces_in_literals_do_not_end_a_function() {
    let text = "fn a<'x>(s: &'x str, n: [u8; 4]) -> char {\n    let c = '}';\n    let q = '\\'';\n    \
                let s = \"}\\\"}\";\n    let r = br##\"}\"# }\"##; // }\n    /* } /* } */ } */\n}\n\
                trait T {\n    fn declared(&self);\n    fn given(&self) {}\n}\nstatic P: fn(u8) = p;\n";
    let names = |name: &str, lines| Function { name: name.to_owned(), lines };
    assert_eq!(Source::new(text).functions(), [names("a", 1..=7), names("given", 10..=10)]);
}

#[test]
fn a_test_module_in_another_file_has_no_lines_here() {
    let source = Source::new("#[cfg(test)]\nmod tests;\nfn f() {\n}\n");
    assert!(source.test_modules().is_empty());
    let source = Source::new("fn f() {}\n#[cfg(test)]\nmod tests {\n}\n");
    assert_eq!(source.test_modules(), [2..=4]);
}

#[test]
fn blanks_tabs_and_line_ends() {
    assert!(text::check("a\n\nb\n").is_empty());
    assert_eq!(fatal(&text::check("a \nb\tc\nd\r\ne\n")), [1, 2, 3]);
    assert_eq!(fatal(&text::check("a\nb")), [2]);
    assert!(text::is_text("docs/a.md") && text::is_text(".ci/run"));
    assert!(!text::is_text("Cargo.lock") && !text::is_text("fuzz/seeds/label/valid"));
}

#[test]
fn links_lead_somewhere() {
    let exists = |p: &str| ["README.md", "docs", "docs/a.md", "docs/b.md"].contains(&p);
    let anchors = |p: &str| {
        assert_eq!(p, "docs/b.md");
        links::anchors("# The B\n## Twice\n## Twice\n```\n# not one\n```\n")
    };
    let check = |content: &str| fatal(&links::check("docs/a.md", content, exists, anchors));
    let live = "[b](b.md) [r](../README.md) [d](/docs) [i](https://x.org/y) [m](mailto:a@b)\n\
                [h](b.md#the-b) [t](b.md#twice-1) [own](#here) <!-- -->\n# Here\n[n]: b.md\n";
    assert_eq!(check(live), [0_usize; 0]);
    let code = "`[c](gone.md)` text\n```\n[c](gone.md)\n```\n";
    assert_eq!(check(code), [0_usize; 0]);
    let dead = "[x](gone.md)\n[x](../../out.md) [y](b.md)\n[x](b.md#not-one)\n[x](#there)\n\
                [n]: gone.md \"title\"\n![p](p.png)\n";
    assert_eq!(check(dead), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn folders_exist_through_their_files() {
    let paths = ["docs/a.md", "docs-old/b.md"].map(str::to_owned);
    let files = Files(BTreeSet::from(paths));
    assert!(files.exists("docs") && files.exists("docs/a.md") && files.exists(""));
    assert!(!files.exists("doc") && !files.exists("docs/a") && !files.exists("src"));
}
