use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

/// A thread with a runtime of its own, which serves on a port of loopback until this is dropped. Then every connection has
/// ended, too.
#[derive(Debug)]
pub(crate) struct Background {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    #[track_caller]
    pub(crate) fn serve<F: Future<Output = ()>>(
        serve: impl FnOnce(TcpListener) -> F + Send + 'static,
    ) -> Background {
        let (stop, stopped) = oneshot::channel();
        let (bound, address_bound) = mpsc::channel();
        let thread = thread::spawn(move || {
            runtime().block_on(async {
                let any_port = (Ipv4Addr::LOCALHOST, 0);
                let listener = TcpListener::bind(any_port).await.expect("some port is free");
                _ = bound.send(listener.local_addr().expect("a listener has an address"));
                tokio::select! {
                    () = serve(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        let address = address_bound.recv().expect("the thread tells where it listens");
        Background { address, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Dropping the sender stops the thread.
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// For one thread.
pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs only a few file descriptors")
}
