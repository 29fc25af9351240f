// The rows of a step's sequences, checked for the ops of the paged cache.
#ifndef CAIRN_KERNELS_OPS_CHECK_SEQUENCES_H_
#define CAIRN_KERNELS_OPS_CHECK_SEQUENCES_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/core/check.h"
#include "kernels/core/kv_view.h"

namespace cairn {

// Rows within num_rows, slots for all of them, a cache of head_dim and (unless kv_heads < 0) kv_heads.
inline void CheckSequences(const char* op, absl::Span<const SequenceRows> sequences, int64_t num_rows, int64_t kv_heads,
                           int64_t head_dim) {
  for (const SequenceRows& rows : sequences) {
    const KvBlockLayout& layout = rows.kv.layout;
    CAIRN_CHECK(rows.row_begin >= 0 && rows.num_rows >= 0 && rows.row_begin + rows.num_rows <= num_rows, op, ": rows ",
                rows.row_begin, " + ", rows.num_rows, " of ", num_rows);
    CAIRN_CHECK(rows.num_rows <= rows.kv.num_slots, op, ": ", rows.num_rows, " rows in ", rows.kv.num_slots, " slots");
    CAIRN_CHECK(layout.head_dim == head_dim, op, ": head_dim ", head_dim, ", the cache holds ", layout.head_dim);
    CAIRN_CHECK(kv_heads < 0 || layout.kv_heads == kv_heads, op, ": ", kv_heads, " KV heads, the cache holds ",
                layout.kv_heads);
  }
}

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_CHECK_SEQUENCES_H_
