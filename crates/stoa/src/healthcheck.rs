//! `stoa healthcheck`: is the server with these settings alive? For containers without curl.
//!
//! Alive and not ready: whoever asks kills what answers no, and a server with a full disk serves what it has.

use std::io;
use std::time::Duration;

use stoa_store::Places;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::command_socket::{get_over, read_answer};
use crate::config::{Config, Listen, ListenAddress};

const PATIENCE: Duration = Duration::from_secs(5);

/// Asks `/healthz`: over the command socket where there is one, else where the settings say that it is served.
///
/// # Errors
/// One line: what was asked, and what is wrong.
pub async fn healthcheck(config: &Config) -> Result<(), String> {
    let socket = Places::of(&config.store.dir).socket();
    let listen = config.server.admin_listen.as_ref().unwrap_or(&config.server.listen);
    let over_socket = match get_over(&socket, "/healthz").await {
        // None, or one that a server left behind on a disk that is read-only now.
        Err(error) if is_nobodys(&error) => None,
        answer => Some(answer),
    };
    let (asked, answer) = match listen {
        _ if let Some(answer) = over_socket => (socket.display().to_string(), answer),
        Listen::Unix(path) => (listen.to_string(), get_over(path, "/healthz").await),
        // It would have to know whom the certificate is for.
        Listen::Tcp(_)
            if config.server.admin_listen.is_none() && config.server.tls_cert.is_some() =>
        {
            return Err(format!(
                "there is no command socket at {}, and {listen} speaks TLS: is the server running? \
                 Where it can have no such socket, set server.admin-listen, which is then asked",
                socket.display()
            ));
        }
        Listen::Tcp(address) => {
            let address = reachable(address);
            (format!("http://{address}/healthz"), over_tcp(&address).await)
        }
    };
    match answer {
        Ok((200, _)) => Ok(()),
        Ok((code, body)) => Err(format!("{asked}: not well ({code}): {}", body.trim())),
        Err(error) => Err(format!("{asked}: {error}")),
    }
}

fn is_nobodys(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Where a server that listens on every address is found from its own machine.
fn reachable(listen: &ListenAddress) -> String {
    let host = match listen.host.as_str() {
        "" | "0.0.0.0" | "::" => "127.0.0.1",
        host => host,
    };
    ListenAddress { host: host.to_owned(), port: listen.port }.to_string()
}

async fn over_tcp(address: &str) -> io::Result<(u16, String)> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        read_answer(stream).await
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer within 5 s"))?
}
