# OpenBLAS as an imported target: its own config gives variables only.
find_package(OpenBLAS CONFIG QUIET)
find_path(HoneBLAS_INCLUDE_DIR cblas.h HINTS ${OpenBLAS_INCLUDE_DIRS} PATH_SUFFIXES openblas openblas-pthread)
find_library(HoneBLAS_LIBRARY openblas HINTS ${OpenBLAS_LIBRARIES} PATH_SUFFIXES openblas-pthread)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(HoneBLAS REQUIRED_VARS HoneBLAS_LIBRARY HoneBLAS_INCLUDE_DIR)
if(HoneBLAS_FOUND AND NOT TARGET hone_blas)
  add_library(hone_blas UNKNOWN IMPORTED)
  set_target_properties(hone_blas PROPERTIES IMPORTED_LOCATION ${HoneBLAS_LIBRARY}
                        INTERFACE_INCLUDE_DIRECTORIES ${HoneBLAS_INCLUDE_DIR})
endif()
