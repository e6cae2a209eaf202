//! One HTTP request.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};

use super::Api;

/// A refusal before any JSON is read.
fn refusal(status: StatusCode, reason: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(reason.as_bytes())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

impl Api {
    /// Answers a request.
    pub(super) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        if !self.allows(request.uri(), request.headers()) {
            return Ok(refusal(StatusCode::FORBIDDEN, "invalid host\n"));
        }
        if request.method() != Method::POST {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "POST JSON-RPC here\n");
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
            return Ok(response);
        }
        if request.uri().path() != "/" {
            return Ok(refusal(StatusCode::NOT_FOUND, "JSON-RPC is at /\n"));
        }
        if !is_json(request.headers()) {
            let reason = "the content type must be application/json\n";
            return Ok(refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason));
        }
        // The semaphore is never closed.
        let _turn = self.turns.acquire().await;
        let body = Limited::new(request.into_body(), self.config.max_body_bytes).collect();
        let body = match tokio::time::timeout(self.config.body_timeout, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return Ok(refusal(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "the request is too long\n",
                ));
            }
            Ok(Err(_)) => return Ok(refusal(StatusCode::BAD_REQUEST, "the body broke off\n")),
            Err(_) => {
                return Ok(refusal(
                    StatusCode::REQUEST_TIMEOUT,
                    "the body is too slow\n",
                ));
            }
        };
        let answer = self.answer(&body).await;
        let status = if answer.is_some() {
            StatusCode::OK
        } else {
            StatusCode::NO_CONTENT
        };
        let mut response = Response::new(Full::new(answer.unwrap_or_default().into()));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        Ok(response)
    }

    /// Whether every name that the request has for this server is one of its own. A name of
    /// somebody else that leads here is DNS rebinding.
    fn allows(&self, target: &Uri, headers: &HeaderMap) -> bool {
        let mut named = 0;
        let hosts = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
        let target = target.authority().map(|authority| Some(authority.as_str()));
        let allowed = hosts.chain(target).all(|authority| {
            named += 1;
            authority.is_some_and(|authority| is_own(authority, &self.config.allowed_hosts))
        });
        allowed && named > 0
    }
}

/// Whether an authority (host and port) is an IP address, `localhost` or one of these.
fn is_own(authority: &str, allowed: &[String]) -> bool {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) => (host, port),
            None => return false,
        },
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    port_is_port
        && (host.parse::<std::net::IpAddr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || allowed.iter().any(|name| name.eq_ignore_ascii_case(host)))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(HeaderValue::to_str) else {
        return false;
    };
    let kind = value.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_its_own_are_taken() {
        let allowed = ["node.example".to_owned()];
        for own in [
            "127.0.0.1:8545",
            "127.0.0.1",
            "localhost",
            "LOCALHOST:1",
            "[::1]:8545",
            "[::1]",
            "10.0.0.7:80",
            "node.example:8545",
        ] {
            assert!(is_own(own, &allowed), "{own}");
        }
        for foreign in [
            "",
            "evil.example",
            "evil.example:8545",
            "127.0.0.1.evil.example",
            "localhost.evil",
            "[::1",
            "[evil]",
            "localhost:x",
            "x@localhost",
            "2130706433x",
        ] {
            assert!(!is_own(foreign, &allowed), "{foreign}");
        }
    }
}
