//! What the user sees: results and events on standard output, the rest on standard error.

use std::io::Write;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::failure::Failure;

/// For people, or for programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    /// Everything goes to standard error: standard output is for something else.
    beside: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            beside: false,
        }
    }

    /// The same, with nothing on standard output.
    pub(crate) fn beside_standard_output(mut self) -> Self {
        self.beside = true;
        self
    }

    /// A line for people; nothing in JSON.
    pub(crate) fn text(self, line: impl AsRef<str>) -> std::io::Result<()> {
        if self.json {
            Ok(())
        } else {
            self.print(line.as_ref())
        }
    }

    /// An event for programs; nothing for people.
    pub(crate) fn event(self, event: &impl Serialize) -> std::io::Result<()> {
        if self.json {
            self.print(&serde_json::to_string(event).map_err(std::io::Error::other)?)
        } else {
            Ok(())
        }
    }

    /// A bar for bytes, drawn on standard error if that is a terminal; hidden with JSON.
    pub(crate) fn bar(self, label: &str) -> ProgressBar {
        if self.json {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(0).with_prefix(label.to_owned());
        let template = "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
        // The template is right; otherwise the bar has its default looks.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }

    /// A remark on standard error.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        eprintln!("chiral: {}", text.as_ref());
    }

    /// Tells what went wrong; answers the exit status.
    pub(crate) fn fail(self, failure: &Failure) -> ExitCode {
        self.note(&failure.message);
        if let Some(next) = &failure.next {
            self.note(format!("to go on: {next}"));
        }
        let code = failure.exit as u8;
        let event = json!({
            "event": "error",
            "exit_status": code,
            "message": failure.message,
            "next": failure.next,
        });
        // Nobody may be reading; the exit status tells it, too.
        self.event(&event).unwrap_or_default();
        ExitCode::from(code)
    }

    /// Unlike `println!`, an error and not a panic when nobody reads any more.
    fn print(self, line: &str) -> std::io::Result<()> {
        if self.beside {
            return writeln!(std::io::stderr().lock(), "{line}");
        }
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }
}
