//! Compiles the C file that gives names to what mpi.h defines by macro.

fn main() {
    println!("cargo:rerun-if-changed=src/mpi_names.c");
    println!("cargo:rerun-if-env-changed=MPICC");
    let mpi = match build_probe_mpi::probe() {
        Ok(mpi) => mpi,
        Err(errors) => {
            panic!("no MPI found ({errors:?}): run scripts/setup, or set MPICC to your MPI's compiler wrapper")
        }
    };
    cc::Build::new().file("src/mpi_names.c").includes(&mpi.include_paths).compile("iad_mpi_names");
}
