//! The control channel: datagrams between the iad-launch that starts mpirun and its ranks. They carry requests to stop, what
//! each rank is doing, and how the ranks ended, without mpirun and MPI, which block where a rank hangs.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::addresses::addresses;
use super::beat::{Beat, LONGEST, SILENT};
use super::environment::variable;

/// Tells the ranks the word, the port and the addresses of the launcher's end.
pub(super) const CONTROL: &str = "IAD_CONTROL";

/// What the launcher answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Go,
    Stop,
}

/// The launcher's end.
pub(super) struct Control {
    socket: UdpSocket,
    /// Distinguishes the datagrams of this run from those of other runs.
    word: String,
    ranks: BTreeMap<usize, (Beat, SocketAddr, Instant)>,
    stop: bool,
    code: Option<u8>,
}

impl Control {
    /// # Errors
    /// The system gives no socket.
    pub(super) fn open() -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("opening a socket for the ranks")?;
        let word = format!("{:016x}", RandomState::new().build_hasher().finish());
        Ok(Self { socket, word, ranks: BTreeMap::new(), stop: false, code: None })
    }

    /// The value of [`CONTROL`] for the ranks.
    pub(super) fn address(&self) -> Result<String> {
        let port = self.socket.local_addr().context("the socket for the ranks")?.port();
        let all = [Ipv4Addr::LOCALHOST].into_iter().chain(addresses()).map(|address| address.to_string());
        Ok(format!("{} {port} {}", self.word, all.collect::<Vec<_>>().join(" ")))
    }

    /// Hears the ranks and answers them for as long as `time`.
    pub(super) fn listen(&mut self, time: Duration) {
        let ends = Instant::now() + time;
        let mut bytes = [0; LONGEST];
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let _ = self.socket.set_read_timeout(Some(left));
            let Ok((length, from)) = self.socket.recv_from(&mut bytes) else {
                // A signal interrupts the call; an error that comes at once must not make this a busy loop.
                std::thread::sleep(left.min(Duration::from_millis(10)));
                continue;
            };
            if let Some(beat) = Beat::decode(&self.word, &bytes[..length]) {
                self.code = self.code.or(beat.code);
                self.ranks.insert(beat.rank, (beat, from, Instant::now()));
                self.answer(from);
            }
        }
    }

    /// Asks the ranks to stop: those heard at once, others when they are heard.
    pub(super) fn stop(&mut self) {
        self.stop = true;
        self.ranks.values().for_each(|(_, place, _)| self.answer(*place));
    }

    fn answer(&self, place: SocketAddr) {
        let answer = if self.stop { "stop" } else { "go" };
        // A lost datagram is sent again with the next beat.
        let _ = self.socket.send_to(format!("{}{answer}", self.word).as_bytes(), place);
    }

    /// The exit code that the ranks agreed on.
    pub(super) fn code(&self) -> Option<u8> {
        self.code
    }

    /// Whether training or an evaluation has begun, so that there is something to lose.
    pub(super) fn begun(&self) -> bool {
        self.ranks.values().any(|(beat, ..)| beat.begun)
    }

    /// How long the ranks may need to answer a request to stop.
    pub(super) fn patience(&self) -> Duration {
        let longest = self.ranks.values().map(|(beat, ..)| beat.patience).fold(30.0, f64::max);
        Duration::try_from_secs_f64(longest).unwrap_or(Duration::from_secs(30))
    }

    /// The ranks that keep the others waiting, in words: those that are silent, else those that wait for nobody.
    pub(super) fn late(&self) -> Vec<String> {
        let tell = |(beat, _, heard): &(Beat, SocketAddr, Instant)| {
            let silent = heard.elapsed();
            let silent = if silent > SILENT { format!("; silent for {} s", silent.as_secs()) } else { String::new() };
            format!("rank {} on {} ({}{silent})", beat.rank, beat.host, beat.doing)
        };
        let of = |late: &dyn Fn(&(Beat, SocketAddr, Instant)) -> bool| -> Vec<String> {
            self.ranks.values().filter(|rank| late(rank)).map(tell).collect()
        };
        let silent = of(&|(_, _, heard)| heard.elapsed() > SILENT);
        let busy = of(&|(beat, ..)| !beat.waits);
        if !silent.is_empty() {
            silent
        } else if !busy.is_empty() {
            busy
        } else {
            of(&|_| true)
        }
    }
}

