# What Open MPI needs where tests run: as root in a container, on fewer cores than ranks.
set(VL_MPI_ENVIRONMENT OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_WAIT_POLICY=passive
  OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_btl_base_warn_component_unused=0)
if(VL_SANITIZE) # Open MPI's own libraries leak; the same code is checked for leaks where it runs without them
  list(APPEND VL_MPI_ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)
endif()
