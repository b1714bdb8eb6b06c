//! The calls of NCCL that we make, with its errors in words.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use anyhow::{Result, anyhow, bail, ensure};
use cudarc::driver::sys::CUstream;
use cudarc::nccl::result::{NcclError, NcclStatus, all_reduce, broadcast, comm_abort, comm_destroy, get_uniqueid};
use cudarc::nccl::result::{comm_init_rank_config, get_nccl_version};
use cudarc::nccl::sys;
use tch::Kind;

/// The name under which cudarc looks for NCCL first. PyTorch's wheels lack it; `scripts/setup` makes a link.
const FILE: &str = "libnccl.so";

/// The oldest version that this program was made for: libtorch 2.11 brings 2.28.9.
const EXPECTED: c_int = 22_800;

/// The symbol by which a library of the tests says that it works on the host's memory.
const STAND_IN: &[u8] = b"iad_stand_in_for_nccl";

/// Makes sure that NCCL can be called: cudarc panics where it is missing.
///
/// # Errors
/// The loader's message; or `on_host` and a library that needs GPUs.
pub(crate) fn check(on_host: bool) -> Result<(), String> {
    // SAFETY: NCCL's initialisers only set up its own data.
    let library = unsafe { libloading::Library::new(FILE) }.map_err(|error| error.to_string())?;
    // SAFETY: the symbol is only asked for, never called.
    let stands_in = unsafe { library.get::<unsafe extern "C" fn()>(STAND_IN) }.is_ok();
    // It stays, for cudarc to find.
    std::mem::forget(library);
    match stands_in == on_host {
        true => Ok(()),
        false if on_host => Err(format!("{FILE} is NCCL itself, which does not work on the host's memory")),
        false => Err(format!("{FILE} is the stand-in of the tests")),
    }
}

/// Makes sure that the library which [`check`] found has these functions.
///
/// # Errors
/// The one that is missing.
pub(super) fn has(functions: &[&str]) -> Result<()> {
    // SAFETY: the library is loaded already, and stays.
    let library = unsafe { libloading::Library::new(FILE) }?;
    for function in functions {
        // SAFETY: the symbol is only asked for, never called.
        let found = unsafe { library.get::<unsafe extern "C" fn()>(function.as_bytes()) };
        found.map_err(|_| anyhow!("NCCL {} has no {function}", version()))?;
    }
    Ok(())
}

/// The version, as in `2.28.9`.
pub(crate) fn version() -> String {
    get_nccl_version().map_or("?".into(), in_words)
}

fn in_words(code: c_int) -> String {
    format!("{}.{}.{}", code / 10_000, code / 100 % 100, code % 100)
}

/// The variable by which NCCL keeps the order of the host's calls to several communicators, from 2.26 on.
pub(crate) const ORDER: &str = "NCCL_LAUNCH_ORDER_IMPLICIT";

/// Whether this NCCL keeps that order, and the environment asks for it.
pub(crate) fn keeps_order() -> bool {
    get_nccl_version().is_ok_and(|code| code >= 22_600) && std::env::var(ORDER).is_ok_and(|value| value != "0")
}

/// What the user should know about the version of NCCL that was found.
pub(crate) fn note() -> Option<String> {
    get_nccl_version().ok().and_then(note_of)
}

fn note_of(code: c_int) -> Option<String> {
    (code < EXPECTED).then(|| {
        format!(
            "NCCL {} was found, and this program was made for {} or newer. LD_LIBRARY_PATH may lead to another {FILE} than the one \
             beside libtorch",
            in_words(code),
            in_words(EXPECTED)
        )
    })
}

/// An identity for a new communicator, in hexadecimal digits. Rank 0 makes it, and all ranks connect with it.
///
/// # Errors
/// NCCL's: mostly that it finds no network interface.
pub(crate) fn unique_id() -> Result<String> {
    let id = get_uniqueid().map_err(|error| anyhow!("ncclGetUniqueId: {}", words(&error, ptr::null_mut())))?;
    Ok(base16ct::lower::encode_string(&id.internal.map(|byte| byte as u8)))
}

/// A connected communicator. It is never freed behind the back of a thread that might use it: see [`Handle::destroy`].
#[derive(Clone, Copy)]
pub(crate) struct Handle(sys::ncclComm_t, Option<Window>);

