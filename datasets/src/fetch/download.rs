//! One file over HTTP: resumed after an interruption, compared with its size and checksum, and renamed when it is
//! complete.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use md5::{Digest as _, Md5};
use ureq::http::{Response, StatusCode, header};
use ureq::{Agent, Body};

use super::official::OfficialFile;
use super::options::{Fetch, Progress};
use crate::ground::error::UserError;
use crate::ground::regular::{in_words, open_regular};

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const OTHER_MIRROR: &str = "try again, name another place with --mirror, or download the file by hand and import it";

/// Why a try ended before the file was whole.
enum Stop {
    /// Trying again may help.
    Passing(anyhow::Error),
    /// It will not.
    Final(anyhow::Error),
}

/// Downloads `file` from `address` into `folder`, unless it is there; returns its path.
pub(super) fn whole(
    file: &OfficialFile,
    address: &str,
    folder: &Path,
    how: &Fetch,
    progress: &mut dyn FnMut(&Progress),
) -> Result<PathBuf> {
    let path = folder.join(file.name());
    if path.exists() {
        let hint = format!("remove it: rm '{}'", path.display());
        check(file, &path).map_err(|error| error.hint(hint))?;
        progress(&Progress { name: file.name(), done: file.bytes, total: file.bytes, trouble: None });
        return Ok(path);
    }
    let mut download = Download::begin(file, address, folder, how)?;
    let mut fresh = download.length()? == 0;
    loop {
        download.complete(progress)?;
        match check(file, &download.part) {
            Ok(()) => break,
            // The earlier part may be of another file: start again from the beginning.
            Err(_) if !fresh => {
                download.restart()?;
                fresh = true;
            }
            Err(error) => {
                download.discard();
                return Err(error.file(address).hint(OTHER_MIRROR).into());
            }
        }
    }
    download.output.sync_all()?;
    fs::rename(&download.part, &path).with_context(|| format!("renaming to {}", path.display()))?;
    let _ = fs::remove_file(&download.tag);
    Ok(path)
}

/// Compares the length and the checksum of the file at `path`.
fn check(file: &OfficialFile, path: &Path) -> Result<(), UserError> {
    let wrong = |value: String, expected: String| UserError::expected(expected).file(path).key("the file").value(value);
    let unreadable = |error: io::Error| wrong(in_words(&error), "a readable file".into());
    let mut input = open_regular(path).map_err(unreadable)?.take(file.bytes + 1);
    let (mut hash, mut bytes, mut length) = (Md5::new(), vec![0; 1 << 20], 0u64);
    loop {
        match input.read(&mut bytes).map_err(unreadable)? {
            0 => break,
            count => {
                hash.update(&bytes[..count]);
                length += count as u64;
            }
        }
    }
    if length != file.bytes {
        return Err(wrong(format!("{length} bytes"), format!("{}, as published", file.bytes)));
    }
    let found = base16ct::lower::encode_string(&hash.finalize());
    if found == file.md5 {
        Ok(())
    } else {
        Err(wrong(format!("damaged, with MD5 {found}"), format!("MD5 {}", file.md5)))
    }
}

/// A download under way.
struct Download<'a> {
    file: &'a OfficialFile,
    address: &'a str,
    how: &'a Fetch,
    agent: Agent,
    /// The file of the bytes so far, and the file with the server's name of that version.
    part: PathBuf,
    tag: PathBuf,
    output: File,
}

impl<'a> Download<'a> {
    fn begin(file: &'a OfficialFile, address: &'a str, folder: &Path, how: &'a Fetch) -> Result<Self> {
        let part = folder.join(format!("{}.part", file.name()));
        let tag = folder.join(format!("{}.part.etag", file.name()));
        let output = File::options().read(true).append(true).create(true).open(&part);
        let output = output.with_context(|| format!("writing {}", part.display()))?;
        // A file system without locks is no reason to stop.
        if let Err(TryLockError::WouldBlock) = output.try_lock() {
            let hint = "wait for it to end, or choose another folder with --cache";
            let error = UserError::expected("no other download of this file into the same folder");
            return Err(error.file(&part).value("one under way").hint(hint).into());
        }
        let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
        // Proxies are for other machines.
        let loopback =
            ["http://127.0.0.1", "http://localhost", "http://[::1]"].iter().any(|own| address.starts_with(own));
        let proxy = ureq::Proxy::try_from_env().filter(|_| !loopback);
        let agent = Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy)
            .http_status_as_error(false)
            .timeout_resolve(Some(how.patience))
            .timeout_connect(Some(how.patience))
            .timeout_recv_response(Some(how.patience))
            .timeout_per_read(Some(how.patience))
            .user_agent(concat!("iad-launch/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { file, address, how, agent, part, tag, output })
    }

    fn length(&self) -> Result<u64> {
        Ok(self.output.metadata()?.len())
    }

    fn restart(&mut self) -> Result<()> {
        let _ = fs::remove_file(&self.tag);
        self.output.set_len(0)?;
        self.output.seek(SeekFrom::Start(0))?;
        Ok(())
    }

    /// Leaves nothing behind that a later call could take for the beginning of the file.
    fn discard(&self) {
        let _ = fs::remove_file(&self.part);
        let _ = fs::remove_file(&self.tag);
    }

    /// Tries until all bytes are there.
    fn complete(&mut self, progress: &mut dyn FnMut(&Progress)) -> Result<()> {
        let (name, total) = (self.file.name(), self.file.bytes);
        let mut failures = 0;
        loop {
            let before = self.length()?;
            if before == total {
                return Ok(());
            }
            let error = match self.attempt(progress) {
                Ok(()) => continue,
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Passing(error)) => error,
            };
            let done = self.length()?;
            failures = if done > before { 1 } else { failures + 1 };
            if failures >= self.how.tries {
                let kept = "what has come is kept, and the same command goes on from there";
                return Err(error.context(format!("{}: {done} of {total} bytes; {kept}", self.address)));
            }
            progress(&Progress { name, done, total, trouble: Some(format!("{error:#}")) });
            thread::sleep(self.how.pause.saturating_mul(1 << (failures - 1).min(10)).min(LONGEST_PAUSE));
        }
    }

