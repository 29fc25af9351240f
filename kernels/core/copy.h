// Between host memory and tensors of any device, and between tensors of one.
#ifndef CAIRN_KERNELS_CORE_COPY_H_
#define CAIRN_KERNELS_CORE_COPY_H_

#include "kernels/core/context.h"
#include "kernels/core/tensor.h"

namespace cairn {

// Fills `to` from host memory that holds its elements row after row without gaps. The source may change on return; on
// CUDA the copy takes its place among the ops of the stream.
void CopyFromHost(Context& context, const void* from, const Tensor& to);

// The reverse, after the ops that were given before; done on return.
void CopyToHost(Context& context, const Tensor& from, void* to);

// Between tensors of the context's device that do not overlap, of one type and shape; their rows may be strided.
void CopyTensor(Context& context, const Tensor& from, const Tensor& to);

// Zeros.
void ClearTensor(Context& context, const Tensor& tensor);

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_COPY_H_
