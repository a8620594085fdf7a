# Installs headers, both libraries, the program and the package that find_package(Tandem) reads.
include(CMakePackageConfigHelpers)

install(TARGETS tandem_static tandem_shared EXPORT TandemTargets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
foreach(folder core layers optim data)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${folder}/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tandem/${folder}
    FILES_MATCHING PATTERN "*.h" PATTERN "cpu" EXCLUDE PATTERN "ops" EXCLUDE  # the rest: the library's own parts
    PATTERN "tensor_impl.h" EXCLUDE PATTERN "parallel.h" EXCLUDE PATTERN "scalar_math.h" EXCLUDE PATTERN "blas.h" EXCLUDE
    PATTERN "backend.h" EXCLUDE PATTERN "walk.h" EXCLUDE PATTERN "window.h" EXCLUDE PATTERN "memory_pool.h" EXCLUDE)
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/cmake/tandem.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tandem)
if(TANDEM_BUILD_APPS)
  install(TARGETS tandem_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

set(package ${CMAKE_INSTALL_LIBDIR}/cmake/Tandem)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/TandemConfig.cmake.in
  ${PROJECT_BINARY_DIR}/TandemConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/TandemConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT TandemTargets NAMESPACE Tandem:: DESTINATION ${package})
install(FILES ${PROJECT_BINARY_DIR}/TandemConfig.cmake ${PROJECT_BINARY_DIR}/TandemConfigVersion.cmake
  ${PROJECT_SOURCE_DIR}/cmake/FindOpenBLAS.cmake DESTINATION ${package})
