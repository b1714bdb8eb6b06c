//! Datagrams between the ranks of several nodes, to notice that a node or the network to it is gone when no connection says so.
//!
//! TCP takes minutes to give up a peer that has become silent, and MPI waits as long. Here every rank tells rank 0 each second
//! that it lives, and is answered. Who has been heard and then falls silent is given up, and the rank that notices ends; rank 0
//! tells the others before it does. A network that lets no datagrams through watches nothing and ends nothing.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use comm::Communicator;

use crate::rank_log::RankLog;
use crate::ranks::variable;
use crate::watch::end;

/// How long a rank may be silent, in seconds; 0 turns this off.
const LIMIT: &str = "IAD_LIVENESS_SECONDS";
const DEFAULT_LIMIT: u64 = 20;

const BEAT: Duration = Duration::from_secs(1);

/// Begins to watch where ranks are on more than one host. A collective call.
///
/// # Errors
/// A failure of the transport.
pub(crate) fn start(ranks: &dyn Communicator, log: &Arc<RankLog>) -> Result<()> {
    let limit = variable(LIMIT).and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_LIMIT);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok().filter(|_| limit > 0);
    let port = socket.as_ref().and_then(|socket| Some(socket.local_addr().ok()?.port()));
    // The word that tells this run's datagrams from those of others.
    let word = format!("{:016x}", RandomState::new().build_hasher().finish());
    let mut mine = vec![comm::host_name(), port.unwrap_or(0).to_string(), word];
    mine.extend(addresses().iter().map(ToString::to_string));
    let all = ranks.gather(&mine.join(" "))?;
    let all: Vec<Vec<&str>> = all.iter().map(|text| text.split(' ').collect()).collect();
    let hosts: Vec<String> = all.iter().map(|said| said[0].to_string()).collect();
    let leader_port = all[0][1].parse().unwrap_or(0);
    let (Some(socket), true) = (socket, leader_port > 0 && hosts.iter().any(|host| *host != hosts[0])) else {
        return Ok(());
    };
    let places = all[0][3..].iter().filter_map(|text| Some(SocketAddr::new(text.parse().ok()?, leader_port)));
    let watch = Watch {
        socket,
        word: all[0][2].to_string(),
        rank: ranks.rank(),
        hosts,
        leader: places.collect(),
        limit: Duration::from_secs(limit),
        log: Arc::clone(log),
    };
    thread::spawn(move || if watch.rank == 0 { watch.lead() } else { watch.follow() });
    Ok(())
}

struct Watch {
    socket: UdpSocket,
    word: String,
    rank: usize,
    hosts: Vec<String>,
    /// Where rank 0 may be reached.
    leader: Vec<SocketAddr>,
    limit: Duration,
    log: Arc<RankLog>,
}

impl Watch {
    /// Answers every rank, and gives up those that have fallen silent.
    fn lead(&self) {
        let mut silent = Silence::new(self.limit);
        let mut places = BTreeMap::new();
        loop {
            if let Some((said, from)) = self.receive(BEAT / 4)
                && let Ok(rank) = said.parse::<usize>()
                && rank < self.hosts.len()
            {
                silent.heard(rank, Instant::now());
                places.insert(rank, from);
                self.send("0", from);
            }
            if let Some(lost) = silent.lost(Instant::now()) {
                for place in places.values() {
                    self.send(&format!("lost {lost}"), *place);
                }
                self.give_up(lost);
            }
        }
    }

    /// Tells rank 0 of this one each second, and gives it up where it has answered and falls silent.
    fn follow(&self) {
        let mut silent = Silence::new(self.limit);
        let mut places = self.leader.clone();
        let began = Instant::now();
        let (mut next_beat, mut noted) = (began, false);
        loop {
            if Instant::now() >= next_beat {
                places.iter().for_each(|place| self.send(&self.rank.to_string(), *place));
                next_beat = Instant::now() + BEAT;
            }
            if let Some((said, from)) = self.receive(BEAT / 4) {
                silent.heard(0, Instant::now());
                places = vec![from];
                if let Some(lost) = said.strip_prefix("lost ").and_then(|rank| rank.parse().ok()) {
                    self.give_up(lost);
                }
            }
            if silent.lost(Instant::now()).is_some() {
                self.give_up(0);
            }
            if !noted && places.len() != 1 && began.elapsed() > self.limit {
                self.log.line("no answer from rank 0 to datagrams (UDP): a lost node will not be noticed by this rank");
                noted = true;
            }
        }
    }

