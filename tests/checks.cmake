# Checks of the tree itself, as tests: documentation snippets, the include rule, the installed package.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(scripts ${PROJECT_SOURCE_DIR}/scripts)

# Every snippet of README.md and docs/ compiled, and run where it can be.
set(snippet_dir ${CMAKE_CURRENT_BINARY_DIR}/snippets)
file(MAKE_DIRECTORY ${snippet_dir})
set(snippet_sources)
foreach(page README.md docs/design.md docs/adding_an_op.md docs/compression.md docs/optim.md docs/tutorial.md)
  if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${page})
    continue()
  endif()
  get_filename_component(name ${page} NAME_WE)
  string(TOLOWER ${name} name)
  set(outputs ${snippet_dir}/${name}_snippets.cpp ${snippet_dir}/${name}_programs.cpp)
  add_custom_command(OUTPUT ${outputs}
    COMMAND ${Python3_EXECUTABLE} ${scripts}/extract_snippets.py ${PROJECT_SOURCE_DIR}/${page} ${snippet_dir}
    DEPENDS ${PROJECT_SOURCE_DIR}/${page} ${scripts}/extract_snippets.py VERBATIM)
  list(APPEND snippet_sources ${outputs})
endforeach()
if(snippet_sources)
  hone_test(docs_test ${snippet_sources})
  # What a page leaves unused for brevity is no fault; a renamed main may lack its return.
  target_compile_options(docs_test PRIVATE -Wno-unused-variable -Wno-unused-but-set-variable -Wno-unused-function
                         -Wno-return-type)
endif()

add_test(NAME check_snippets_self_test COMMAND ${Python3_EXECUTABLE} ${scripts}/extract_snippets.py --self-test)
add_test(NAME check_includes_self_test COMMAND ${Python3_EXECUTABLE} ${scripts}/check_includes.py --self-test)
add_test(NAME check_includes COMMAND ${Python3_EXECUTABLE} ${scripts}/check_includes.py)
find_package(Git QUIET)
if(Git_FOUND)
  add_test(NAME check_tree_self_test COMMAND ${Python3_EXECUTABLE} ${scripts}/check_tree.py --self-test)
  if(EXISTS ${PROJECT_SOURCE_DIR}/.git)
    add_test(NAME check_tree COMMAND ${Python3_EXECUTABLE} ${scripts}/check_tree.py)
  endif()
endif()
add_test(NAME check_ops_self_test COMMAND ${Python3_EXECUTABLE} ${scripts}/check_ops.py --self-test)
add_test(NAME check_ops COMMAND ${Python3_EXECUTABLE} ${scripts}/check_ops.py)

# The examples, as a user runs them. Under a sanitizer: on few images.
set(few_images)
if(HONE_SANITIZE)
  set(few_images --small)
endif()
if(HONE_EXAMPLES)
  foreach(case train_lenet pruned_lenet prune_lenet prune_resnet quantize_lenet deep_compression distill_lenet documents inspect linear_regression custom_op errors)
    add_test(NAME example.${case} COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/examples/run.py
             ${case} ${PROJECT_BINARY_DIR}/examples ${CMAKE_CURRENT_BINARY_DIR}/examples/${case}
             ${few_images})
    set_tests_properties(example.${case} PROPERTIES LABELS examples TIMEOUT 300)
  endforeach()
endif()

# Under a sanitizer these would time the sanitizer, or need the consumer built with it too.
if(NOT HONE_SANITIZE)
  add_test(NAME umbrella_compile_time COMMAND ${Python3_EXECUTABLE} ${scripts}/check_umbrella.py
           ${CMAKE_CXX_COMPILER} ${HONE_INCLUDE_DIR})
  set_tests_properties(umbrella_compile_time PROPERTIES RUN_SERIAL ON)
  if(HONE_INSTALL AND NOT HONE_CUDA)
    add_test(NAME consumer_of_installed_package COMMAND ${CMAKE_COMMAND}
      -DMODE=package -DHONE_SOURCE=${PROJECT_SOURCE_DIR} -DHONE_BUILD=${PROJECT_BINARY_DIR}
      -DWORK=${CMAKE_CURRENT_BINARY_DIR}/consumer_package -DCOMPILER=${CMAKE_CXX_COMPILER}
      -P ${CMAKE_CURRENT_SOURCE_DIR}/consumer/run.cmake)
    add_test(NAME consumer_of_source_tree COMMAND ${CMAKE_COMMAND}
      -DMODE=source -DHONE_SOURCE=${PROJECT_SOURCE_DIR} -DHONE_BUILD=${PROJECT_BINARY_DIR}
      -DWORK=${CMAKE_CURRENT_BINARY_DIR}/consumer_source -DCOMPILER=${CMAKE_CXX_COMPILER}
      -P ${CMAKE_CURRENT_SOURCE_DIR}/consumer/run.cmake)
  endif()
endif()
