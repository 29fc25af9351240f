// How an op reaches its backend, in one place. CAIRN_CUDA is defined where the CUDA backend (or its emulation for
// tests) is part of the library.
#ifndef CAIRN_KERNELS_OPS_DISPATCH_H_
#define CAIRN_KERNELS_OPS_DISPATCH_H_

#include "kernels/core/check.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"
#if CAIRN_CUDA
#include "kernels/cuda/cuda_ops.h"
#endif

namespace cairn {

// CAIRN_DISPATCH(context, Op, args...): Op of the namespace of the context's device.
#if CAIRN_CUDA
#define CAIRN_DISPATCH(context, Op, ...) \
  do {                                   \
    if ((context).device().is_cpu()) {   \
      cpu::Op(context, __VA_ARGS__);     \
    } else {                             \
      cuda::Op(context, __VA_ARGS__);    \
    }                                    \
  } while (false)
#else
#define CAIRN_DISPATCH(context, Op, ...)                                        \
  do {                                                                          \
    CAIRN_CHECK((context).device().is_cpu(), "no CUDA version is built: " #Op); \
    cpu::Op(context, __VA_ARGS__);                                              \
  } while (false)
#endif

// CAIRN_RETURN_ON_GPU(context, Op, args...): of an op that on CPU is a loop over the backend's, which follows.
#if CAIRN_CUDA
#define CAIRN_RETURN_ON_GPU(context, Op, ...) \
  if (!(context).device().is_cpu()) return cuda::Op(context, __VA_ARGS__)
#else
#define CAIRN_RETURN_ON_GPU(context, Op, ...) CAIRN_CHECK((context).device().is_cpu(), "no CUDA version is built: " #Op)
#endif

// An operand of `op`: where it must live and what it must hold.
inline void CheckOperand(const char* op, const char* name, const Context& context, const Tensor& tensor, DType dtype,
                         int rank) {
  CAIRN_CHECK(tensor.device() == context.device(), op, ": ", name, " is on another device");
  CAIRN_CHECK(tensor.dtype() == dtype, op, ": ", name, " holds ", DTypeName(tensor.dtype()), ", expected ",
              DTypeName(dtype));
  CAIRN_CHECK(tensor.rank() == rank, op, ": ", name, " has rank ", tensor.rank(), ", expected ", rank);
}

// An operand that holds activations.
inline void CheckActivation(const char* op, const char* name, const Context& context, const Tensor& tensor, int rank) {
  CheckOperand(op, name, context, tensor, context.storage_dtype(), rank);
}

inline void CheckDim(const char* op, const char* name, const Tensor& tensor, int dim, int64_t expected) {
  CAIRN_CHECK(tensor.dim(dim) == expected, op, ": dimension ", dim, " of ", name, " is ", tensor.dim(dim),
              ", expected ", expected);
}

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_DISPATCH_H_