    /// One request, and its outcome.
    fn attempt(&mut self, progress: &mut dyn FnMut(&Progress)) -> Result<(), Stop> {
        let local = |error: io::Error| Stop::Final(anyhow!(error).context("writing the download"));
        let mut have = self.length().map_err(Stop::Final)?;
        if have > self.file.bytes {
            self.restart().map_err(Stop::Final)?;
            have = 0;
        }
        let mut request = self.agent.get(self.address);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
            if let Ok(tag) = fs::read_to_string(&self.tag) {
                request = request.header(header::IF_RANGE, tag);
            }
        }
        let response = request.call().map_err(|error| self.refused(error))?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT if goes_on(&response, have, self.file.bytes) => {}
            StatusCode::OK => self.begin_anew(&response)?,
            // The server has another version, or counts otherwise: from the beginning.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                self.restart().map_err(Stop::Final)?;
                return Err(Stop::Passing(anyhow!("the server does not go on where the download was cut")));
            }
            status if status.is_server_error() || [408, 425, 429].contains(&status.as_u16()) => {
                return Err(Stop::Passing(anyhow!("the server answers {status}")));
            }
            status => {
                let error = anyhow!("{}: the server answers {status}; {OTHER_MIRROR}", self.address);
                return Err(Stop::Final(error));
            }
        }
        let mut body = response.into_body().into_reader();
        let (name, total) = (self.file.name(), self.file.bytes);
        let (mut bytes, mut done) = (vec![0; 1 << 16], self.length().map_err(Stop::Final)?);
        loop {
            progress(&Progress { name, done, total, trouble: None });
            let count = match body.read(&mut bytes) {
                Ok(count) => count,
                Err(error) => return Err(Stop::Passing(anyhow!(error).context("the connection broke"))),
            };
            if count == 0 {
                break;
            }
            done += count as u64;
            if done > total {
                self.discard();
                return Err(Stop::Final(self.wrong_size(&format!("more than {total} bytes")).into()));
            }
            self.output.write_all(&bytes[..count]).map_err(local)?;
        }
        if done < total { Err(Stop::Passing(anyhow!("the server sent {done} of {total} bytes"))) } else { Ok(()) }
    }

    /// Takes a whole file from its beginning, and remembers its version for a later try.
    fn begin_anew(&mut self, response: &Response<Body>) -> Result<(), Stop> {
        self.restart().map_err(Stop::Final)?;
        if let Some(length) = response.body().content_length().filter(|&length| length != self.file.bytes) {
            self.discard();
            return Err(Stop::Final(self.wrong_size(&format!("{length} bytes")).into()));
        }
        // A weak tag does not promise equal bytes.
        let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
        if let Some(tag) = tag.filter(|tag| tag.starts_with('"')) {
            fs::write(&self.tag, tag).map_err(|error| Stop::Final(error.into()))?;
        }
        Ok(())
    }

    fn wrong_size(&self, found: &str) -> UserError {
        let expected = format!("{}, as published", self.file.bytes);
        UserError::expected(expected).file(self.address).key("the file").value(found).hint(OTHER_MIRROR)
    }

    /// The meaning of a request without an answer.
    fn refused(&self, error: ureq::Error) -> Stop {
        use ureq::Error::{BadUri, InvalidProxyUrl, RedirectFailed, RequireHttpsOnly, TooManyRedirects};
        let fatal =
            matches!(error, BadUri(_) | InvalidProxyUrl | RedirectFailed | RequireHttpsOnly(_) | TooManyRedirects);
        let error = anyhow!(error).context("no answer");
        if fatal { Stop::Final(error.context(self.address.to_owned())) } else { Stop::Passing(error) }
    }
}

/// Whether a partial answer begins at `have` and belongs to a file of `total` bytes.
fn goes_on(response: &Response<Body>, have: u64, total: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let parts = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('/'));
    parts.is_some_and(|(range, all)| {
        let first = range.split('-').next().and_then(|first| first.parse().ok());
        first == Some(have) && (all == "*" || all.parse() == Ok(total))
    })
}
