// The inner loops of one instruction set, as a table of plain functions: the ops of kernels/cpu split the work over
// threads and blocks and call these.
//
// The files that define a table are compiled with that instruction set's flags. They include nothing with inline
// functions of external linkage (of which the linker would keep one copy, perhaps the one this CPU cannot run); hence
// the plain structs here.
#ifndef CAIRN_KERNELS_CPU_KERNELS_H_
#define CAIRN_KERNELS_CPU_KERNELS_H_

#include <cstddef>
#include <cstdint>

namespace cairn::cpu {

// How floats are held, in memory or as the precision of what is written. E4M3 (kF8) holds weights, keys and values;
// integers (kI8) hold weights only.
enum class Format : int { kF32, kBf16, kF16, kF8, kI8 };

// y = x W^T for some rows, some neighbouring panels of W and some of K.
struct MatMulTile {
  const float* x = nullptr;  // [rows, k]
  int64_t x_stride = 0;      // elements from row to row
  int64_t x_tile_rows = 0;   // if x lies in tiles (Kernels::tiled_pairs)
  int64_t rows = 0;
  const uint8_t* w = nullptr;  // the first panel, at the first k
  int64_t panel_bytes = 0;     // from one panel to the next
  int64_t panels = 0;
  int64_t k = 0;
  float* y = nullptr;  // [rows, columns]
  int64_t y_stride = 0;
  int64_t columns = 0;          // at most 16 * panels
  bool accumulate = false;      // start from y, else from zero
  const float* bias = nullptr;  // [columns], added at the end
  Format round = Format::kF32;  // precision of what is written
  // Where x lies in tiles: the sums of K so far, in tiles of 16 x 16, [panels, rows / 16 rounded up]. Read, instead of
  // y, if `accumulate`; written, instead of y, unless this is the last of K. May be null if neither.
  float* sums = nullptr;
  bool is_last = true;
  // Weights that come after these, to be fetched into the cache meanwhile: next_bytes of each of as many panels.
  const uint8_t* next = nullptr;
  int64_t next_bytes = 0;
  int64_t next_panel_bytes = 0;
};

// Query vectors of one KV head against the slots [slot_begin, slot_end) of its cache: softmax state of those slots
// alone. Query vector v = row * group + g is head g of the group at row `row`; it sees slots below first_row_end + row.
struct AttentionTile {
  const float* q = nullptr;  // row 0, first head of the group
  int64_t q_stride = 0;      // elements from row to row; heads are head_dim apart
  int64_t rows = 0;
  int64_t group = 0;
  int64_t head_dim = 0;
  int32_t first_row_end = 0;
  const int32_t* row_positions = nullptr;  // [rows]; read with a window only
  int32_t window = 0;                      // 0: none

  // The KV head's planes: slot s is row s % block_size of block block_table[s / block_size].
  Format format = Format::kF32;
  const uint8_t* k = nullptr;  // this head's part of the K plane of block 0
  const uint8_t* v = nullptr;
  const uint8_t* positions = nullptr;
  int64_t block_bytes = 0;
  const int32_t* block_table = nullptr;
  int32_t block_size = 0;
  int32_t slot_begin = 0;  // a multiple of kAttentionTileSlots
  int32_t slot_end = 0;

  float* max = nullptr;       // out [rows * group]: largest score, -inf where no slot is visible
  float* sum = nullptr;       // out [rows * group]: sum of exp(score - max)
  float* weighted = nullptr;  // out [rows * group, padded_dim]: sum of exp(score - max) V
  float* scratch = nullptr;   // AttentionScratchFloats(...) floats, 64-byte aligned
};

// Slots whose scores are rescaled together; the order of a row's sums hangs on it.
inline constexpr int kAttentionTileSlots = 64;

// The keys of one KV head in slots [slot_begin, slot_end): slot s is row s % block_size of block
// block_table[s / block_size].
struct KeyTile {
  Format format = Format::kF32;
  const uint8_t* k = nullptr;  // this head's part of the K plane of block 0
  int64_t block_bytes = 0;
  const int32_t* block_table = nullptr;
  int32_t block_size = 0;
  int64_t head_dim = 0;
  int32_t slot_begin = 0;
  int32_t slot_end = 0;  // at most kKeyTileSlots further
};

// Keys that are looked at together; as many bits as a mask has.
inline constexpr int kKeyTileSlots = 64;

// What 1 is in units rounded to 16 bits.
inline constexpr float kRoundedOne = 32000;

// 64 x 64 pairs of keys: rows with columns. Their units [64, padded], the rows' as rounded by unit_keys, and the
// columns' by key_panels after that.
struct KeyPairs {
  const float* row_units = nullptr;
  const float* column_units = nullptr;
  const int16_t* rows = nullptr;      // [64, padded]
  const uint32_t* columns = nullptr;  // panels
  int64_t padded = 0;
  int64_t head_dim = 0;
  float threshold = 0;
  // The product of rounded units is at least first_similar where that of the units may be above the threshold, and from
  // first_similar + doubt + 1 on it is. Below first_similar it is not. |first_similar| <= 1.05e9, so that no difference
  // from a product overflows.
  int32_t first_similar = 0;
  uint32_t doubt = 0;
  uint64_t searching_rows = 0;     // those that want to know their last similar column
  uint64_t searching_columns = 0;  // and their last similar row
  uint64_t valid = 0;              // columns
  bool above = false;              // pairs with column > row alone
};

struct Kernels {
  const char* name;
  int64_t max_rows;        // rows that multiply keeps in registers together
  int64_t panels_at_once;  // panels that it reads side by side then

