//! A blocking client of the management API.
//!
//! Owns one small runtime and makes a new connection for each request: commands are rare, and a server that was
//! restarted in between is no matter. An answer that is no success becomes an error with the server's own words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use forestall_server::api::types::ErrorBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Longest that anything but waiting commands may take before the server counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where requests go.
pub struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// A client of the server at `socket`; connects with the first request.
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// What `GET path` answers.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.request(Method::GET, path, Bytes::new(), Some(PATIENCE))
    }

    /// What `POST path` with `body` answers. Commands that move data out of the way may take as long as they need.
    pub fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        self.request(Method::POST, path, serde_json::to_vec(body)?.into(), None)
    }

    fn request<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Option<Duration>,
    ) -> Result<T> {
        let exchange = self.exchange(method, path, body);
        let (status, body) = self.runtime.block_on(async {
            match patience {
                None => exchange.await,
                Some(limit) => tokio::time::timeout(limit, exchange).await.unwrap_or_else(|_| {
                    let seconds = limit.as_secs();
                    Err(anyhow!(
                        "the server at {} gave no answer in {seconds} s",
                        self.socket.display()
                    ))
                }),
            }
        })?;
        if status.is_success() {
            return serde_json::from_slice(&body).with_context(|| {
                format!("the answer to {path} is not understood; is the server of another version?")
            });
        }
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(anyhow!(body.error)),
            Err(_) => Err(anyhow!("the server answered {status} to {path}")),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let socket = self.socket.display();
        let stream = UnixStream::connect(&self.socket).await.with_context(|| {
            format!("no server answers at {socket} (is `forestall serve` running? --socket names another)")
        })?;
        let lost = || format!("the server at {socket} went away before it answered");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(lost)?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let response = sender.send_request(request).await.with_context(lost)?;
        let status = response.status();
        let body = response.into_body().collect().await.with_context(lost)?.to_bytes();
        driver.abort();
        Ok((status, body))
    }
}
