//! Downloads from a server of our own on loopback, that cuts, delays, redirects and lies as a test wants it.

use std::time::Duration;

use md5::{Digest as _, Md5};
use tempfile::TempDir;

use super::*;
use crate::Layout;
use crate::import::idx::tests::files as idx_files;
use crate::import::import_simply as import;

mod server;

use server::{Answer, Server};

fn contents() -> Vec<u8> {
    (0..300_000u64).map(|at| (at * at / 7) as u8).collect()
}

struct Fetched {
    result: Result<PathBuf>,
    cache: TempDir,
    asked: Vec<String>,
    troubles: Vec<String>,
}

impl Fetched {
    fn left(&self) -> Vec<String> {
        let entries = fs::read_dir(self.cache.path().join("small")).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn error(&self) -> String {
        format!("{:#}", self.result.as_ref().expect_err("no download"))
    }
}

/// Fetches a file of [`contents`] from a server with those `answers`; `before` is what an earlier download left.
fn fetch_with(answers: &[Answer], before: Option<&[u8]>) -> Fetched {
    let (contents, cache) = (contents(), tempfile::tempdir().expect("a temporary folder"));
    let md5: &'static str = base16ct::lower::encode_string(&Md5::digest(&contents)).leak();
    let file = OfficialFile { dataset: "small", url: "http://x/small.bin", bytes: contents.len() as u64, md5 };
    let server = Server::start(contents, answers);
    if let Some(part) = before {
        fs::create_dir(cache.path().join("small")).expect("a folder");
        fs::write(cache.path().join("small/small.bin.part"), part).expect("writing");
    }
    let mirror = Some(format!("{}/files/", server.address));
    let (patience, pause) = (Duration::from_millis(500), Duration::from_millis(1));
    let how = Fetch { mirror, patience, pause, tries: 3, ..Fetch::to(cache.path().to_owned()) };
    let mut troubles = Vec::new();
    let result = fetch_of(&[file], "small", &how, &mut |progress| troubles.extend(progress.trouble.clone()));
    Fetched { result, cache, asked: server.asked(), troubles }
}

#[track_caller]
fn arrives(answers: &[Answer], before: Option<&[u8]>, requests: usize) -> Fetched {
    let fetched = fetch_with(answers, before);
    let path = fetched.result.as_ref().expect("a download");
    assert!(fs::read(path).expect("reading") == contents());
    assert_eq!(fetched.left(), ["small.bin"]);
    assert_eq!(fetched.asked.len(), requests, "{:#?}", fetched.asked);
    fetched
}

#[test]
fn a_file_is_downloaded_and_named_by_its_address() {
    let fetched = arrives(&[], None, 1);
    assert!(fetched.asked[0].starts_with("GET /files/small.bin HTTP/1.1"));
    assert!(fetched.troubles.is_empty());
}

#[test]
fn cut_downloads_go_on_where_they_were_cut() {
    let fetched = arrives(&[Answer::Cut(100_000), Answer::Cut(50_000)], None, 3);
    let second = fetched.asked[1].to_ascii_lowercase();
    assert!(second.contains("range: bytes=") && second.contains("if-range: \"one\""), "{second}");
    assert!(fetched.asked[2].to_ascii_lowercase().contains("range: bytes=150000-"), "{}", fetched.asked[2]);
    assert_eq!(fetched.troubles.len(), 2);
    // What an earlier call has left is not asked for again.
    let fetched = arrives(&[], Some(&contents()[..200_000]), 1);
    assert!(fetched.asked[0].to_ascii_lowercase().contains("range: bytes=200000-"));
    arrives(&[], Some(&contents()), 0);
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again() {
    arrives(&[Answer::Cut(1000), Answer::NoRange], None, 2);
    arrives(&[Answer::WrongRange, Answer::Good], Some(&contents()[..10]), 2);
    arrives(&[Answer::Status(416), Answer::Good], Some(&contents()[..10]), 2);
}

#[test]
fn beginnings_of_another_file_are_given_up() {
    arrives(&[], Some(&[7; 1000]), 2);
    arrives(&[], Some(&[7; 300_001]), 1);
}

#[test]
fn redirects_are_followed() {
    let fetched = arrives(&[Answer::Redirect], None, 2);
    assert!(fetched.asked[1].starts_with("GET /moved/files/small.bin"));
    let fetched = fetch_with(&[Answer::Circle; 40], None);
    assert!(fetched.error().contains("redirects"), "{}", fetched.error());
}

#[test]
fn a_server_that_stumbles_or_sleeps_is_asked_again() {
    arrives(&[Answer::Status(503), Answer::Status(429)], None, 3);
    let fetched = arrives(&[Answer::Silent], None, 2);
    assert!(fetched.troubles[0].contains("timeout"), "{:?}", fetched.troubles);
}

#[test]
fn what_never_comes_is_given_up_and_kept() {
    let fetched = fetch_with(&[Answer::Cut(1000), Answer::Status(500), Answer::Status(500)], None);
    let error = fetched.error();
    assert!(error.contains("1000 of 300000 bytes") && error.contains("goes on from there"), "{error}");
    assert!(!fetched.result.as_ref().is_err_and(|error| error.is::<UserError>()));
    assert_eq!(fetched.left(), ["small.bin.part", "small.bin.part.etag"]);
    let fetched = fetch_with(&[Answer::Status(404)], None);
    assert!(fetched.error().contains("404") && fetched.error().contains("--mirror"), "{}", fetched.error());
    assert_eq!(fetched.asked.len(), 1);
}

#[test]
fn other_contents_are_refused_and_not_kept() {
    for (answer, part) in [
        (Answer::Other, "damaged, with MD5 "),
        (Answer::Longer, "the file is 300001 bytes; expected 300000, as published"),
        (Answer::Shorter, "the file is 299999 bytes"),
        (Answer::Endless, "the file is more than 300000 bytes"),
    ] {
        let fetched = fetch_with(&[answer; 2], None);
        let error = fetched.error();
        assert!(fetched.result.as_ref().is_err_and(|error| error.is::<UserError>()), "{error}");
        assert!(error.contains("/files/small.bin") && error.contains(part), "{error}");
        assert!(fetched.left().is_empty(), "{:?}", fetched.left());
    }
}

#[test]
fn what_is_there_is_compared_and_never_overwritten() -> Result<()> {
    let fetched = arrives(&[], None, 1);
    let path = fetched.result?;
    fs::write(&path, "mine")?;
    let file = OfficialFile { dataset: "small", url: "http://127.0.0.1:1/small.bin", bytes: 5, md5: "" };
    let how = Fetch::to(fetched.cache.path().to_owned());
    let error = fetch_of(&[file], "small", &how, &mut |_| {}).expect_err("other contents");
    let message = error.to_string();
    assert!(
        error.is::<UserError>() && message.contains("4 bytes; expected 5") && message.contains("rm '"),
        "{message}"
    );
    assert_eq!(fs::read(&path)?, b"mine");
    Ok(())
}

#[test]
fn two_downloads_do_not_mix() -> Result<()> {
    let cache = tempfile::tempdir()?;
    fs::create_dir(cache.path().join("cifar10"))?;
    let part = fs::File::create(cache.path().join("cifar10/cifar-10-binary.tar.gz.part"))?;
    part.lock()?;
    let error = fetch("cifar10", &Fetch::to(cache.path().to_owned()), &mut |_| {}).expect_err("under way");
    assert!(error.is::<UserError>() && error.to_string().contains("one under way"), "{error:#}");
    Ok(())
}

#[test]
fn unknown_data_sets_and_mirrors_are_refused() {
    let refuse = |dataset: &str, mirror: Option<&str>| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let how = Fetch { mirror: mirror.map(str::to_owned), ..Fetch::to(folder.path().to_owned()) };
        let error = fetch(dataset, &how, &mut |_| {}).expect_err("refused");
        assert!(error.is::<UserError>(), "{error:#}");
        error.to_string()
    };
    assert!(refuse("imagenet", None).contains("expected cifar10, cifar100, tiny-imagenet, fashion-mnist"));
    assert!(refuse("cifar10", Some("/mnt/mirror")).contains("begins with http:// or https://"));
}

/// From a server to a container: the four files of the MNIST family, one of them cut on its way.
#[test]
fn a_data_set_is_fetched_and_imported() -> Result<()> {
    let cache = tempfile::tempdir()?;
    let mut table = Vec::new();
    let mut servers = Vec::new();
    for (name, bytes) in idx_files() {
        let server = Server::start(bytes.clone(), &[Answer::Cut(bytes.len() / 2)]);
        let url: &'static str = format!("{}/{name}", server.address).leak();
        let md5: &'static str = base16ct::lower::encode_string(&Md5::digest(&bytes)).leak();
        table.push(OfficialFile { dataset: "fashion-mnist", url, bytes: bytes.len() as u64, md5 });
        servers.push(server);
    }
    let how = Fetch { pause: Duration::from_millis(1), ..Fetch::to(cache.path().to_owned()) };
    let from = fetch_of(&table, "fashion-mnist", &how, &mut |_| {})?;
    assert!(servers.iter().all(|server| server.asked().len() == 2));
    let summary = import("fashion-mnist", &from, &cache.path().join("out.h5"), &Layout::default())?;
    assert_eq!(summary.splits.iter().map(|part| part.samples).collect::<Vec<_>>(), [5, 2]);
    Ok(())
}

#[test]
fn the_table_is_well_formed() {
    for file in OFFICIAL {
        assert!(file.md5.len() == 32 && file.md5.bytes().all(|byte| b"0123456789abcdef".contains(&byte)), "{file:?}");
        assert!(file.url.starts_with("http") && file.bytes > 5000 && crate::DATASETS.contains(&file.dataset));
    }
    let names: std::collections::BTreeSet<_> = OFFICIAL.iter().map(|file| (file.dataset, file.name())).collect();
    assert_eq!(names.len(), OFFICIAL.len());
}
