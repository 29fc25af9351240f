// The attention that the window's queries pay to the slots: logits tile by tile, then each head's softmax and sums.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/fixed_point.h"
#include "kernels/cpu/key_tiles.h"
#include "kernels/cpu/kv_ops.h"

namespace cairn::cpu {
namespace {

// The query vectors of a head, v = r * G + g, and their logits against the first `slots` slots.
struct Window {
  const KvView& kv;
  const Tensor& queries;
  int64_t slots;

  int64_t w() const { return queries.dim(0); }
  int64_t G() const { return queries.dim(1) / kv.layout.kv_heads; }
  int64_t d() const { return kv.layout.head_dim; }
  int64_t vectors() const { return w() * G(); }
  int64_t stride() const { return PaddedFloats(slots); }
  int64_t floats_per_head() const { return vectors() * (stride() + d()); }
};

// [w, G, d] of a head, divided by sqrt(d).
void ScaleQueries(const Window& window, int64_t head, float* q) {
  const float scale = 1.0f / std::sqrt(static_cast<float>(window.d()));
  const int64_t row = window.G() * window.d();
  for (int64_t r = 0; r < window.w(); ++r) {
    const float* from = window.queries.data<float>() + r * window.queries.row_stride() + head * row;
    for (int64_t i = 0; i < row; ++i) q[r * row + i] = from[i] * scale;
  }
}

// reduce(head, logits, row) for every head, where logits are [vectors, stride] and row is where the head's result goes.
template <typename Reduce>
void ForHeadLogits(Context& context, const Window& window, const Tensor& out, const Reduce& reduce) {
  const Kernels& kernels = context.cpu_kernels();
  const int64_t tiles = NumKeyTiles(window.slots), per_head = window.floats_per_head();
  const int64_t logits_floats = window.vectors() * window.stride();
  const auto of_heads = [&](const auto& threads, int64_t first, int64_t heads, float* memory) {
    threads.ForEach(heads, [&](int64_t head, int) {
      ScaleQueries(window, first + head, memory + head * per_head + logits_floats);
    });
    threads.ForEach(heads * tiles, [&](int64_t task, int worker) {
      const int64_t head = task / tiles, tile = task % tiles;
      if (tile + 1 < tiles) FetchKeys(KeyTileOf(window.kv, first + head, tile + 1, window.slots));
      float* logits = memory + head * per_head;
      float* scratch = static_cast<float*>(context.Scratch(worker, kKeyTileSlots * window.d() * sizeof(float)));
      kernels.key_logits(KeyTileOf(window.kv, first + head, tile, window.slots), logits + logits_floats,
                         window.vectors(), logits + tile * kKeyTileSlots, window.stride(), scratch);
    });
    threads.ForEach(heads, [&](int64_t head, int worker) {
      reduce(memory + head * per_head, out.data<float>() + (first + head) * out.row_stride(), worker);
    });
  };
  ForHeads(context, window.kv.layout.kv_heads, per_head, of_heads);
}

// Softmax probabilities of a head's vectors over the slots that each of them may see; zero beyond.
void CausalSoftmax(const Kernels& kernels, const Window& window, float* p) {
  for (int64_t v = 0; v < window.vectors(); ++v, p += window.stride()) {
    const int64_t visible = window.slots - window.w() + v / window.G() + 1;
    const float factor = 1.0f / kernels.exp_row(p, visible);
    for (int64_t i = 0; i < visible; ++i) p[i] *= factor;
    std::fill(p + visible, p + window.slots, 0.0f);
  }
}

// P of section 3 reduced for slots [0, columns): p [w, G, stride]; sums and fixed hold `columns` numbers.
void ReduceHeads(const Kernels& kernels, const Window& window, WindowReduce reduce, const float* p, int64_t columns,
                 float* sums, int64_t* fixed, float* out) {
  std::fill_n(out, columns, 0.0f);
  std::fill_n(fixed, columns, 0);
  for (int64_t g = 0; g < window.G(); ++g) {
    std::fill_n(sums, columns, 0.0f);
    for (int64_t r = 0; r < window.w(); ++r) {
      kernels.add_scaled(p + (r * window.G() + g) * window.stride(), 1, columns, sums);
    }
    if (reduce == WindowReduce::kMaxOfHeads) {
      kernels.max_row(sums, columns, out);
    } else {
      for (int64_t i = 0; i < columns; ++i) fixed[i] += ToFixedPoint(sums[i]);
    }
  }
  if (reduce == WindowReduce::kMaxOfHeads) return;
  const double divisor = kFixedPointOne * (reduce == WindowReduce::kMeanOfHeads ? static_cast<double>(window.G()) : 1);
  for (int64_t i = 0; i < columns; ++i) out[i] = static_cast<float>(static_cast<double>(fixed[i]) / divisor);
}

void MeanOfMaxima(const Kernels& kernels, const Window& window, const float* p, int64_t columns, float* maxima,
                  float* out) {
  std::fill_n(out, columns, 0.0f);
  for (int64_t r = 0; r < window.w(); ++r) {
    std::fill_n(maxima, columns, 0.0f);
    for (int64_t g = 0; g < window.G(); ++g, p += window.stride()) kernels.max_row(p, columns, maxima);
    kernels.add_scaled(maxima, 1.0f / static_cast<float>(window.w()), columns, out);
  }
}

}  // namespace

void WindowImportance(Context& context, const KvView& kv, const Tensor& queries, const Tensor& out) {
  const Window window = {kv, queries, out.dim(1)};
  const Kernels& kernels = context.cpu_kernels();
  const int64_t m = window.slots;
  ForHeadLogits(context, window, out, [&](float* logits, float* row, int) {
    std::fill_n(row, m, 0.0f);
    for (int64_t r = 0; r < window.w(); ++r, logits += window.G() * window.stride()) {
      for (int64_t g = 1; g < window.G(); ++g) kernels.max_row(logits + g * window.stride(), m, logits);
      const float sum = kernels.exp_row(logits, m);
      kernels.add_scaled(logits, 1.0f / (sum * static_cast<float>(window.w())), m, row);
    }
  });
}

void WindowAttention(Context& context, const KvView& kv, const Tensor& queries, WindowReduce reduce,
                     const Tensor& out) {
  const Window window = {kv, queries, kv.num_slots};
  const Kernels& kernels = context.cpu_kernels();
  const int64_t columns = out.dim(1);
  ForHeadLogits(context, window, out, [&](float* logits, float* row, int worker) {
    int64_t* fixed = static_cast<int64_t*>(context.Scratch(worker, columns * (sizeof(int64_t) + sizeof(float))));
    float* sums = reinterpret_cast<float*>(fixed + columns);
    CausalSoftmax(kernels, window, logits);
    if (reduce == WindowReduce::kMeanOfMaxima) {
      MeanOfMaxima(kernels, window, logits, columns, sums, row);
    } else {
      ReduceHeads(kernels, window, reduce, logits, columns, sums, fixed, row);
    }
  });
}

}  // namespace cairn::cpu
