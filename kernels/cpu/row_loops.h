// The loops of the small ops over F32x16. Included once by each instruction set's file.
#ifndef CAIRN_KERNELS_CPU_ROW_LOOPS_H_
#define CAIRN_KERNELS_CPU_ROW_LOOPS_H_

namespace cairn::cpu {
namespace {

// f(i, n) for i in steps of 16 up to the end; n < 16 in the last step only. Inlined twice: a full step costs no masks.
template <typename F>
CAIRN_SIMD void ForLanes(int64_t end, const F& f) {
  int64_t i = 0;
  for (; i + kLanes <= end; i += kLanes) f(i, kLanes);
  if (i < end) f(i, end - i);
}

void RmsNormRow(const float* x, const float* weight, int64_t n, float eps, Format round, float* y) {
  F32x16 squares = Zero();
  ForLanes(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const F32x16 v = LoadUpTo(x + i, lanes);
        squares = Fma(v, v, squares);
      });
  const float scale = 1.0f / __builtin_sqrtf(SumOf(squares) / static_cast<float>(n) + eps);
  const F32x16 factor = Set(scale);
  ForLanes(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const F32x16 normal = Mul(LoadUpTo(x + i, lanes), factor);
        StoreUpTo(y + i, lanes, RoundTo(round, Mul(normal, LoadUpTo(weight + i, lanes))));
      });
}

void RotateRow(float* x, const float* cosine, const float* sine, int64_t half, Format round) {
  ForLanes(
      half, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const F32x16 a = LoadUpTo(x + i, lanes), b = LoadUpTo(x + half + i, lanes);
        const F32x16 c = LoadUpTo(cosine + i, lanes), s = LoadUpTo(sine + i, lanes);
        StoreUpTo(x + i, lanes, RoundTo(round, Sub(Mul(a, c), Mul(b, s))));
        StoreUpTo(x + half + i, lanes, RoundTo(round, Add(Mul(b, c), Mul(a, s))));
      });
}

void SwiGluRow(const float* gate, const float* up, int64_t n, Format round, float* y) {
  ForLanes(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        const F32x16 g = LoadUpTo(gate + i, lanes);
        const F32x16 silu = Div(g, Add(Set(1.0f), Exp(Sub(Zero(), g))));
        StoreUpTo(y + i, lanes, RoundTo(round, Mul(silu, LoadUpTo(up + i, lanes))));
      });
}

void AddRow(const float* a, const float* b, int64_t n, Format round, float* y) {
  ForLanes(
      n, [&](int64_t i, int64_t lanes) __attribute__((always_inline)) {
        StoreUpTo(y + i, lanes, RoundTo(round, Add(LoadUpTo(a + i, lanes), LoadUpTo(b + i, lanes))));
      });
}

void RoundRow(float* x, int64_t n, Format round) {
  ForLanes(
      n, [&](int64_t i, int64_t lanes)
             __attribute__((always_inline)) { StoreUpTo(x + i, lanes, RoundTo(round, LoadUpTo(x + i, lanes))); });
}

void ConvertToF32(const float* x, int64_t n, void* y) { __builtin_memcpy(y, x, n * sizeof(float)); }

template <typename StoreAll>
CAIRN_SIMD void ConvertTo16Bits(const float* x, int64_t n, uint16_t* y, const StoreAll& store) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, Load(x + i));
  if (i < n) {
    uint16_t last[kLanes];
    store(last, LoadFirst(x + i, n - i));
    __builtin_memcpy(y + i, last, (n - i) * sizeof(uint16_t));
  }
}

void ConvertToBf16(const float* x, int64_t n, void* y) {
  ConvertTo16Bits(
      x, n, static_cast<uint16_t*>(y),
      [](uint16_t * to, F32x16 a) __attribute__((always_inline)) { StoreHighHalves(to, RoundBf16(a)); });
}

void ConvertToF16(const float* x, int64_t n, void* y) {
  ConvertTo16Bits(
      x, n, static_cast<uint16_t*>(y), [](uint16_t * to, F32x16 a) __attribute__((always_inline)) { StoreF16(to, a); });
}

}  // namespace
}  // namespace cairn::cpu

#endif  // CAIRN_KERNELS_CPU_ROW_LOOPS_H_
