/* What mpi.h defines by macro. */
#include <mpi.h>

/* A constant whose value each MPI chooses. */
void *iad_mpi_in_place(void) { return MPI_IN_PLACE; }

/* Whose header this is. MPICH, Intel MPI, MVAPICH and Cray MPICH have one binary interface. */
const char *iad_mpi_header(void) {
#if defined(OPEN_MPI)
    return "Open MPI";
#elif defined(MPICH_VERSION) || defined(MPICH_NUMVERSION) || defined(I_MPI_VERSION) || defined(MVAPICH2_VERSION)
    return "MPICH";
#else
    return "";
#endif
}
