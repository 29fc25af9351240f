// Plain pointers into one layer of the paged KV cache of one sequence: what attention and scorers read.
//
// A block holds `block_size` slots of one (sequence, layer) for all local KV heads. In a block, in this order:
//   K         [kv_heads][block_size][head_dim]   keys after RoPE
//   V         [kv_heads][block_size][head_dim]
//   position  [kv_heads][block_size] int32       position of the token in the slot (per head: heads may differ)
//   scores    num_scores x [kv_heads][block_size] float32     what methods remember of the slot
// each plane padded to 64 bytes. Slot s of the sequence is in block block_table[s / block_size] at s % block_size.
#ifndef CAIRN_KERNELS_CORE_KV_VIEW_H_
#define CAIRN_KERNELS_CORE_KV_VIEW_H_

#include <cstddef>
#include <cstdint>

#include "kernels/core/dtype.h"

namespace cairn {

// At most so many planes of scores.
inline constexpr int kMaxScores = 2;

struct KvBlockLayout {
  int kv_heads = 0;  // on this rank
  int head_dim = 0;
  int block_size = 0;
  DType dtype = DType::kFloat32;  // of K and V: kFloat32, kBFloat16, kFloat16 or kFloat8E4M3 (without a scale)
  int num_scores = 0;             // planes of what methods remember of a slot, zero in new ones; at most kMaxScores

  static constexpr size_t Align(size_t bytes) { return (bytes + 63) / 64 * 64; }
  size_t kv_plane_bytes() const {
    return Align(static_cast<size_t>(kv_heads) * block_size * head_dim * DTypeSize(dtype));
  }
  size_t position_plane_bytes() const { return Align(static_cast<size_t>(kv_heads) * block_size * sizeof(int32_t)); }
  size_t k_offset() const { return 0; }
  size_t v_offset() const { return kv_plane_bytes(); }
  size_t position_offset() const { return 2 * kv_plane_bytes(); }
  size_t score_plane_bytes() const { return Align(static_cast<size_t>(kv_heads) * block_size * sizeof(float)); }
  size_t score_offset(int plane = 0) const {
    return position_offset() + position_plane_bytes() + static_cast<size_t>(plane) * score_plane_bytes();
  }
  size_t block_bytes() const { return score_offset(num_scores); }
};

struct KvView {
  KvBlockLayout layout;
  uint8_t* pool = nullptr;               // block b starts at pool + b * layout.block_bytes()
  const int32_t* block_table = nullptr;  // [ceil(num_slots / block_size)], host memory
  int32_t num_slots = 0;                 // physical length
  // On a GPU, where a cache keeps its block tables there too: all of them, and where this one's begins. Null: an op
  // sends of block_table what it needs.
  const int32_t* device_tables = nullptr;
  int32_t device_table_begin = 0;

  uint8_t* block(int32_t slot) const {
    return pool + static_cast<size_t>(block_table[slot / layout.block_size]) * layout.block_bytes();
  }
  // Element offset of (head, slot) inside the K or V plane of its block, and inside the position plane.
  size_t kv_element(int head, int32_t slot) const {
    return (static_cast<size_t>(head) * layout.block_size + slot % layout.block_size) * layout.head_dim;
  }
  uint8_t* k(int head, int32_t slot) const {
    return block(slot) + layout.k_offset() + kv_element(head, slot) * DTypeSize(layout.dtype);
  }
  uint8_t* v(int head, int32_t slot) const {
    return block(slot) + layout.v_offset() + kv_element(head, slot) * DTypeSize(layout.dtype);
  }
  int32_t* position(int head, int32_t slot) const {
    return reinterpret_cast<int32_t*>(block(slot) + layout.position_offset()) +
           static_cast<size_t>(head) * layout.block_size + slot % layout.block_size;
  }
  // plane < layout.num_scores.
  float* score(int head, int32_t slot, int plane = 0) const {
    return reinterpret_cast<float*>(block(slot) + layout.score_offset(plane)) +
           static_cast<size_t>(head) * layout.block_size + slot % layout.block_size;
  }
};

// The rows of one sequence in a step's [tokens, ...] tensors, with the layer's cache after this step's append:
// row row_begin + i is the token in slot kv.num_slots - num_rows + i.
struct SequenceRows {
  int32_t row_begin = 0;
  int32_t num_rows = 0;
  KvView kv;
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_CORE_KV_VIEW_H_
