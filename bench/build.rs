//! Looks for ISA-L, the peer of the parity bench, and links it where it is found.
//!
//! Asks the C compiler where its library is, so that any distribution's folders will do. Sets the configuration `isal`; without
//! it the bench says aloud that this peer is missing.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(isal)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CC");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let found = Command::new(compiler).arg("-print-file-name=libisal.so").output();
    // The compiler repeats the bare name of what it does not find.
    let Ok(output) = found else { return };
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let path = Path::new(&text);
    if path.is_absolute() && path.exists() {
        let folder = path.parent().expect("a file has a folder");
        println!("cargo::rustc-link-search=native={}", folder.display());
        println!("cargo::rustc-link-lib=dylib=isal");
        println!("cargo::rerun-if-changed={text}");
        println!("cargo::rustc-cfg=isal");
    }
}
