// Splitting of rows that are computed alone over the context's threads.
#ifndef CAIRN_KERNELS_CPU_PARALLEL_ROWS_H_
#define CAIRN_KERNELS_CPU_PARALLEL_ROWS_H_

#include <algorithm>
#include <cstdint>

#include "kernels/core/context.h"

namespace cairn::cpu {

// Elements worth a task: below this, handing work to another thread costs more than doing it.
inline constexpr int64_t kElementsPerTask = 8192;

// body(row) for every row; rows of `row_elements` elements are grouped into tasks.
template <typename Body>
void ParallelRows(Context& context, int64_t rows, int64_t row_elements, const Body& body) {
  const int64_t rows_per_task = std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, row_elements));
  const int64_t tasks = (rows + rows_per_task - 1) / rows_per_task;
  context.threads().ParallelFor(tasks, [&](int64_t task, int) {
    const int64_t end = std::min(rows, (task + 1) * rows_per_task);
    for (int64_t row = task * rows_per_task; row < end; ++row) body(row);
  });
}

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_PARALLEL_ROWS_H_