    fn send(&self, text: &str, to: SocketAddr) {
        // What is lost is sent again, or missed: that is what this is for.
        let _ = self.socket.send_to(format!("{} {text}", self.word).as_bytes(), to);
    }

    /// A datagram of this run, if one comes in time.
    fn receive(&self, patience: Duration) -> Option<(String, SocketAddr)> {
        let _ = self.socket.set_read_timeout(Some(patience));
        let mut bytes = [0; 64];
        let began = Instant::now();
        let Ok((length, from)) = self.socket.recv_from(&mut bytes) else {
            // An error that comes at once must not turn this into a busy loop.
            thread::sleep(patience.saturating_sub(began.elapsed()));
            return None;
        };
        let text = std::str::from_utf8(&bytes[..length]).ok()?;
        Some((text.strip_prefix(&self.word)?.trim_start().to_string(), from))
    }

    fn give_up(&self, lost: usize) -> ! {
        let host = self.hosts.get(lost).map_or("", String::as_str);
        let seconds = self.limit.as_secs();
        end(
            &self.log,
            &format!("rank {lost} ({host}) has been silent for {seconds} s: its node, or the network to it, is gone"),
        )
    }
}

/// When each rank was last heard.
struct Silence {
    limit: Duration,
    heard: BTreeMap<usize, Instant>,
    looked: Option<Instant>,
}

impl Silence {
    fn new(limit: Duration) -> Self {
        Self { limit, heard: BTreeMap::new(), looked: None }
    }

    fn heard(&mut self, rank: usize, now: Instant) {
        self.heard.insert(rank, now);
    }

    /// A rank that was heard once and has been silent for too long by `now`. The time in which this process itself did not
    /// look, stopped or starved of its processor, is nobody's silence.
    fn lost(&mut self, now: Instant) -> Option<usize> {
        let slept = self.looked.map_or(Duration::ZERO, |looked| now - looked).saturating_sub(BEAT);
        self.looked = Some(now);
        if slept > Duration::ZERO {
            self.heard.values_mut().for_each(|heard| *heard = (*heard + slept).min(now));
        }
        self.heard.iter().find(|(_, heard)| now.duration_since(**heard) > self.limit).map(|(rank, _)| *rank)
    }
}

/// This host's IPv4 addresses, but for those that others have too.
fn addresses() -> Vec<Ipv4Addr> {
    local_addresses(&std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default())
}

/// The local addresses in the kernel's table of routes, where each stands above the word LOCAL.
fn local_addresses(table: &str) -> Vec<Ipv4Addr> {
    let mut found = vec![];
    let mut last = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn who_was_heard_and_falls_silent_is_lost() {
        let began = Instant::now();
        let mut silent = Silence::new(seconds(20));
        silent.heard(2, began);
        silent.heard(5, began);
        for second in 0..60 {
            let now = began + seconds(second);
            silent.heard(2, now);
            assert_eq!(silent.lost(now), (second > 20).then_some(5), "second {second}");
        }
        assert_eq!(Silence::new(seconds(20)).lost(began + seconds(100)), None, "nobody was ever heard");
    }

    #[test]
    fn the_own_sleep_is_nobodys_silence() {
        let began = Instant::now();
        let mut silent = Silence::new(seconds(20));
        silent.heard(5, began);
        assert_eq!(silent.lost(began + seconds(1)), None);
        assert_eq!(silent.lost(began + seconds(500)), None, "it woke up a moment ago");
        let lost: Vec<u64> = (501..560).filter(|&second| silent.lost(began + seconds(second)).is_some()).collect();
        // Two of its 20 s had passed: one before the sleep, and one that a look may always take.
        assert_eq!(lost.first(), Some(&519), "{lost:?}");
    }

    #[test]
    fn addresses_are_read_from_the_table_of_routes() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 10.77.0.0/24 2 0 2\n\
                     \u{20}       |-- 10.77.0.0\n           /24 link UNICAST\n        |-- 10.77.0.1\n           /32 host LOCAL\n\
                     \u{20}       |-- 10.77.0.255\n           /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n\
                     Local:\n        |-- 10.77.0.1\n           /32 host LOCAL\n";
        assert_eq!(local_addresses(table), [Ipv4Addr::new(10, 77, 0, 1)]);
        assert!(addresses().iter().all(|address| !address.is_loopback()));
    }
}
