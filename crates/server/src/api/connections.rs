//! The connections of the management socket.
//!
//! Owns accepting and ending them. Invariants: a client that closes its side behind a whole request (`nc -N`, a script) still gets its
//! answer; when the server has ended, no new one is taken and those that are there end with their request.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;

/// Pause after a connection that could not be taken: out of files or memory, most likely, and others may end.
const BREATH: Duration = Duration::from_millis(100);

/// Answers clients of `listener` with `router` until `ended`, and then until each has the answer it waits for.
pub async fn serve<F>(listener: UnixListener, router: Router, ended: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    let mut over = pin!(ended());
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    open.spawn(one(stream, router.clone(), ended()));
                }
                Err(_) => tokio::time::sleep(BREATH).await,
            },
            // Only clears away what is done.
            Some(_) = open.join_next() => {}
            () = &mut over => break,
        }
    }
    while open.join_next().await.is_some() {}
}

/// One connection. What goes wrong on it is its client's matter.
async fn one(stream: UnixStream, router: Router, ended: impl Future<Output = ()>) {
    let service = TowerToHyperService::new(router);
    let connection =
        http1::Builder::new().half_close(true).serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = ended => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
