// Splits attention into tasks: (sequence, KV head, some rows, a span of slots). Spans start at slot 0 and have a fixed
// length, and a row's result is the merge of its spans in order, so that it does not matter whether one thread walks
// them all or several share them.
#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/formats.h"

namespace cairn::cpu {
namespace {

constexpr int32_t kSpanSlots = 512;
static_assert(kSpanSlots % kAttentionTileSlots == 0);

// Query vectors (rows x heads of a group) that share the reading of K and V. More read less, but fill the L2 cache.
constexpr int64_t kVectorsPerTask = 48;

constexpr int64_t kLane = 16;
int64_t PaddedDim(int64_t d) { return (d + kLane - 1) / kLane * kLane; }

// Some rows of one sequence for one KV head.
struct RowTile {
  const SequenceRows* sequence;
  int32_t head;
  int32_t row;  // first, counted within the sequence
  int32_t num_rows;
  int32_t slots;       // seen by the last row
  int32_t first_span;  // of this tile, counted over all tiles: where its partial results lie

  int32_t num_spans() const { return (slots + kSpanSlots - 1) / kSpanSlots; }
};

// Softmax state of a tile's query vectors, in one piece of memory.
struct State {
  float* max;
  float* sum;
  float* weighted;

  static int64_t Floats(int64_t vectors, int64_t d) {
    return (2 * vectors + kLane - 1) / kLane * kLane + vectors * PaddedDim(d);
  }
  State(float* memory, int64_t vectors)
      : max(memory), sum(memory + vectors), weighted(memory + (2 * vectors + kLane - 1) / kLane * kLane) {}
};

struct Attention {
  const Kernels& kernels;
  const Tensor& q;
  const Tensor& positions;
  const Tensor& out;
  int window;
  Format round;

  int64_t head_dim() const { return q.dim(2); }
  int64_t group(const RowTile& tile) const { return q.dim(1) / tile.sequence->kv.layout.kv_heads; }
  int64_t vectors(const RowTile& tile) const { return tile.num_rows * group(tile); }
  int64_t max_vectors() const { return std::max(kVectorsPerTask, q.dim(1)); }
  int64_t state_floats() const { return State::Floats(max_vectors(), head_dim()); }
  int64_t work_floats() const {
    return 2 * kAttentionTileSlots * PaddedDim(head_dim()) + max_vectors() * (kAttentionTileSlots + head_dim());
  }

  void AttendSpan(const RowTile& tile, int32_t span, float* work, const State& state) const {
    const SequenceRows& rows = *tile.sequence;
    const KvBlockLayout& layout = rows.kv.layout;
    const int64_t t0 = rows.row_begin + tile.row;
    AttentionTile a;
    a.q = q.data<float>() + t0 * q.row_stride() + tile.head * group(tile) * head_dim();
    a.q_stride = q.row_stride();
    a.rows = tile.num_rows;
    a.group = group(tile);
    a.head_dim = head_dim();
    a.first_row_end = tile.slots - tile.num_rows + 1;
    a.row_positions = positions.data<int32_t>() + t0;
    a.window = window;
    a.format = FormatOf(layout.dtype);
    const int64_t head_row = static_cast<int64_t>(tile.head) * layout.block_size;
    a.k = rows.kv.pool + layout.k_offset() + head_row * layout.head_dim * FormatBytes(a.format);
    a.v = rows.kv.pool + layout.v_offset() + head_row * layout.head_dim * FormatBytes(a.format);
    a.positions = rows.kv.pool + layout.position_offset() + head_row * sizeof(int32_t);
    a.block_bytes = static_cast<int64_t>(layout.block_bytes());
    a.block_table = rows.kv.block_table;
    a.block_size = layout.block_size;
    a.slot_begin = span * kSpanSlots;
    a.slot_end = std::min(tile.slots, a.slot_begin + kSpanSlots);
    a.max = state.max;
    a.sum = state.sum;
    a.weighted = state.weighted;
    a.scratch = work;
    kernels.attend(a);
  }

  void Merge(const RowTile& tile, const State& part, const State& total) const {
    const int64_t padded = PaddedDim(head_dim());
    for (int64_t i = 0; i < vectors(tile); ++i) {
      kernels.merge_attention(part.max[i], part.sum[i], part.weighted + i * padded, padded, total.max + i,
                              total.sum + i, total.weighted + i * padded);
    }
  }

  void Finish(const RowTile& tile, const State& total) const {
    const int64_t d = head_dim(), padded = PaddedDim(d), G = group(tile);
    for (int64_t i = 0; i < vectors(tile); ++i) {
      const int64_t t = tile.sequence->row_begin + tile.row + i / G, h = tile.head * G + i % G;
      kernels.finish_attention(total.weighted + i * padded, total.sum[i], d, round,
                               out.data<float>() + t * out.row_stride() + h * d);
    }
  }

