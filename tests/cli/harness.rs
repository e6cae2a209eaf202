//! Running the program: processes that never outlive their test, and waits that end.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Limit on every wait.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Events that a process may be ahead of its test.
const QUEUE: usize = 1 << 16;

/// The program, built as this test was.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // target/<profile>/deps/cli-…
        let this = std::env::current_exe().unwrap();
        let profile = this.parent().and_then(Path::parent).unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--workspace", "--all-features"]);
        build.args(["--example", "chiral", "--target-dir"]);
        build.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        // Build scripts look at what cargo says of the package under test: with that in its
        // environment this build would begin anew what is built already, and the next one again.
        for (name, _) in std::env::vars() {
            let of_package = [
                "CARGO_PKG_",
                "CARGO_MANIFEST_",
                "CARGO_CRATE_",
                "CARGO_BIN_",
            ];
            if of_package.iter().any(|prefix| name.starts_with(prefix)) {
                build.env_remove(name);
            }
        }
        assert!(
            build.status().unwrap().success(),
            "cannot build the program"
        );
        profile.join("examples").join("chiral")
    })
}

/// A command with these arguments, apart from the user's own files and settings.
pub(crate) fn chiral(home: &TempDir) -> Command {
    let mut command = Command::new(program());
    command
        .current_dir(home.path())
        .env("HOME", home.path())
        .env_remove("XDG_DATA_HOME")
        .env_remove("http_proxy")
        .env_remove("https_proxy")
        .env_remove("HTTPS_PROXY")
        .env_remove("all_proxy")
        .env_remove("ALL_PROXY")
        .env_remove("CHIRAL_LOG");
    command
}

/// A home for one test.
pub(crate) fn home() -> TempDir {
    tempfile::Builder::new()
        .prefix("chiral-cli-")
        .tempdir()
        .unwrap()
}

/// Writes a file of so many bytes, different for each `seed`.
pub(crate) fn file(path: &Path, size: usize, seed: u64) -> PathBuf {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    std::fs::write(path, bytes).unwrap();
    path.to_owned()
}

pub(crate) fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap()
}

/// What a command that ended by itself said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// Runs a command to its end.
pub(crate) fn run<S: AsRef<OsStr>>(
    mut command: Command,
    arguments: impl IntoIterator<Item = S>,
) -> Ended {
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Guard(command.spawn().unwrap());
    let out = collect(child.0.stdout.take().unwrap());
    let err = collect(child.0.stderr.take().unwrap());
    let status = child.wait();
    let text = |from: Receiver<Vec<u8>>| {
        String::from_utf8(from.recv_timeout(LIMIT).expect("its output goes on")).unwrap()
    };
    Ended {
        code: status.code().unwrap_or(-1),
        out: text(out),
        err: text(err),
    }
}

fn collect(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        let _ = sender.send(bytes);
    });
    receiver
}

/// A child that is killed if its test ends first.
struct Guard(Child);

impl Guard {
    fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < LIMIT, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command with `--json`, read event by event.
pub(crate) struct Running {
    child: Guard,
    events: Receiver<Value>,
}

impl Running {
    pub(crate) fn start<S: AsRef<OsStr>>(
        mut command: Command,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        command
            .arg("--json")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = Guard(command.spawn().unwrap());
        let out = BufReader::new(child.0.stdout.take().unwrap());
        let (sender, events) = sync_channel(QUEUE);
        std::thread::spawn(move || {
            for line in out.lines() {
                // A process that is killed may leave half a line.
                let Ok(line) = line else { return };
                let Ok(event) = serde_json::from_str(&line) else {
                    eprintln!("no JSON: {line}");
                    return;
                };
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Self { child, events }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// The next event; `None` once there are no more.
    pub(crate) fn next(&self) -> Option<Value> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.events.recv_timeout(LIMIT) {
            Ok(event) => Some(event),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("the process says nothing"),
        }
    }

    /// Waits for an event of this kind.
    pub(crate) fn until(&self, kind: &str) -> Value {
        loop {
            let event = self
                .next()
                .unwrap_or_else(|| panic!("ended without {kind}"));
            if event["event"] == kind {
                return event;
            }
        }
    }

    /// SIGKILL; answers what it had said before that nobody had read.
    pub(crate) fn kill(mut self) -> Vec<Value> {
        self.child.0.kill().unwrap();
        self.child.wait();
        self.rest()
    }

    /// A signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.id());
        assert!(
            Command::new("sh")
                .args(["-c", &kill])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the end; answers the exit status and the events not read before.
    pub(crate) fn end(mut self) -> (i32, Vec<Value>) {
        let rest = self.rest();
        (self.child.wait().code().unwrap_or(-1), rest)
    }

    fn rest(&self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// A seeder, serving one file at a port of its own.
pub(crate) struct Seeder {
    pub(crate) process: Running,
    pub(crate) link: String,
    pub(crate) cid: String,
    /// Where it serves, as `get --peer` takes it.
    pub(crate) peer: String,
}

impl Seeder {
    pub(crate) fn start(home: &TempDir, file: &Path, data: &str) -> Self {
        let data = home.path().join(data);
        let mut command = chiral(home);
        command
            .args(["share", "--http", "127.0.0.1:0", "--data-dir"])
            .arg(data);
        let process = Running::start(command, [file]);
        let shared = process.until("shared");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (link, cid) = (text(&shared["link"]), text(&shared["cid"]));
        let peer = text(&shared["peers"][0]);
        Self {
            process,
            link,
            cid,
            peer,
        }
    }
}
