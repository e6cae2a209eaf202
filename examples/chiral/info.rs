//! `chiral info`: what is known of a file, and who has which part of it.

use chiral::core::TransferError;
use chiral::core::coverage::Coverage;
use chiral::{FileMetadata, Link, ManifestHeader, Node, PeerOffer, Protocol};
use serde_json::json;

use super::arguments::Info;
use super::failure::{Exit, Failure, causes};
use super::output::Output;

pub(crate) async fn run(command: Info, output: &Output) -> Result<(), Failure> {
    let mut builder = Node::builder().http(command.web.settings()?);
    if let Some(directory) = &command.data_dir {
        builder = builder.data_dir(directory);
    }
    if let Some(network) = command.network.settings()? {
        builder = builder.libp2p(network);
    }
    let node = builder.start().await?;
    let result = look(&node, &command, output).await;
    let ended = node.shutdown().await;
    let metadata = result?;
    ended?;
    tell(output, &command.link, &metadata)
}

/// Asks the node and the peers. What contradicts the link is left out.
async fn look(node: &Node, command: &Info, output: &Output) -> Result<FileMetadata, Failure> {
    let link = &command.link;
    let mut known = node.metadata(link).await?;
    let mut refused = 0;
    for peer in &command.peers {
        let (header, offer) = match ask(node, link, peer).await {
            Ok(answer) => answer,
            Err(error) => {
                output.note(causes(&error));
                continue;
            }
        };
        // The first header holds, unless the link says otherwise.
        let agrees = match &known {
            Some(known) => known.header.root == header.root,
            None => belongs(link, &header),
        };
        if !agrees {
            refused += 1;
            output.note(format!("{peer} has another root or size for this cid"));
            continue;
        }
        let offers = known.take().map_or(Vec::new(), |known| known.offers);
        let offers = offers.into_iter().chain([offer]).collect();
        known = Some(FileMetadata::new(header, offers));
    }
    if let Some(known) = known {
        return Ok(known);
    }
    if refused > 0 {
        let message = "nobody's manifest belongs to the link";
        return Err(Failure::new(Exit::Refused, message)
            .next("look with the cid alone, and get the link again where you have it from"));
    }
    // A full link tells as much as a header does.
    match of_link(link) {
        Some(header) if command.peers.is_empty() => Ok(FileMetadata::new(header, Vec::new())),
        _ => Err(
            Failure::new(Exit::NoSource, format!("nothing is known of {}", link.cid))
                .next("name somebody who serves it with --peer URL, or a node of the network with --bootstrap MULTIADDR"),
        ),
    }
}

async fn ask(
    node: &Node,
    link: &Link,
    peer: &str,
) -> Result<(ManifestHeader, PeerOffer), TransferError> {
    let unknown = || TransferError::Unknown {
        target: link.cid.to_string(),
    };
    let endpoint = chiral::Endpoint::new(peer).map_err(|_| unknown())?;
    let http = node
        .manager()
        .implementation(&Protocol::Http)
        .map_err(|_| unknown())?;
    let source = http
        .connect(&PeerOffer::new(Protocol::Http, endpoint), &link.into())
        .await?;
    let header = source.manifest_header().await?.ok_or_else(unknown)?;
    let mut offer = source.offer().clone();
    offer.coverage = Some(source.coverage().await?);
    source.close().await;
    Ok((header, offer))
}

fn belongs(link: &Link, header: &ManifestHeader) -> bool {
    header.cid == link.cid
        && link.root.is_none_or(|root| root == header.root)
        && link.size.is_none_or(|size| size == header.size)
}

fn of_link(link: &Link) -> Option<ManifestHeader> {
    Some(ManifestHeader {
        size: link.size?,
        cid: link.cid,
        root: link.root?,
        name: link.name.clone(),
        mime: None,
        created_at: 0,
        aliases: Vec::new(),
    })
}

fn tell(output: &Output, link: &Link, metadata: &FileMetadata) -> Result<(), Failure> {
    let header = &metadata.header;
    // Nothing is downloaded, so nothing is proven: either the link says it or a stranger.
    let by = if link.root.is_some() {
        "link"
    } else {
        "seeder"
    };
    let mut view = metadata.to_json();
    if let Some(view) = view.as_object_mut() {
        view.insert("event".into(), json!("info"));
        view.insert("root_told_by".into(), json!(by));
    }
    output.event(&view)?;
    let layout = header
        .layout()
        .map_err(|e| Failure::new(Exit::Refused, e.to_string()))?;
    output.text(format!("cid     {}", header.cid))?;
    output.text(format!("root    {}  (told by the {by})", header.root))?;
    output.text(format!(
        "size    {} bytes, {} chunks",
        header.size,
        layout.count()
    ))?;
    // Names are strangers' hints, and terminals obey control characters.
    let hint = |text: &str| {
        text.chars()
            .map(|c| if c.is_control() { '?' } else { c })
            .collect()
    };
    let hint = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), hint);
    output.text(format!("name    {}", hint(&header.name)))?;
    output.text(format!("type    {}", hint(&header.mime)))?;
    output.text(format!("link    {}", header.link()))?;
    output.text(format!("seeders {}", metadata.offers.len()))?;
    for offer in &metadata.offers {
        let held = match &offer.coverage {
            Some(Coverage::Complete) => "all".to_owned(),
            Some(coverage) => format!("{} chunks", coverage.runs(layout).count()),
            None => "?".to_owned(),
        };
        let (protocol, place, price) = (&offer.protocol, &offer.endpoint, offer.price);
        output.text(format!(
            "  {held:<14} {protocol:<8} {place}  {price} per MiB"
        ))?;
    }
    Ok(())
}
