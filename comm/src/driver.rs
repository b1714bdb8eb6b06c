//! Why libtorch can use no GPU of a machine that has some.

use std::path::Path;

use crate::refusal::Refusal;

/// What this process knows of the machine's GPUs without libtorch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Driver {
    /// The version of the kernel's driver, as in `535.183.01`, where the kernel tells it.
    version: Option<String>,
}

/// The oldest drivers of each CUDA that libtorch was built for, by NVIDIA's table of CUDA toolkits and drivers.
const OLDEST: [(i32, u32); 3] = [(11, 450), (12, 525), (13, 580)];

impl Driver {
    /// The NVIDIA driver of the machine whose files lie under `root` (`/`); none where no file shows one. Containers, gVisor and
    /// WSL2 have no /proc/driver/nvidia, but the device files or the library of the driver.
    pub(crate) fn find(root: &Path) -> Option<Self> {
        if let Ok(text) = std::fs::read_to_string(root.join("proc/driver/nvidia/version")) {
            return Some(Self { version: version_in(&text) });
        }
        let exist = |names: &[&str]| names.iter().all(|name| root.join(name).exists());
        // Windows shows /dev/dxg for the GPUs of other makers too.
        let shown = [&["dev/nvidiactl"][..], &["dev/nvidia0"], &["dev/dxg", "usr/lib/wsl/lib/libcuda.so.1"]]
            .into_iter()
            .any(exist);
        shown.then_some(Self { version: None })
    }

    /// The refusal where libtorch, built for CUDA `libtorch` (as in 13000), sees no GPU. `supported` is the CUDA version that the
    /// driver's library names.
    pub(crate) fn refusal(&self, libtorch: Option<i32>, supported: Option<i32>) -> Refusal {
        let of_cuda = |code: i32| format!("{}.{}", code / 1000, code % 1000 / 10);
        let needed =
            libtorch.and_then(|code| OLDEST.iter().find(|(cuda, _)| *cuda == code / 1000).map(|(_, driver)| *driver));
        let major = self.version.as_deref().and_then(|text| text.split('.').next()?.parse::<u32>().ok());
        // The library decides where it is: packages like cuda-compat bring a newer one than the kernel's driver.
        let too_old = match (libtorch, supported, major, needed) {
            (Some(libtorch), Some(supported), ..) => supported / 1000 < libtorch / 1000,
            (_, None, Some(major), Some(needed)) => major < needed,
            _ => false,
        };
        let name =
            self.version.as_deref().map_or("an NVIDIA driver".to_string(), |text| format!("NVIDIA driver {text}"));
        let Some(libtorch) = libtorch.filter(|_| too_old) else {
            return refused(
                format!("{name}, but libtorch sees no GPU"),
                "GPUs that libtorch can use, or --device cpu",
                "see `nvidia-smi`, and CUDA_VISIBLE_DEVICES if it is set; the user may lack access to /dev/nvidia*",
            );
        };
        let (cuda, needed) = (of_cuda(libtorch), needed.map_or("a newer one".to_string(), |driver| driver.to_string()));
        let supports = supported.map_or(String::new(), |code| format!(", which supports CUDA {}", of_cuda(code)));
        refused(
            format!("{name}{supports}: too old for this libtorch, which was built for CUDA {cuda}"),
            &format!("driver {needed} or newer"),
            &format!(
                "update the driver; or install NVIDIA's package cuda-compat-{} and put its folder on LD_LIBRARY_PATH; or build \
                 with LIBTORCH set to the libtorch of an older CUDA (PyTorch's wheels of cu126 or cu128); or give --device cpu",
                cuda.replace('.', "-")
            ),
        )
    }
}

/// The refusal where libtorch's CUDA half does not load.
pub(crate) fn not_loaded(reason: &str) -> Refusal {
    refused(
        format!("NVIDIA's, but libtorch_cuda does not load: {reason}"),
        "libtorch with its CUDA half, or --device cpu",
        "run scripts/setup --cuda and build again",
    )
}

fn refused(value: String, expected: &str, hint: &str) -> Refusal {
    Refusal { key: "the driver of this machine's GPUs", value, expected: expected.into(), hint: hint.into() }
}

/// The first word of digits and dots, as in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 ...`.
fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &&str| {
        word.contains('.')
            && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    text.lines().next()?.split_whitespace().find(is_version).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CLOSED: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: 12.3.0\n";
    const OPEN: &str =
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\n";

    fn driver(version: &str) -> Driver {
        Driver { version: Some(version.into()) }
    }

    #[test]
    fn the_version_is_read_from_both_kinds_of_driver() {
        assert_eq!(version_in(CLOSED).as_deref(), Some("535.183.01"));
        assert_eq!(version_in(OPEN).as_deref(), Some("580.65.06"));
        assert_eq!(version_in("GCC version: gcc 12"), None);
    }

    #[test]
    fn a_driver_shows_itself_in_containers_too() {
        let root = std::env::temp_dir().join(format!("iad-driver-{}", std::process::id()));
        let put = |file: &str, text: &str| {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let find = || Driver::find(&root);
        put("etc/hostname", "here");
        assert_eq!(find(), None);
        put("dev/dxg", "");
        assert_eq!(find(), None, "Windows has GPUs of other makers");
        put("usr/lib/wsl/lib/libcuda.so.1", "");
        assert_eq!(find(), Some(Driver { version: None }));
        fs::remove_dir_all(&root).unwrap();
        put("dev/nvidiactl", "");
        assert_eq!(find(), Some(Driver { version: None }));
        put("proc/driver/nvidia/version", CLOSED);
        assert_eq!(find(), Some(driver("535.183.01")));
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn an_old_driver_is_named_with_the_one_that_is_needed() {
        let said = driver("535.183.01").refusal(Some(13_000), Some(12_020)).to_string();
        for part in [
            "NVIDIA driver 535.183.01, which supports CUDA 12.2",
            "CUDA 13.0",
            "driver 580 or newer",
            "cuda-compat-13-0",
        ] {
            assert!(said.contains(part), "{part:?} is missing in: {said}");
        }
        // Without the driver's library, its number decides.
        assert!(driver("570.124").refusal(Some(13_000), None).to_string().contains("driver 580 or newer"));
        assert!(driver("525.60").refusal(Some(12_060), None).to_string().contains("sees no GPU"));
        assert!(driver("520.1").refusal(Some(12_060), None).to_string().contains("driver 525 or newer"));
    }

    #[test]
    fn a_driver_that_is_new_enough_is_not_blamed() {
        for supported in [Some(13_010), None] {
            let said = driver("590.1").refusal(Some(13_000), supported).to_string();
            assert!(
                said.contains("NVIDIA driver 590.1, but libtorch sees no GPU") && said.contains("nvidia-smi"),
                "{said}"
            );
        }
        // cuda-compat under an old driver.
        assert!(driver("535.1").refusal(Some(13_000), Some(13_000)).to_string().contains("sees no GPU"));
        assert!(Driver { version: None }.refusal(None, None).to_string().contains("an NVIDIA driver, but"));
    }
}
