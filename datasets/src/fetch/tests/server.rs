//! A server on loopback that answers as a test wants it.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// How the server answers one request for the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// As a server should, ranges and all.
    Good,
    /// The same, but the connection is cut after so many bytes.
    Cut(usize),
    /// The whole file, whatever range was asked for.
    NoRange,
    /// Another version of the file: its bytes are changed, and its tag.
    Other,
    /// The file with one byte more or less.
    Longer,
    Shorter,
    /// Bytes without a statement of their number, and one too many.
    Endless,
    /// A range that begins elsewhere.
    WrongRange,
    /// A status and nothing else.
    Status(u16),
    /// To the same path below `/moved`.
    Redirect,
    /// To itself, for ever.
    Circle,
    /// Half of the file, and then nothing without an end.
    Silent,
}

/// A server of one file.
pub(super) struct Server {
    pub(super) address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers requests in turn as `answers` says, and well after that.
    pub(super) fn start(contents: Vec<u8>, answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        let mut answers: VecDeque<_> = answers.iter().copied().collect();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut request = String::new();
                let mut reader = BufReader::new(&stream);
                while reader.read_line(&mut request).is_ok_and(|count| count > 2) {}
                log.lock().expect("no panic").push(request.clone());
                let answer = answers.pop_front().unwrap_or(Answer::Good);
                // A client that has heard enough hangs up.
                let _ = respond(stream, &request, &contents, answer);
            }
        });
        Self { address, asked }
    }

    /// The requests so far.
    pub(super) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }
}

fn respond(mut stream: TcpStream, request: &str, contents: &[u8], answer: Answer) -> std::io::Result<()> {
    let header = |name: &str| {
        request.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned))
    };
    let tag = header("if-range").is_none_or(|tag| tag == "\"one\"");
    let range =
        header("range").filter(|_| tag).and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let path = request.split(' ').nth(1).unwrap_or("/");
    let whole = |stream: &mut TcpStream, bytes: &[u8], tag: &str| {
        let length = bytes.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nETag: \"{tag}\"\r\nConnection: close\r\n\r\n")?;
        stream.write_all(bytes)
    };
    let plain = |stream: &mut TcpStream, head: &str| {
        write!(stream, "HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    };
    match answer {
        Answer::Good | Answer::Cut(_) => {
            let limit = if let Answer::Cut(limit) = answer { limit } else { contents.len() };
            let from: usize = range.unwrap_or(0);
            let rest = &contents[from.min(contents.len())..];
            if range.is_some() {
                let (last, all) = (contents.len() - 1, contents.len());
                write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{last}/{all}\r\n")?;
            } else {
                write!(stream, "HTTP/1.1 200 OK\r\n")?;
            }
            let length = rest.len();
            write!(stream, "Content-Length: {length}\r\nETag: \"one\"\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&rest[..limit.min(length)])
        }
        Answer::NoRange => whole(&mut stream, contents, "one"),
        Answer::Other => whole(&mut stream, &contents.iter().map(|byte| !byte).collect::<Vec<_>>(), "two"),
        Answer::Longer => whole(&mut stream, &[contents, &[0]].concat(), "one"),
        Answer::Shorter => whole(&mut stream, &contents[1..], "one"),
        Answer::Endless => {
            write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
            stream.write_all(&[contents, &[0]].concat())
        }
        Answer::WrongRange => {
            let all = contents.len();
            write!(stream, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-{}/{all}\r\n", all - 1)?;
            write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", all - 1)?;
            stream.write_all(&contents[1..])
        }
        Answer::Status(code) => plain(&mut stream, &format!("{code} As Asked")),
        Answer::Redirect => plain(&mut stream, &format!("302 Found\r\nLocation: /moved{path}")),
        Answer::Circle => plain(&mut stream, &format!("302 Found\r\nLocation: {path}")),
        Answer::Silent => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nETag: \"one\"\r\n\r\n", contents.len())?;
            stream.write_all(&contents[..contents.len() / 2])?;
            stream.flush()?;
            // Until the client gives up.
            std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
        }
    }
}
