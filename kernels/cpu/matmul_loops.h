// The matmul inner loops over F32x16. Included once by each instruction set's file, which sets kMaxRows,
// kMaxAccumulators and kMaxAccumulatorsWidened: how many rows, and how many sums of 16 columns, are kept in registers.
//
// Every output is one chain of fused multiply-adds over ascending k (with bf16_dot: over pairs of k). How rows and
// panels are grouped, and where K is cut, changes which chains run side by side, never a chain.
#ifndef CAIRN_KERNELS_CPU_MATMUL_LOOPS_H_
#define CAIRN_KERNELS_CPU_MATMUL_LOOPS_H_

namespace cairn::cpu {
namespace {

#define CAIRN_UNROLL _Pragma("GCC unroll 32")

constexpr int64_t kPanelColumns = 16;

// How far ahead weights are fetched when they are read once: further than the hardware looks, which stops at page ends.
// (12 -> 15 GB/s on one Zen 3 thread at 4 rows.)
constexpr int64_t kFetchAhead = 1024;

// How a panel is read: kStep values of k at a time.
struct F32Weights {
  static constexpr int64_t kStep = 1, kBytesPerK = 64;
  CAIRN_SIMD static F32x16 Read(const uint8_t* w) { return Load(reinterpret_cast<const float*>(w)); }
};
struct F16Weights {
  static constexpr int64_t kStep = 1, kBytesPerK = 32;
  CAIRN_SIMD static F32x16 Read(const uint8_t* w) { return LoadF16(reinterpret_cast<const uint16_t*>(w)); }
};
struct F8Weights {
  static constexpr int64_t kStep = 1, kBytesPerK = 16;
  CAIRN_SIMD static F32x16 Read(const uint8_t* w) { return LoadF8(w); }
};
struct I8Weights {
  static constexpr int64_t kStep = 1, kBytesPerK = 16;
  CAIRN_SIMD static F32x16 Read(const uint8_t* w) { return LoadI8(w); }
};
struct Bf16Weights {
  static constexpr int64_t kStep = 2, kBytesPerK = 32;
};
#if CAIRN_BF16_DOT
struct Bf16DotWeights {  // k counts pairs
  static constexpr int64_t kStep = 1, kBytesPerK = 64;
};
#endif

template <int R, int P>
struct Sums {
  F32x16 at[R][P];
};

template <int R>
struct Rows {
  const float* at[R];
};

template <int R, int P>
CAIRN_SIMD void FmaAll(const Rows<R>& x, int64_t k, const F32x16 (&w)[P], Sums<R, P>& sums) {
  CAIRN_UNROLL for (int r = 0; r < R; ++r) {
    const F32x16 xk = Broadcast(x.at[r] + k);
    CAIRN_UNROLL for (int p = 0; p < P; ++p) sums.at[r][p] = Fma(xk, w[p], sums.at[r][p]);
  }
}

template <typename W, int R, int P>
CAIRN_SIMD void Step(const Rows<R>& x, int64_t k, const uint8_t* w, int64_t panel_bytes, Sums<R, P>& sums) {
  if constexpr (W::kStep == 2) {
    F32x16 even[P], odd[P];
    CAIRN_UNROLL for (int p = 0; p < P; ++p) even[p] = LowBf16(LoadU32(w + p * panel_bytes));
    FmaAll<R, P>(x, k, even, sums);
    // Read again rather than kept: registers are scarcer than loads. (Hides from the compiler that it is the same.)
    asm("" : "+r"(w));
    CAIRN_UNROLL for (int p = 0; p < P; ++p) odd[p] = HighBf16(LoadU32(w + p * panel_bytes));
    FmaAll<R, P>(x, k + 1, odd, sums);
#if CAIRN_BF16_DOT
  } else if constexpr (__is_same(W, Bf16DotWeights)) {
    U32x16 pairs[P];
    CAIRN_UNROLL for (int p = 0; p < P; ++p) pairs[p] = LoadU32(w + p * panel_bytes);
    CAIRN_UNROLL for (int r = 0; r < R; ++r) {
      const U32x16 xk = BroadcastU32(reinterpret_cast<const uint32_t*>(x.at[r] + k));
      CAIRN_UNROLL for (int p = 0; p < P; ++p) sums.at[r][p] = DotBf16(sums.at[r][p], xk, pairs[p]);
    }
#endif
  } else {
    F32x16 wk[P];
    CAIRN_UNROLL for (int p = 0; p < P; ++p) wk[p] = W::Read(w + p * panel_bytes);
    FmaAll<R, P>(x, k, wk, sums);
  }
}

// Where to fetch weights from, and how far to move on per step.
struct Fetch {
  const uint8_t* from;
  int64_t step;
  int64_t panel_bytes;
};

// Rows row .. row + R - 1 times panels panel .. panel + P - 1.
template <typename W, int R, int P>
void MultiplyBlock(const MatMulTile& t, int64_t row, int64_t panel, const Fetch* next) {
  Rows<R> x;
  Sums<R, P> sums;
  CAIRN_UNROLL for (int r = 0; r < R; ++r) x.at[r] = t.x + (row + r) * t.x_stride;
  float* y = t.y + row * t.y_stride + panel * kPanelColumns;
  const int64_t columns = t.columns - panel * kPanelColumns;
  CAIRN_UNROLL for (int r = 0; r < R; ++r) { CAIRN_UNROLL for (int p = 0; p < P; ++p) sums.at[r][p] = Zero(); }
  if (t.accumulate) {
    CAIRN_UNROLL for (int r = 0; r < R; ++r) {
      CAIRN_UNROLL for (int p = 0; p < P; ++p) {
        sums.at[r][p] = LoadUpTo(y + r * t.y_stride + p * kPanelColumns, columns - p * kPanelColumns);
      }
    }
  }
  const uint8_t* w = t.w + panel * t.panel_bytes;
  constexpr int64_t kStepBytes = W::kStep * W::kBytesPerK;
  Fetch fetch = next != nullptr ? *next : Fetch{w + kFetchAhead, kStepBytes, t.panel_bytes};
  int64_t k = 0;
  for (; k + W::kStep <= t.k; k += W::kStep, w += kStepBytes, fetch.from += fetch.step) {
    CAIRN_UNROLL for (int p = 0; p < P; ++p) __builtin_prefetch(fetch.from + p * fetch.panel_bytes);
    Step<W, R, P>(x, k, w, t.panel_bytes, sums);
  }
  if (W::kStep == 2 && k < t.k) {  // an odd K ends with half a pair
    F32x16 even[P];
    CAIRN_UNROLL for (int p = 0; p < P; ++p) even[p] = LowBf16(LoadU32(w + p * t.panel_bytes));
    FmaAll<R, P>(x, k, even, sums);
  }
  if (t.bias == nullptr && t.round == Format::kF32 && columns >= P * kPanelColumns) {  // where K is short, it counts
    CAIRN_UNROLL for (int r = 0; r < R; ++r) {
      CAIRN_UNROLL for (int p = 0; p < P; ++p) Store(y + r * t.y_stride + p * kPanelColumns, sums.at[r][p]);
    }
    return;
  }
  CAIRN_UNROLL for (int p = 0; p < P; ++p) {
    const int64_t n = columns - p * kPanelColumns;
    if (t.bias != nullptr) {
      const F32x16 bias = LoadUpTo(t.bias + (panel + p) * kPanelColumns, n);
      CAIRN_UNROLL for (int r = 0; r < R; ++r) sums.at[r][p] = Add(sums.at[r][p], bias);
    }
    CAIRN_UNROLL for (int r = 0; r < R; ++r) {
      StoreUpTo(y + r * t.y_stride + p * kPanelColumns, n, RoundTo(t.round, sums.at[r][p]));
    }
  }
}

// As many panels side by side as the registers hold; what is left by halves.
template <typename W, int R, int P>
void MultiplyPanels(const MatMulTile& t, int64_t row, int64_t panel, const Fetch* next) {
  for (; panel + P <= t.panels; panel += P) MultiplyBlock<W, R, P>(t, row, panel, next);
  if constexpr (P > 1) MultiplyPanels<W, R, P / 2>(t, row, panel, next);
}

// Side by side for `rows` rows; weights that are widened on the way need registers of their own.
constexpr int PanelsAtOnce(int rows, bool widened) {
  const int most = widened ? kMaxAccumulatorsWidened : kMaxAccumulators;
  int panels = 8;
  while (panels > 1 && rows * panels > most) panels /= 2;
  return panels;
}

template <typename W, int R = kMaxRows>
void MultiplyRows(const MatMulTile& t, int64_t row, int64_t rows, const Fetch* next) {
  if (rows == R) {
    MultiplyPanels<W, R, PanelsAtOnce(R, W::kBytesPerK < 64)>(t, row, 0, next);
  } else if constexpr (R > 1) {
    MultiplyRows<W, R - 1>(t, row, rows, next);
  }
}

template <typename W>
void Multiply(const MatMulTile& t) {
  // Row blocks of nearly equal height: 8 rows are 4 + 4 rather than 6 + 2.
  const int64_t blocks = (t.rows + kMaxRows - 1) / kMaxRows;
  const int64_t steps = t.k / W::kStep;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t begin = t.rows * b / blocks, end = t.rows * (b + 1) / blocks;
    // Each block fetches its share of what comes next.
    const Fetch next = {t.next + t.next_bytes * b / blocks, steps > 0 ? t.next_bytes / (blocks * steps) : 0,
                        t.next_panel_bytes};
    MultiplyRows<W>(t, begin, end - begin, t.next != nullptr ? &next : nullptr);
  }
}

// k and k + 1 of a row in one 32-bit word, the even one low; an odd K is padded with zero. One after the other.
void PackBf16Pairs(const float* x, int64_t k, uint32_t* pairs, int64_t) {
  uint16_t* halves = reinterpret_cast<uint16_t*>(pairs);
  int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) StoreHighHalves(halves + i, RoundBf16(Load(x + i)));
  if (i < k) {
    uint16_t last[kLanes];
    StoreHighHalves(last, RoundBf16(LoadFirst(x + i, k - i)));
    for (int64_t j = 0; i + j < (k + 1) / 2 * 2; ++j) halves[i + j] = last[j];
  }
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_MATMUL_LOOPS_H_
