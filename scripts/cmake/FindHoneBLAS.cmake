# OpenBLAS as the imported target HoneBLAS::HoneBLAS: its own config gives variables only.
find_package(OpenBLAS CONFIG QUIET)
find_path(HoneBLAS_INCLUDE_DIR cblas.h HINTS ${OpenBLAS_INCLUDE_DIRS} PATH_SUFFIXES openblas openblas-pthread)
find_library(HoneBLAS_LIBRARY openblas HINTS ${OpenBLAS_LIBRARIES} PATH_SUFFIXES openblas-pthread)
mark_as_advanced(HoneBLAS_INCLUDE_DIR HoneBLAS_LIBRARY)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(HoneBLAS REQUIRED_VARS HoneBLAS_LIBRARY HoneBLAS_INCLUDE_DIR
                                  REASON_FAILURE_MESSAGE "OpenBLAS is missing: on Debian, libopenblas-dev")
if(HoneBLAS_FOUND AND NOT TARGET HoneBLAS::HoneBLAS)
  add_library(HoneBLAS::HoneBLAS UNKNOWN IMPORTED)
  set_target_properties(HoneBLAS::HoneBLAS PROPERTIES IMPORTED_LOCATION ${HoneBLAS_LIBRARY}
                        INTERFACE_INCLUDE_DIRECTORIES ${HoneBLAS_INCLUDE_DIR})
endif()
