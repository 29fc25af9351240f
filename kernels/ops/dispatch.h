// How an op reaches its backend, in one place: the CUDA backend adds its branch here.
#ifndef CAIRN_KERNELS_OPS_DISPATCH_H_
#define CAIRN_KERNELS_OPS_DISPATCH_H_

#include "kernels/core/check.h"
#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

// CAIRN_DISPATCH(context, Op, args...): Op of the namespace of the context's device.
#define CAIRN_DISPATCH(context, Op, ...)                                  \
  do {                                                                    \
    CAIRN_CHECK((context).device().is_cpu(), "built without CUDA: " #Op); \
    cpu::Op(context, __VA_ARGS__);                                        \
  } while (false)

// An operand of `op`: where it must live and what it must hold.
inline void CheckOperand(const char* op, const char* name, const Context& context, const Tensor& tensor, DType dtype,
                         int rank) {
  CAIRN_CHECK(tensor.device() == context.device(), op, ": ", name, " is on another device");
  CAIRN_CHECK(tensor.dtype() == dtype, op, ": ", name, " holds ", DTypeName(tensor.dtype()), ", expected ",
              DTypeName(dtype));
  CAIRN_CHECK(tensor.rank() == rank, op, ": ", name, " has rank ", tensor.rank(), ", expected ", rank);
}

inline void CheckDim(const char* op, const char* name, const Tensor& tensor, int dim, int64_t expected) {
  CAIRN_CHECK(tensor.dim(dim) == expected, op, ": dimension ", dim, " of ", name, " is ", tensor.dim(dim),
              ", expected ", expected);
}

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_DISPATCH_H_