/// A window of a communicator, and the memory in it, by their addresses.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) memory: usize,
    pub(super) window: usize,
}

// SAFETY: NCCL allows its calls from any thread as long as collectives do not overlap, for which a lock in `Nccl` cares;
// asking for errors and aborting are meant for other threads.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    /// Connects this rank to the others. Blocks until all do; the calling thread's GPU becomes that of the rank.
    ///
    /// # Errors
    /// NCCL's.
    pub(crate) fn connect(rank: usize, ranks: usize, id: &str) -> Result<Self> {
        let mut unique = sys::ncclUniqueId { internal: [0; 128] };
        ensure!(id.len() == 2 * unique.internal.len(), "the identity of the communicator has {} digits", id.len());
        for (place, byte) in unique.internal.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&id[2 * place..2 * place + 2], 16)? as c_char;
        }
        let mut communicator = ptr::null_mut();
        let mut config = blocking();
        let (rank, ranks) = (c_int::try_from(rank)?, c_int::try_from(ranks)?);
        // SAFETY: both pointers are to live places, which NCCL reads and fills during the call.
        let result = unsafe { comm_init_rank_config(&mut communicator, ranks, unique, rank, &mut config) };
        done("ncclCommInitRankConfig", result, ptr::null_mut())?;
        Ok(Self(communicator, None))
    }

    /// The same communicator, with a window.
    pub(super) fn through(self, window: Window) -> Self {
        Self(self.0, Some(window))
    }

    pub(super) fn window(self) -> Option<Window> {
        self.1
    }

    pub(super) fn raw(self) -> sys::ncclComm_t {
        self.0
    }

    /// Queues the sum over the ranks of `count` values at `values`, in place.
    ///
    /// # Safety
    /// There are that many values of that type in the memory of the rank's GPU, which nothing else touches before `stream`
    /// has passed the call.
    ///
    /// # Errors
    /// A type that does not travel; NCCL's.
    pub(crate) unsafe fn sum(self, values: *mut c_void, count: usize, kind: Kind, stream: CUstream) -> Result<()> {
        // SAFETY: as promised by the caller.
        let result = unsafe {
            all_reduce(values, values, count, kind_of(kind)?, sys::ncclRedOp_t::ncclSum, self.0, stream.cast())
        };
        done("ncclAllReduce", result, self.0)
    }

    /// Queues the copy of rank 0's values to all ranks, in place.
    ///
    /// # Safety
    /// As for [`sum`](Self::sum).
    ///
    /// # Errors
    /// As for [`sum`](Self::sum).
    pub(crate) unsafe fn broadcast(
        self,
        values: *mut c_void,
        count: usize,
        kind: Kind,
        stream: CUstream,
    ) -> Result<()> {
        // SAFETY: as promised by the caller.
        let result = unsafe { broadcast(values, values, count, kind_of(kind)?, 0, self.0, stream.cast()) };
        done("ncclBroadcast", result, self.0)
    }

    /// What went wrong since the collectives were queued.
    pub(crate) fn trouble(self) -> Option<String> {
        let mut code = sys::ncclResult_t::ncclSuccess;
        // SAFETY: `code` is a live place; the communicator is neither aborted nor destroyed while it is watched.
        let asked = unsafe { sys::ncclCommGetAsyncError(self.0, &mut code) };
        let bad = [asked, code]
            .into_iter()
            .find(|code| ![sys::ncclResult_t::ncclSuccess, sys::ncclResult_t::ncclInProgress].contains(code))?;
        Some(words(&NcclError(bad), self.0))
    }

    /// Stops whatever is under way and frees the communicator. May hang.
    pub(crate) fn abort(self) {
        // SAFETY: called once, by the watch, after which nobody enters another call.
        let _ = unsafe { comm_abort(self.0) };
    }

    /// Frees the communicator once its work is done. May hang where another rank is gone.
    pub(crate) fn destroy(self) {
        // SAFETY: called once, at the end of the session, when no collective is under way and none will follow.
        let _ = unsafe { comm_destroy(self.0) };
    }
}

