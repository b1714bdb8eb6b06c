//! Heartbeats between the ranks: threads of their own tell rank 0 what each rank is doing, by datagrams that need neither MPI
//! nor the rank's own thread.
//!
//! Every rank sends rank 0 a heartbeat twice a second, and rank 0 answers with its own. A rank that falls silent is lost: it
//! is stopped, its node is gone, or the network to it, of which TCP and MPI learn after minutes. A rank that exceeds the budget
//! of its stage hangs. In both cases rank 0 reports on all ranks and ends the run; rank 1 does so where rank 0 is lost, and so
//! on. If the network blocks all datagrams, no rank is ever declared lost.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use comm::Communicator;
use signal_hook::low_level::exit;

use super::addresses::addresses;
use super::beat::{Beat, LONGEST, late, report};
use super::environment::liveness;
use super::silence::Silence;
use super::watch::{activity, give_up};
use crate::console::RankLog;

const BEAT: Duration = Duration::from_millis(500);

/// Ranks in the same deadlock exceed their budgets within this time, and are then all in the report.
const TOGETHER: Duration = Duration::from_secs(1);

/// Starts the heartbeats if there are several ranks. A collective call.
///
/// # Errors
/// A failure of the transport.
pub(crate) fn start(ranks: &dyn Communicator, log: &Arc<RankLog>) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok();
    let port = socket.as_ref().and_then(|socket| Some(socket.local_addr().ok()?.port()));
    // This word distinguishes the datagrams of this run from those of other runs.
    let word = format!("{:016x}", RandomState::new().build_hasher().finish());
    let mut mine = vec![comm::host_name(), port.unwrap_or(0).to_string(), word];
    mine.extend(addresses().iter().map(ToString::to_string));
    let all = ranks.gather(&mine.join(" "))?;
    let all: Vec<Vec<&str>> = all.iter().map(|text| text.split(' ').collect()).collect();
    let hosts: Vec<String> = all.iter().map(|said| said[0].to_string()).collect();
    let (leader_port, rank) = (all[0][1].parse().unwrap_or(0), ranks.rank());
    let (Some(socket), true) = (socket, leader_port > 0 && hosts.len() > 1) else {
        return Ok(());
    };
    let beside = (hosts[rank] == hosts[0]).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let elsewhere = all[0][3..].iter().filter_map(|text| text.parse().ok());
    let places = beside.map_or_else(|| elsewhere.collect(), |place| vec![place]);
    let watch = Watch {
        socket,
        word: all[0][2].to_string(),
        rank,
        hosts,
        leader: places.into_iter().map(|place: IpAddr| SocketAddr::new(place, leader_port)).collect(),
        limit: liveness().unwrap_or(Duration::MAX),
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
    /// Addresses at which rank 0 may be reachable.
    leader: Vec<SocketAddr>,
    limit: Duration,
    log: Arc<RankLog>,
}

/// The last heartbeat of each rank, when it came and from where.
type Heard = BTreeMap<usize, (Beat, Instant, SocketAddr)>;

impl Watch {
    /// Answers every rank, and ends the run when one is lost or hangs.
    fn lead(&self) {
        let mut silent = Silence::new(self.limit);
        let (mut heard, mut late_since) = (Heard::new(), None);
        loop {
            if let Some((said, from)) = self.receive(BEAT / 4)
                && let Some(beat) = Beat::decode("", &said)
                && beat.rank < self.hosts.len()
            {
                silent.heard(beat.rank, Instant::now());
                heard.insert(beat.rank, (beat, Instant::now(), from));
                self.send(&self.beat().encode(""), from);
            }
            let ranks = self.ranks(&heard);
            if let Some(lost) = silent.lost(Instant::now()) {
                self.end_all(&self.lost(lost), &ranks, &heard);
            }
            match late(&ranks) {
                None => late_since = None,
                Some(cause) => {
                    if late_since.get_or_insert_with(Instant::now).elapsed() > TOGETHER {
                        self.end_all(&cause, &ranks, &heard);
                    }
                }
            }
        }
    }

    /// Sends rank 0 heartbeats, and ends this rank if rank 0 says so or has answered before and falls silent.
    fn follow(&self) {
        // One rank speaks: the first after rank 0 that is not lost as well.
        let mut silent = Silence::new(self.limit.saturating_add(Duration::from_secs(self.rank as u64 - 1)));
        let (mut places, mut leader) = (self.leader.clone(), None);
        let began = Instant::now();
        let (mut next_beat, mut noted) = (began, false);
        loop {
            if Instant::now() >= next_beat {
                places.iter().for_each(|place| self.send(&self.beat().encode(""), *place));
                next_beat = Instant::now() + BEAT;
            }
            if let Some((said, from)) = self.receive(BEAT / 4) {
                silent.heard(0, Instant::now());
                places = vec![from];
                match Beat::decode("", &said) {
                    Some(beat) => leader = Some((beat, Instant::now(), from)),
                    None => self.leave(&String::from_utf8_lossy(&said)),
                }
            }
            if silent.lost(Instant::now()).is_some() {
                let heard = leader.into_iter().map(|leader| (0, leader)).collect();
                give_up(&self.log, &report(&self.lost(0), &self.ranks(&heard)));
            }
            if !noted && places.len() != 1 && began.elapsed() > self.limit {
                self.log.line("no answer from rank 0 to datagrams (UDP): a lost node will not be noticed by this rank");
                noted = true;
            }
        }
    }

    fn beat(&self) -> Beat {
        Beat::of(self.rank, &activity().look(), None)
    }

    /// What this rank knows of all ranks it has heard, itself included, and how old that is.
    fn ranks(&self, heard: &Heard) -> Vec<(Beat, Duration)> {
        let others = heard.values().map(|(beat, at, _)| (beat.clone(), at.elapsed()));
        let mut ranks: Vec<(Beat, Duration)> = others.chain([(self.beat(), Duration::ZERO)]).collect();
        ranks.sort_by_key(|(beat, _)| beat.rank);
        ranks
    }

    fn lost(&self, rank: usize) -> String {
        let host = self.hosts.get(rank).map_or("", String::as_str);
        let seconds = self.limit.as_secs();
        format!(
            "rank {rank} ({host}) has been silent for {seconds} s: it is stopped, or its node or the network to it is gone"
        )
    }

    /// Tells the user and then the other ranks, and ends this one.
    fn end_all(&self, cause: &str, ranks: &[(Beat, Duration)], heard: &Heard) -> ! {
        self.log.last_words(&report(cause, ranks));
        crate::console::error_text(&report(cause, ranks));
        heard.values().for_each(|(.., place)| self.send(cause, *place));
        exit(1)
    }

    /// Ends this rank, which rank 0 has told the user of.
    fn leave(&self, cause: &str) -> ! {
        self.log.line(&format!("error: rank 0 ends the run: {cause}"));
        exit(1)
    }

    fn send(&self, text: &str, to: SocketAddr) {
        // A lost datagram is sent again with the next heartbeat.
        let _ = self.socket.send_to(format!("{}{text}", self.word).as_bytes(), to);
    }

    /// A datagram of this run, if one comes in time.
    fn receive(&self, patience: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        let _ = self.socket.set_read_timeout(Some(patience));
        let mut bytes = [0; LONGEST];
        let began = Instant::now();
        let Ok((length, from)) = self.socket.recv_from(&mut bytes) else {
            // An error that comes at once must not turn this into a busy loop.
            thread::sleep(patience.saturating_sub(began.elapsed()));
            return None;
        };
        Some((bytes[..length].strip_prefix(self.word.as_bytes())?.to_vec(), from))
    }
}
