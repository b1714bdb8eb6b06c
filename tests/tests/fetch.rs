//! `iad-launch data fetch` against servers on loopback: what a person sees of a download that fails, and proxies.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tests::{Program, World};

/// Answers every request with `answer`, and tells its first line.
fn server(answer: &'static str) -> Result<(String, Receiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = String::new();
            let mut reader = BufReader::new(&stream);
            while reader.read_line(&mut request).is_ok_and(|count| count > 2) {}
            let _ = stream.write_all(answer.as_bytes());
            let _ = sender.send(request.lines().next().unwrap_or_default().to_owned());
        }
    });
    Ok((address, receiver))
}

#[test]
fn a_mirror_that_has_not_the_file_is_named() -> Result<()> {
    let world = World::new()?;
    let (cache, to) = (world.path("cache"), world.path("set.h5"));
    let fetch = |address: &str| {
        let mirror = format!("http://{address}/there");
        Program::alone()
            .args([
                "data",
                "fetch",
                "cifar10",
                "--mirror",
                &mirror,
                "--cache",
                &cache.display().to_string(),
                "--to",
                &to.display().to_string(),
            ])
            .run()
    };
    let (address, asked) = server("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
    fetch(&address)?.expect(1).expect_error(&["/there/cifar-10-binary.tar.gz", "404", "--mirror"]);
    assert_eq!(asked.recv()?, "GET /there/cifar-10-binary.tar.gz HTTP/1.1");
    let (address, _asked) = server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")?;
    fetch(&address)?.expect(2).expect_error(&["the file is 5 bytes", "170052171, as published"]);
    assert_eq!(fs::read_dir(cache.join("cifar10"))?.count(), 0, "something was left behind");
    assert!(!to.exists());
    fs::write(&to, "precious")?;
    fetch(&address)?.expect(2).expect_error(&["set.h5", "rm '"]);
    Program::alone().args(["data", "fetch", "imagenet"]).run()?.expect(2).expect_error(&[
        "imagenet",
        "tiny-imagenet",
        "data import",
    ]);
    Ok(())
}

#[test]
fn a_proxy_of_the_environment_is_used() -> Result<()> {
    let world = World::new()?;
    let (proxy, asked) = server("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")?;
    let program = Program::alone().args(["data", "fetch", "cifar10", "--mirror", "http://mirror.invalid", "--cache"]);
    let program = program.args([world.path("cache")]).args(["--to", &world.path("set.h5").display().to_string()]);
    let proxied = program.variable("http_proxy", &format!("http://{proxy}")).variable("no_proxy", "");
    let others = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY"];
    let running = others.into_iter().fold(proxied, Program::without).start()?;
    let first = asked.recv_timeout(Duration::from_secs(60)).context("nobody asked the proxy")?;
    assert!(first.contains("mirror.invalid"), "{first}");
    drop(running);
    Ok(())
}