/// NCCL's `NCCL_CONFIG_INITIALIZER` for 2.28, in which calls return when they are queued.
fn blocking() -> sys::ncclConfig_t {
    const UNDEFINED: c_int = c_int::MIN;
    sys::ncclConfig_t {
        size: size_of::<sys::ncclConfig_t>(),
        magic: 0xcafe_beef,
        version: 22_800,
        blocking: 1,
        cgaClusterSize: UNDEFINED,
        minCTAs: UNDEFINED,
        maxCTAs: UNDEFINED,
        netName: ptr::null(),
        splitShare: UNDEFINED,
        trafficClass: UNDEFINED,
        commName: ptr::null(),
        collnetEnable: UNDEFINED,
        CTAPolicy: UNDEFINED,
        shrinkShare: UNDEFINED,
        nvlsCTAs: UNDEFINED,
        nChannelsPerNetPeer: UNDEFINED,
        nvlinkCentricSched: UNDEFINED,
    }
}

/// Whether NCCL sums tensors of this type.
pub(crate) fn travels(kind: Kind) -> bool {
    kind_of(kind).is_ok()
}

fn kind_of(kind: Kind) -> Result<sys::ncclDataType_t> {
    Ok(match kind {
        Kind::Float => sys::ncclDataType_t::ncclFloat32,
        Kind::Double => sys::ncclDataType_t::ncclFloat64,
        Kind::Int64 => sys::ncclDataType_t::ncclInt64,
        Kind::BFloat16 => sys::ncclDataType_t::ncclBfloat16,
        kind => bail!("tensors of type {kind:?} do not travel by NCCL; float32, float64, int64 and bfloat16 do"),
    })
}

pub(super) fn done(call: &str, result: Result<NcclStatus, NcclError>, communicator: sys::ncclComm_t) -> Result<()> {
    match result {
        Ok(NcclStatus::Success) => Ok(()),
        Ok(_) => bail!("{call} neither failed nor succeeded"),
        Err(error) => bail!("{call}: {}", words(&error, communicator)),
    }
}

/// What NCCL calls the error, and what it last complained of.
fn words(error: &NcclError, communicator: sys::ncclComm_t) -> String {
    // SAFETY: NCCL answers constants or the text of the calling process's last error; null is allowed for the communicator.
    let (name, last) = unsafe { (sys::ncclGetErrorString(error.0), sys::ncclGetLastError(communicator)) };
    let text = |text: *const c_char| {
        // SAFETY: null or NUL-terminated, as above.
        let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_string());
        text.filter(|text| !text.is_empty())
    };
    let name = text(name).unwrap_or_else(|| format!("{:?}", error.0));
    text(last).map_or_else(|| name.clone(), |last| format!("{name} ({last})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_that_of_the_header() {
        // nccl.h of 2.28: 8 + 2 * 4 + 4 * 4 + 8 + 2 * 4 + 8 + 6 * 4 bytes.
        assert_eq!(blocking().size, 80);
    }

    /// NCCL itself, where it is installed: its errors are words, and an identity needs no GPU.
    #[test]
    fn nccl_answers_or_says_why_not() {
        if let Err(reason) = check(false) {
            assert!(reason.contains(FILE), "{reason}");
            return;
        }
        assert!(check(true).unwrap_err().contains("NCCL itself"));
        assert!(version().starts_with("2."), "{}", version());
        let id = unique_id().unwrap();
        assert_eq!(id.len(), 256);
        assert!(Handle::connect(0, 1, &id[2..]).is_err());
        match Handle::connect(0, 1, &id) {
            Ok(handle) => handle.destroy(),
            Err(error) => {
                assert!(error.to_string().starts_with("ncclCommInitRankConfig: unhandled cuda error"), "{error}")
            }
        }
    }

    #[test]
    fn an_old_version_is_told() {
        assert_eq!((note_of(22_800), note_of(22_809)), (None, None));
        let said = note_of(21_805).unwrap();
        assert!(said.contains("NCCL 2.18.5 was found") && said.contains("2.28.0 or newer"), "{said}");
    }

    #[test]
    fn a_type_that_does_not_travel_is_named() {
        assert!(kind_of(Kind::BFloat16).is_ok());
        assert!(kind_of(Kind::Half).unwrap_err().to_string().contains("Half"));
    }
}