/// A rank's end.
pub(super) struct Line {
    socket: UdpSocket,
    word: String,
    launcher: Vec<SocketAddr>,
}

impl Line {
    /// The line to the launcher that started this rank, if one did.
    pub(super) fn of_environment() -> Option<Self> {
        let text = variable(CONTROL)?;
        let mut parts = text.split(' ');
        let (word, port) = (parts.next()?.to_string(), parts.next()?.parse().ok()?);
        let launcher = parts.filter_map(|address| Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, port)));
        let launcher: Vec<SocketAddr> = launcher.collect();
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        Some(Self { socket, word, launcher })
    }

    /// Tells the launcher what this rank is doing.
    pub(super) fn send(&self, beat: &Beat) {
        let text = beat.encode(&self.word);
        self.launcher.iter().for_each(|place| drop(self.socket.send_to(text.as_bytes(), *place)));
    }

    /// What the launcher answers within `patience`.
    pub(super) fn receive(&mut self, patience: Duration) -> Option<Answer> {
        let began = Instant::now();
        let _ = self.socket.set_read_timeout(Some(patience));
        let mut bytes = [0; LONGEST];
        let Ok((length, from)) = self.socket.recv_from(&mut bytes) else {
            // An error that comes at once must not make the caller a busy loop.
            std::thread::sleep(patience.saturating_sub(began.elapsed()));
            return None;
        };
        let answer = match std::str::from_utf8(&bytes[..length]).ok()?.strip_prefix(&self.word)? {
            "stop" => Answer::Stop,
            "go" => Answer::Go,
            _ => return None,
        };
        self.launcher = vec![from];
        Some(answer)
    }

    /// Tells the launcher how the ranks end; whether it has heard it.
    pub(super) fn tell_end(mut self, beat: &Beat) -> bool {
        (0..20).any(|_| {
            self.send(beat);
            self.receive(Duration::from_millis(50)).is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(rank: usize, waits: bool, code: Option<u8>) -> Beat {
        let activity = trainer::system::Activity::default();
        activity.begin(trainer::system::Stage::Step, 7);
        Beat { waits, patience: 42.0, host: "node".into(), ..Beat::of(rank, &activity.look(), code) }
    }

    fn line(control: &Control) -> Line {
        let port = control.socket.local_addr().unwrap().port();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Line { socket, word: control.word.clone(), launcher: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))] }
    }

    #[test]
    fn a_request_reaches_ranks_that_were_heard_before_and_after() {
        let mut control = Control::open().unwrap();
        assert!(!control.begun() && control.late().is_empty());
        let (mut early, mut late) = (line(&control), line(&control));
        early.send(&beat(0, true, None));
        control.listen(Duration::from_millis(100));
        assert_eq!(early.receive(Duration::from_secs(5)), Some(Answer::Go));
        control.stop();
        assert_eq!(early.receive(Duration::from_secs(5)), Some(Answer::Stop));
        late.send(&beat(1, false, None));
        control.listen(Duration::from_millis(100));
        assert_eq!(late.receive(Duration::from_secs(5)), Some(Answer::Stop));
        assert_eq!((control.code(), control.patience().as_secs(), control.begun()), (None, 42, true));
        assert_eq!(control.late(), ["rank 1 on node (step 7, phase other, for 0 s)"]);
    }

    #[test]
    fn the_end_is_heard_and_strangers_are_not() {
        let mut control = Control::open().unwrap();
        let stranger = Line { word: "another".into(), ..line(&control) };
        stranger.send(&beat(3, true, Some(1)));
        let teller = line(&control);
        let told = std::thread::spawn(move || teller.tell_end(&beat(0, true, Some(85))));
        control.listen(Duration::from_millis(300));
        assert!(told.join().unwrap());
        assert_eq!(control.code(), Some(85));
    }
}
