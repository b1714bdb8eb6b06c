//! Points in time: of the host where it computes, of a GPU's queue of work where that does.

use std::ffi::{c_char, c_int};
use std::sync::Arc;
use std::time::Instant;

use tch::Device;

use crate::answer::check;

/// A `c10::Event` of the C++ side.
#[repr(C)]
struct RawEvent {
    _opaque: [u8; 0],
}

unsafe extern "C" {
    fn iad_event_record(index: c_int, event: *mut *mut RawEvent) -> *mut c_char;
    fn iad_event_wait(event: *const RawEvent) -> *mut c_char;
    fn iad_event_milliseconds(from: *const RawEvent, to: *const RawEvent, milliseconds: *mut f64) -> *mut c_char;
    fn iad_event_free(event: *mut RawEvent);
    fn iad_peak_memory(index: c_int, bytes: *mut i64) -> *mut c_char;
}

/// A point in the work of a device. On the CPU, where work is done when a call returns, it is the host's time; on a GPU it is
/// reached when the work queued before it is done.
#[derive(Clone)]
pub struct Moment(Kind);

#[derive(Clone)]
enum Kind {
    Host(Instant),
    Device(Arc<Event>),
}

struct Event(*mut RawEvent);

// SAFETY: a recorded event is only read (waited for, compared), which CUDA allows from any thread; it is freed once, by the
// last owner.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `iad_event_record` and is freed here alone.
        unsafe { iad_event_free(self.0) }
    }
}

impl Moment {
    /// The point behind all work given to `device` so far.
    ///
    /// # Errors
    /// libtorch's message, on a GPU.
    pub fn now(device: Device) -> Result<Self, String> {
        let Device::Cuda(index) = device else { return Ok(Self::of_host()) };
        let mut event = std::ptr::null_mut();
        // SAFETY: `event` is a place for one pointer, which the C++ side fills where it answers null.
        check(unsafe { iad_event_record(index as c_int, &mut event) })?;
        Ok(Self(Kind::Device(Arc::new(Event(event)))))
    }

    /// The host's time.
    pub fn of_host() -> Self {
        Self(Kind::Host(Instant::now()))
    }

    /// Returns when it is reached.
    ///
    /// # Errors
    /// That of the device, which did not get there.
    pub fn wait(&self) -> Result<(), String> {
        let Kind::Device(event) = &self.0 else { return Ok(()) };
        // SAFETY: a live event.
        check(unsafe { iad_event_wait(event.0) })
    }

    /// Seconds from `earlier`, a moment of the same clock, to this one; both must have been reached. Not a number where the
    /// clocks differ.
    pub fn seconds_since(&self, earlier: &Self) -> f64 {
        match (&self.0, &earlier.0) {
            (Kind::Host(to), Kind::Host(from)) => to.duration_since(*from).as_secs_f64(),
            (Kind::Device(to), Kind::Device(from)) => {
                let mut milliseconds = f64::NAN;
                // SAFETY: two live events and a place for one number.
                let answer = check(unsafe { iad_event_milliseconds(from.0, to.0, &mut milliseconds) });
                answer.map_or(f64::NAN, |()| milliseconds / 1e3)
            }
            _ => f64::NAN,
        }
    }
}

/// The most bytes that this process has held: of tensors on a GPU, of everything on the CPU.
pub fn peak_memory(device: Device) -> Option<u64> {
    if let Device::Cuda(index) = device {
        let mut bytes = 0;
        // SAFETY: a place for one number.
        check(unsafe { iad_peak_memory(index as c_int, &mut bytes) }).ok()?;
        return u64::try_from(bytes).ok();
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_of_the_host_are_as_far_apart_as_its_clock_says() {
        let first = Moment::now(Device::Cpu).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let second = Moment::now(Device::Cpu).unwrap();
        second.wait().unwrap();
        assert!(second.seconds_since(&first) >= 0.02);
        assert_eq!(first.seconds_since(&second), 0.0);
    }

    #[test]
    fn a_machine_without_the_device_says_so() {
        if !tch::Cuda::is_available() {
            assert!(Moment::now(Device::Cuda(0)).is_err());
            assert!(peak_memory(Device::Cuda(0)).is_none());
        }
        assert!(peak_memory(Device::Cpu).unwrap() > 1 << 20);
    }
}
