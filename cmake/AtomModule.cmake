# What most files include and what takes most of their compilation. A file still includes what it uses: the preset
# `fuzz` builds without precompiled headers.
set(ATOM_COMMON_HEADERS <algorithm> <chrono> <cmath> <filesystem> <functional> <map> <memory> <optional> <span> <string>
  <vector> <fmt/format.h> <spdlog/spdlog.h> <nlohmann/json.hpp>)

# atom_precompile(TARGET OWNER header...): precompiles the headers once, for OWNER, and uses that for TARGET. Files of
# one instruction set are left out: what they include decides what they emit.
function(atom_precompile target owner)
  if(NOT ATOM_PCH)
    return()
  endif()
  if(target STREQUAL owner)
    target_precompile_headers(${target} PRIVATE ${ARGN})
  else()
    target_precompile_headers(${target} REUSE_FROM ${owner})
  endif()
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "_avx(2|512|512vnni)\\.cpp$")
  if(sources)
    set_source_files_properties(${sources} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
  endif()
endfunction()

# atom_compile_quickly(TARGET): for code whose compilation takes longer than it ever runs.
function(atom_compile_quickly target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1> $<$<CONFIG:RelWithDebInfo>:-O0>)
  # With little inlining GCC 12 takes std::string apart only half, and warns of what is left (bugs 105329, 105651).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-Wno-stringop-overflow;-Wno-maybe-uninitialized>)
  endif()
endfunction()

# atom_module(NAME DEPS module... LIBS target...)
#
# Makes the static library atom_NAME from every .cpp of this folder (and of the folders below it), and the
# executable atom_NAME_test from every *_test.cpp. A file whose name ends in _avx2, _avx512 or _avx512vnni is
# compiled for that instruction set alone and left out on other processors. With ATOM_CUDA the .cu files belong to the
# library too, and atom_NAME_cuda_test is made from every *_test.cu and *_gpu_test.cpp.
function(atom_module name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "_test\\.cpp$")
  set(gpu_tests ${tests})
  list(FILTER tests EXCLUDE REGEX "_gpu_test\\.cpp$")
  list(FILTER gpu_tests INCLUDE REGEX "_gpu_test\\.cpp$")
  if(NOT ATOM_X86)
    list(FILTER sources EXCLUDE REGEX "_avx(2|512|512vnni)\\.cpp$")
  endif()
  foreach(source IN LISTS sources)
    if(source MATCHES "_avx2\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2")
    elseif(source MATCHES "_avx512\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mfma;-mf16c;-mbmi2;-mprefer-vector-width=512")
    elseif(source MATCHES "_avx512vnni\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS
        "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx512vnni;-mfma;-mf16c;-mbmi2;-mprefer-vector-width=512")
    endif()
  endforeach()
  # Vector code is unrolled into large functions, which checks of undefined behaviour make too large to compile.
  if(ATOM_SANITIZE MATCHES "undefined")
    foreach(source IN LISTS sources)
      if(source MATCHES "_avx(2|512|512vnni)\\.cpp$")
        set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS "-fno-sanitize=undefined")
      endif()
    endforeach()
  endif()
  # GCC 12 takes the deliberately undefined vectors inside its own AVX-512 intrinsics for mistakes (PR 105593).
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    foreach(source IN LISTS sources)
      if(source MATCHES "_avx512(vnni)?\\.cpp$")
        set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS
          "-Wno-uninitialized;-Wno-maybe-uninitialized")
      endif()
    endforeach()
  endif()
  if(NOT sources)
    return()
  endif()
  set(cuda_tests)
  if(ATOM_CUDA)
    # What stands in for the GPU backend where there is none.
    list(FILTER sources EXCLUDE REGEX "/no_cuda\\.cpp$")
    file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cu)
    set(cuda_tests ${cuda_sources})
    list(FILTER cuda_tests INCLUDE REGEX "_test\\.cu$")
    list(APPEND cuda_tests ${gpu_tests})
    list(FILTER cuda_sources EXCLUDE REGEX "_test\\.cu$")
    list(APPEND sources ${cuda_sources})
    if(cuda_sources)
      # To link with alone: .cpp files are compiled as without CUDA, and know nothing of it.
      list(APPEND ARG_LIBS $<LINK_ONLY:CUDA::cudart_static> $<LINK_ONLY:CUDA::cublas> $<LINK_ONLY:CUDA::cublasLt>
        $<LINK_ONLY:CUDA::cusolver>)
    endif()
  endif()
  add_library(atom_${name} STATIC ${sources})
  atom_precompile(atom_${name} atom_base ${ATOM_COMMON_HEADERS})
  target_include_directories(atom_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM ARG_DEPS PREPEND atom_)
  target_link_libraries(atom_${name} PUBLIC ${ARG_DEPS} ${ARG_LIBS})
  if(ATOM_TESTS AND tests)
    add_executable(atom_${name}_test ${tests})
    target_link_libraries(atom_${name}_test PRIVATE atom_${name} GTest::gtest GTest::gtest_main)
    atom_compile_quickly(atom_${name}_test)
    atom_precompile(atom_${name}_test atom_base_test ${ATOM_COMMON_HEADERS} <gtest/gtest.h>)
    gtest_discover_tests(atom_${name}_test DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
      PROPERTIES LABELS unit TIMEOUT 600)
  endif()
  if(ATOM_TESTS AND cuda_tests)
    add_executable(atom_${name}_cuda_test ${cuda_tests})
    target_link_libraries(atom_${name}_cuda_test PRIVATE atom_${name} GTest::gtest GTest::gtest_main)
    gtest_discover_tests(atom_${name}_cuda_test DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60
      PROPERTIES LABELS cuda TIMEOUT 600)
  endif()
endfunction()
