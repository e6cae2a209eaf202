//! anvil, the development chain that somebody else wrote, as a process of its own.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A program from npm's `@foundry-rs`.
fn program(name: &str) -> PathBuf {
    let peers = std::env::var("CHIRAL_PEERS").expect("CHIRAL_PEERS has node_modules");
    let scope = PathBuf::from(peers).join("node_modules/@foundry-rs");
    let folders = std::fs::read_dir(&scope).unwrap();
    let found = folders
        .map(|entry| entry.unwrap().path().join("bin").join(name))
        .find(|path| path.is_file() && path.to_string_lossy().contains("-linux-"));
    found.unwrap_or_else(|| panic!("no {name} in {}", scope.display()))
}

pub(crate) struct Anvil {
    child: Child,
    pub(crate) url: String,
}

impl Anvil {
    /// With the rules and the id of the real chain, on a free port.
    pub(crate) fn start() -> Self {
        let arguments = ["--hardfork", "london", "--chain-id", "98765", "--port", "0"];
        let mut child = Command::new(program("anvil"))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("Listening on ").map(str::to_owned)
        });
        let url = format!("http://{}", address.expect("anvil listens"));
        // Whatever it prints later must not fill its pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    /// What cast answers.
    pub(crate) fn cast(&self, arguments: &[&str]) -> String {
        let output = Command::new(program("cast"))
            .args(arguments)
            .args(["--rpc-url", &self.url])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cast {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
