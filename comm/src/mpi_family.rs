//! The MPI that the program was compiled with, beside the one that it has loaded.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};

use mpi::environment::library_version;

use crate::refusal::Refusal;

unsafe extern "C" {
    fn iad_mpi_header() -> *const c_char;
}

/// MPIs whose constants and types fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    OpenMpi,
    /// MPICH, and what shares its binary interface: Intel MPI, MVAPICH, Cray MPICH.
    Mpich,
}

impl Family {
    /// The family that a header or a library names itself by; none where it is not known.
    fn named(text: &str) -> Option<Self> {
        let text = text.to_lowercase();
        let is = |names: &[&str]| names.iter().any(|name| text.contains(name));
        if is(&["open mpi", "open-mpi"]) {
            Some(Self::OpenMpi)
        } else if is(&["mpich", "mvapich", "intel(r) mpi"]) {
            Some(Self::Mpich)
        } else {
            None
        }
    }
}

/// Refuses a library of another family than that of the header: its constants have other values, and the first call would
/// end the process. MPI need not be initialised.
///
/// # Errors
/// A [`Refusal`] that names both.
pub(crate) fn check() -> Result<(), Refusal> {
    // SAFETY: it returns a string constant, which lives as long as the program.
    let header = unsafe { CStr::from_ptr(iad_mpi_header()) }.to_string_lossy();
    compare(&header, &library_version().unwrap_or_default())
}

fn compare(header: &str, library: &str) -> Result<(), Refusal> {
    match (Family::named(header), Family::named(library)) {
        (Some(built), Some(loaded)) if built != loaded => Err(Refusal {
            key: "the MPI library",
            value: name_of(library),
            expected: format!("{header}, which this program was compiled with"),
            hint: "run `make` again with MPICC set to the compiler wrapper of the MPI that you mean, and load no other MPI's \
                   module; `iad-launch doctor` shows both"
                .into(),
        }),
        _ => Ok(()),
    }
}

/// What a library calls itself, without the details of its build.
pub(crate) fn name_of(library: &str) -> String {
    let name = library.split([',', '\n']).next().unwrap_or_default().trim_matches(['\0', ' ']);
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN_MPI: &str = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4\0";
    const MPICH: &str = "MPICH Version:\t4.0.2\nMPICH Release date:\tThu Apr  7 12:34:45 CDT 2022\n";

    #[test]
    fn the_mpi_of_this_build_is_one() {
        check().unwrap();
    }

    #[test]
    fn another_family_is_refused_and_named() {
        for (header, library, named) in
            [("Open MPI", MPICH, "MPICH Version: 4.0.2"), ("MPICH", OPEN_MPI, "Open MPI v4.1.4")]
        {
            let refusal = compare(header, library).unwrap_err();
            assert_eq!(refusal.value, named);
            assert!(refusal.expected.contains(header) && refusal.hint.contains("MPICC"), "{refusal}");
        }
    }

    #[test]
    fn what_fits_or_is_not_known_is_left_alone() {
        for (header, library) in [
            ("Open MPI", OPEN_MPI),
            ("MPICH", MPICH),
            ("MPICH", "Intel(R) MPI Library 2021.9 for Linux* OS"),
            ("MPICH", "MPI VERSION    : CRAY MPICH version 8.1.27.26"),
            ("MPICH", "MVAPICH2 Version      :\t2.3.7"),
            ("", MPICH),
            ("Open MPI", "Another MPI 1.0"),
        ] {
            assert_eq!(compare(header, library), Ok(()), "{header} beside {library}");
        }
    }
}
