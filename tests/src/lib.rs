//! Tests of the program as its users run it: real mpirun, real files, real faults.