  // The whole tile on one thread.
  void RunTile(const RowTile& tile, float* memory) const {
    const State total(memory, vectors(tile)), part(memory + state_floats(), vectors(tile));
    float* work = memory + 2 * state_floats();
    AttendSpan(tile, 0, work, total);
    for (int32_t span = 1; span < tile.num_spans(); ++span) {
      AttendSpan(tile, span, work, part);
      Merge(tile, part, total);
    }
    Finish(tile, total);
  }
};

// The tiles of all sequences, those with the most slots of a prompt first. Returns how many; `tiles` may be null to
// count.
int64_t ListTiles(const Attention& a, absl::Span<const SequenceRows> sequences, RowTile* tiles, int64_t* spans) {
  int64_t count = 0;
  *spans = 0;
  for (const SequenceRows& sequence : sequences) {
    const int kv_heads = sequence.kv.layout.kv_heads;
    const int64_t rows_per_tile = std::max<int64_t>(1, kVectorsPerTask / (a.q.dim(1) / kv_heads));
    for (int64_t end = sequence.num_rows; end > 0; end -= rows_per_tile) {
      RowTile tile = {};
      tile.sequence = &sequence;
      tile.row = static_cast<int32_t>(std::max<int64_t>(0, end - rows_per_tile));
      tile.num_rows = static_cast<int32_t>(end) - tile.row;
      tile.slots = sequence.kv.num_slots - sequence.num_rows + static_cast<int32_t>(end);
      for (tile.head = 0; tile.head < kv_heads; ++tile.head) {
        tile.first_span = static_cast<int32_t>(*spans);
        *spans += tile.num_spans();
        if (tiles != nullptr) tiles[count] = tile;
        ++count;
      }
    }
  }
  return count;
}

// One task per tile.
void RunTiles(Context& context, const Attention& a, const RowTile* tiles, int64_t num_tiles) {
  const int64_t floats = 2 * a.state_floats() + a.work_floats();
  context.threads().ParallelFor(num_tiles, [&](int64_t task, int worker) {
    a.RunTile(tiles[task], static_cast<float*>(context.Scratch(worker, floats * sizeof(float))));
  });
}

// One task per span; then one per tile to merge its spans, in order.
void RunSpans(Context& context, const Attention& a, const RowTile* tiles, int64_t num_tiles, int64_t num_spans,
              float* states) {
  context.threads().ParallelFor(num_spans, [&](int64_t task, int worker) {
    const RowTile& tile = *(std::upper_bound(tiles, tiles + num_tiles, task,
                                             [](int64_t span, const RowTile& t) { return span < t.first_span; }) -
                            1);
    float* work = static_cast<float*>(context.Scratch(worker, a.work_floats() * sizeof(float)));
    a.AttendSpan(tile, static_cast<int32_t>(task) - tile.first_span, work,
                 State(states + task * a.state_floats(), a.vectors(tile)));
  });
  context.threads().ParallelFor(num_tiles, [&](int64_t task, int) {
    const RowTile& tile = tiles[task];
    const auto state = [&](int32_t span) {
      return State(states + (tile.first_span + span) * a.state_floats(), a.vectors(tile));
    };
    for (int32_t span = 1; span < tile.num_spans(); ++span) a.Merge(tile, state(span), state(0));
    a.Finish(tile, state(0));
  });
}

}  // namespace

void PagedAttention(Context& context, const Tensor& q, const Tensor& positions,
                    absl::Span<const SequenceRows> sequences, int sliding_window, const Tensor& out) {
  const Attention a = {context.cpu_kernels(), q, positions, out, sliding_window, ActivationFormat(context)};
  int64_t num_spans = 0;
  const int64_t num_tiles = ListTiles(a, sequences, nullptr, &num_spans);
  // Tiles are split into spans where there are too few to keep the threads evenly busy.
  const bool split = num_spans > num_tiles && num_tiles < 4 * context.threads().num_threads();
  const int64_t tile_bytes = (num_tiles * sizeof(RowTile) + 63) / 64 * 64;
  const int64_t state_bytes = split ? num_spans * a.state_floats() * sizeof(float) : 0;
  uint8_t* shared = static_cast<uint8_t*>(context.SharedScratch(tile_bytes + state_bytes));
  RowTile* tiles = reinterpret_cast<RowTile*>(shared);
  ListTiles(a, sequences, tiles, &num_spans);
  if (split) {
    RunSpans(context, a, tiles, num_tiles, num_spans, reinterpret_cast<float*>(shared + tile_bytes));
  } else {
    RunTiles(context, a, tiles, num_tiles);
  }
}

}  // namespace cairn::cpu
