# How every target of the project is compiled.

function(tandem_sanitize target)
  if(TANDEM_SANITIZE)
    # GCC 12's sanitizers make it see uninitialised values where there are none (std::function, std::regex).
    target_compile_options(${target} PRIVATE -fsanitize=${TANDEM_SANITIZE} -fno-omit-frame-pointer
      -fno-sanitize-recover=all $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
    target_link_options(${target} PUBLIC -fsanitize=${TANDEM_SANITIZE})
  endif()
endfunction()

function(tandem_compile target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
  target_include_directories(${target} PRIVATE ${TANDEM_INCLUDE})
  # One rounding per written operation: the same bits from every compiler and instruction set.
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -ffp-contract=off -fno-math-errno
    -fno-trapping-math)
  if(TANDEM_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  tandem_sanitize(${target})
endfunction()

# One copy of the CPU kernels, in its own namespace: on an older CPU nothing of the newer copies runs.
function(tandem_cpu_path target path)
  target_compile_definitions(${target} PRIVATE TANDEM_BACKEND=${path})
  set(flags_x86_64 -march=x86-64)
  set(flags_avx2 -march=x86-64-v3)
  set(flags_avx512 -march=x86-64-v4 -mprefer-vector-width=512)
  target_compile_options(${target} PRIVATE ${flags_${path}})
  if(NOT TANDEM_SANITIZE)
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release,RelWithDebInfo>:-O3>)
  elseif(path STREQUAL x86_64)  # sanitized tests run the copy for this CPU, which is another one since 2013
    target_compile_options(${target} PRIVATE -fno-sanitize=all -O0)
  endif()
endfunction()

# Version and commit reach the code through one file, recompiled when HEAD moves.
function(tandem_version_definitions source)
  set(commit unknown)
  find_package(Git QUIET)
  if(GIT_FOUND AND EXISTS ${PROJECT_SOURCE_DIR}/.git)
    execute_process(COMMAND ${GIT_EXECUTABLE} rev-parse --short=12 HEAD WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}
      OUTPUT_VARIABLE head OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(head)
      set(commit ${head})
    endif()
    if(EXISTS ${PROJECT_SOURCE_DIR}/.git/logs/HEAD)
      set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/.git/logs/HEAD)
    endif()
  endif()
  set_source_files_properties(${source} PROPERTIES COMPILE_DEFINITIONS
    "TANDEM_VERSION=\"${PROJECT_VERSION}\";TANDEM_COMMIT=\"${commit}\"")
endfunction()