  void (*multiply[5])(const MatMulTile&);  // by the weights' format
  // bf16 weights by bf16 activations, from pack_bf16_pairs: k counts pairs, x holds pairs. Null where the instruction
  // set has no such dot product.
  void (*multiply_bf16_pairs)(const MatMulTile&);
  // [(k + 1) / 2]; 16 of them lie together, and `stride` is from one 16 to the next. (The last are filled up with zeros
  // where that is more than 16.)
  void (*pack_bf16_pairs)(const float* x, int64_t k, uint32_t* pairs, int64_t stride);
  // Whether multiply_bf16_pairs wants x in tiles of x_tile_rows (16, or all) rows by 16 pairs. Those of the same rows
  // follow each other; x_stride counts pairs, a multiple of 16.
  bool tiled_pairs;
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, Format round, float* y);
  void (*rotate)(float* x, const float* cosine, const float* sine, int64_t half, Format round);
  void (*swiglu)(const float* gate, const float* up, int64_t n, Format round, float* y);
  void (*add)(const float* a, const float* b, int64_t n, Format round, float* y);
  void (*round)(float* x, int64_t n, Format round);
  void (*convert[3])(const float* x, int64_t n, void* y);  // to the format
  void (*attend)(const AttentionTile&);
  // Adds part (max, sum, weighted [n]) to the total of the slots before it.
  void (*merge_attention)(float part_max, float part_sum, const float* part, int64_t n, float* max, float* sum,
                          float* weighted);
  void (*finish_attention)(const float* weighted, float sum, int64_t n, Format round, float* out);

  // Compression's scores. logits[v, s] = q[v] . key s: q [vectors, d], rows of logits `stride` apart. scratch: 64 d
  // floats.
  void (*key_logits)(const KeyTile&, const float* q, int64_t vectors, float* logits, int64_t stride, float* scratch);
  // x = exp(x - its maximum); returns the sum.
  float (*exp_row)(float* x, int64_t n);
  // y += x * factor; y = max(y, x), where a NaN of x counts for nothing.
  void (*add_scaled)(const float* x, float factor, int64_t n, float* y);
  void (*max_row)(const float* x, int64_t n, float* y);
  // units[s] = key s / (its norm + 1e-8), [64, padded], zero behind the last key and the last dimension;
  // squares[s] = units[s] . units[s]; sum [padded]. padded: head_dim rounded up to 16. rounded [64, padded], if it is
  // not null: units * kRoundedOne to the nearest integers, NaN to zero.
  void (*unit_keys)(const KeyTile&, int64_t padded, float* units, float* squares, float* sum, int16_t* rounded);
  // rounded [64, padded] to panels, [4][ceil(d / 2)][16] pairs.
  void (*key_panels)(const int16_t* rounded, int64_t padded, int64_t d, uint32_t* panels);
  // Bit c of masks[r], r < 64: row_units[r] . column_units[c] > threshold, bit c of `valid` is set and, with `above`,
  // c > r. Needed are the last such c of each searching row and the last such r of each searching column, no other bits
  // behind these; zero or the truth elsewhere. Returns the rows whose mask is not zero.
  uint64_t (*similar_keys)(const KeyPairs&, uint64_t* masks);
  // Bit i: values[i] < bound, i < 64.
  uint64_t (*below)(const int32_t* values, int32_t bound);
  // out[s] = units[s] . x, s < count.
  void (*unit_dots)(const float* units, int64_t padded, int64_t count, const float* x, float* out);
  // out[s] = units[s] . units[other[s]] for s in [begin, end); zero where other[s] is negative or s.
  void (*pair_dots)(const float* units, int64_t padded, int64_t begin, int64_t end, const int32_t* other, float* out);
};

extern const Kernels kScalarKernels;
#if defined(__x86_64__)  // elsewhere the scalar loops are all there is
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512Bf16Kernels;
extern const Kernels kAvx512AmxKernels;
// The AVX-512 code on pairs of AVX2 registers, its bf16 dot product in plain arithmetic: for tests on older CPUs.
extern const Kernels kEmulatedAvx512Kernels;
#endif

}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_KERNELS_H_
