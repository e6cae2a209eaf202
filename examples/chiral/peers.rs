//! `chiral peers`: who is demoted or banned, why, until when; and taking that back.

use std::time::{SystemTime, UNIX_EPOCH};

use chiral::{Node, PenaltyStatus};
use serde_json::json;

use super::account::default_directory;
use super::arguments::Peers;
use super::failure::Failure;
use super::output::Output;

pub(crate) async fn run(command: Peers, output: &Output) -> Result<(), Failure> {
    let directory = match &command.data_dir {
        Some(directory) => directory.clone(),
        None => default_directory()?,
    };
    let node = Node::builder().data_dir(directory).start().await?;
    let told = look(&node, &command, output);
    let ended = node.shutdown().await;
    told?;
    Ok(ended?)
}

fn look(node: &Node, command: &Peers, output: &Output) -> Result<(), Failure> {
    let peers = node.peers();
    let mut cleared: usize = command.clear.iter().map(|who| peers.clear(who)).sum();
    if command.clear_all {
        cleared += peers.clear_all();
    }
    if command.clear_all || !command.clear.is_empty() {
        output.text(format!("{cleared} cleared"))?;
        output.event(&json!({ "event": "cleared", "count": cleared }))?;
    }
    let penalties: Vec<PenaltyStatus> = peers.penalties().iter().map(Into::into).collect();
    if penalties.is_empty() {
        output.text("nobody is banned or demoted")?;
    }
    // A clock before 1970 makes them last longer, to the eye.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    for penalty in &penalties {
        let who = penalty.peer.as_deref().unwrap_or("-");
        let left = penalty.until.saturating_sub(now);
        output.text(format!(
            "{:<8} {}  {}  {who}\n         for {:02}:{:02}:{:02} more: {}",
            penalty.kind,
            penalty.protocol,
            penalty.endpoint,
            left / 3600,
            left / 60 % 60,
            left % 60,
            penalty.reason,
        ))?;
        output.event(&json!({ "event": "penalty", "penalty": penalty }))?;
    }
    Ok(())
}
