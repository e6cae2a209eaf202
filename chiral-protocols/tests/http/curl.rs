//! A client that nobody here wrote. Without `curl` these tests fail; they are not skipped.

use std::process::Output;

use chiral_core::ContentProtocol;

use crate::support::{content, loopback, path_of, seeder_with, soon};

async fn curl(arguments: &[&str]) -> Output {
    let arguments: Vec<_> = arguments.iter().map(|&a| a.to_owned()).collect();
    let run = tokio::task::spawn_blocking(move || {
        std::process::Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20"])
            .args(arguments)
            .output()
            .expect("curl must be installed")
    });
    let output = soon(run).await.unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    output
}

#[tokio::test]
async fn curl_gets_ranges_heads_resumes_and_names_files() {
    let bytes = content(3_000_000);
    let (node, _, target) = seeder_with(loopback(), &bytes, Some("a file.bin")).await;
    let url = format!("http://{}{}", node.local_addr().unwrap(), path_of(&target));
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let at_text = |name: &str| at(name).to_str().unwrap().to_owned();

    assert!(curl(&[&url]).await.stdout == bytes);
    assert!(curl(&["--range", "100-299", &url]).await.stdout == bytes[100..300]);
    assert!(curl(&["--range", "-7", &url]).await.stdout == bytes[bytes.len() - 7..]);

    let head = String::from_utf8(curl(&["--head", &url]).await.stdout).unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 3000000\r\n"));

    // Two URLs over one connection, and what was cut off is gone on with.
    std::fs::write(at("part"), &bytes[..1_234_567]).unwrap();
    let part = at_text("part");
    curl(&["--continue-at", "-", "--output", &part, &url]).await;
    assert!(std::fs::read(at("part")).unwrap() == bytes);

    let directory_text = directory.path().to_str().unwrap();
    curl(&["-O", "-J", "--output-dir", directory_text, &url]).await;
    assert!(std::fs::read(at("a file.bin")).unwrap() == bytes);

    let tags = at_text("etag");
    curl(&["--etag-save", &tags, "--output", &at_text("first"), &url]).await;
    let second = at_text("second");
    let form = "%{http_code} %{size_download} %{num_connects}";
    let args = [
        "--etag-compare",
        &tags,
        "--output",
        &second,
        "--write-out",
        form,
        &url,
    ];
    let report = String::from_utf8(curl(&args).await.stdout).unwrap();
    assert_eq!(report, "304 0 1");

    let args = [
        "--output",
        "/dev/null",
        "--write-out",
        "%{num_connects} ",
        &url,
        "-o",
        "/dev/null",
        &url,
    ];
    let report = String::from_utf8(curl(&args).await.stdout).unwrap();
    assert_eq!(report, "1 0 ", "the connection is kept");
    node.shutdown().await.unwrap();
}

#[tokio::test]
async fn curl_sends_its_request_target_as_it_is() {
    let bytes = content(10);
    let (node, _, target) = seeder_with(loopback(), &bytes, None).await;
    let base = format!("http://{}", node.local_addr().unwrap());
    let path = path_of(&target);
    for (path, code) in [
        (path.clone(), "200"),
        (format!("/file/../..{path}"), "404"),
        (format!("{path}/chunk/%30"), "404"),
        (format!("{path}/chunk/0"), "200"),
    ] {
        let url = format!("{base}{path}");
        let args = [
            "--path-as-is",
            "-o",
            "/dev/null",
            "--write-out",
            "%{http_code}",
            &url,
        ];
        assert_eq!(curl(&args).await.stdout, code.as_bytes(), "{path}");
    }
    node.shutdown().await.unwrap();
}
