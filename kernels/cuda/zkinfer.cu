// All kernels in one translation unit: one module on the device, one fatbin.
#include "ntt.cu"
#include "merkle.cu"
#include "polynomial.cu"
#include "constraints.cu"
#include "circuit.cu"
#include "grind.cu"
