# CUDA: with nvcc, the device's side of the library (kernels/cuda/backend*.cu) becomes part of it. Nobody who links the library needs
# nvcc for that: the objects lie in it, the runtime they call is linked statically, and an installation brings a copy of it.

set(TWEEDIE_CUDA AUTO CACHE STRING "Code for CUDA devices: AUTO (if nvcc is there), ON (stop if it is not), OFF")
set(cuda_wanted ${TWEEDIE_CUDA})
if(TWEEDIE_CUDA STREQUAL "AUTO" AND NOT PROJECT_IS_TOP_LEVEL)
  set(cuda_wanted OFF)
endif()
# With another host compiler than g++, CMake 3.25 appends an older -std to nvcc's line than the sources need.
if(TWEEDIE_CUDA STREQUAL "AUTO" AND NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(cuda_wanted OFF)
endif()
if(cuda_wanted)
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER AND NOT TWEEDIE_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "TWEEDIE_CUDA is ON and nvcc was not found. Put it on PATH, set CUDACXX, or pass -DTWEEDIE_CUDA=OFF.")
  endif()
endif()
if(NOT cuda_wanted OR NOT CMAKE_CUDA_COMPILER)
  tweedie_line("CUDA (nvcc)" "off: TWEEDIE_CUDA=${TWEEDIE_CUDA}: nvcc not found, not asked for, or the C++ compiler is not g++")
  return()
endif()

set(TWEEDIE_CUDA_ARCHITECTURES 80-real 90a-real 90-virtual CACHE STRING "GPU architectures, as CMAKE_CUDA_ARCHITECTURES writes them")
set(CMAKE_CUDA_ARCHITECTURES ${TWEEDIE_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # linked by name below
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
if(NOT TARGET CUDA::cudart_static)
  message(FATAL_ERROR "nvcc was found and its libcudart_static.a was not. Install the toolkit's runtime library or pass -DTWEEDIE_CUDA=OFF.")
endif()
set(TWEEDIE_HAVE_CUDA ON)
tweedie_line("CUDA (nvcc)" "on, ${CMAKE_CUDA_COMPILER_VERSION}, for ${TWEEDIE_CUDA_ARCHITECTURES}")

# Flags of every .cu: bodies have the host's bits, so nothing is contracted.
function(tweedie_cuda_target target)
  target_compile_options(${target} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-std=c++20 -fmad=false>)
  target_include_directories(${target} PRIVATE ${TWEEDIE_INCLUDE_ROOT})
endfunction()

file(GLOB TWEEDIE_CUDA_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/kernels/cuda/backend*.cu)
add_library(tweedie_cuda OBJECT ${TWEEDIE_CUDA_SOURCES})
tweedie_cuda_target(tweedie_cuda)
target_compile_definitions(tweedie_cuda PRIVATE TWEEDIE_BUILDING)
set_target_properties(tweedie_cuda PROPERTIES POSITION_INDEPENDENT_CODE ON CUDA_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)

target_sources(tweedie PRIVATE $<TARGET_OBJECTS:tweedie_cuda>)
set_property(SOURCE ${PROJECT_SOURCE_DIR}/kernels/cuda/no_backend.cpp APPEND PROPERTY COMPILE_DEFINITIONS TWEEDIE_HAVE_CUDA)
# By its file, not its target: that would give every C++ file of the library the toolkit's headers.
get_target_property(TWEEDIE_CUDART CUDA::cudart_static IMPORTED_LOCATION)
foreach(library IN ITEMS ${TWEEDIE_CUDART} ${CMAKE_DL_LIBS} rt)
  target_link_libraries(tweedie PRIVATE $<BUILD_INTERFACE:${library}>)
endforeach()
target_link_libraries(tweedie PRIVATE $<INSTALL_INTERFACE:tweedie::cudart>)
set_target_properties(tweedie PROPERTIES LINKER_LANGUAGE CXX)
