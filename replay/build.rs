//! Tells the program its own commit. Outside of a checkout there is none, and the program says so.

use std::path::Path;
use std::process::Command;

fn main() {
    // A path that does not exist would run this again on every build.
    for path in ["../.git/logs/HEAD", "src"].into_iter().filter(|path| Path::new(path).exists()) {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) {
        let changes = git(&["--no-optional-locks", "status", "--porcelain", "--untracked-files=no"]);
        let dirty = if changes.is_none_or(|changes| changes.is_empty()) { "" } else { "+dirty" };
        println!("cargo::rustc-env=REPRISE_GIT_COMMIT={commit}{dirty}");
    }
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
