// Attention over the paged cache at the head shapes of real models: decode of one and of many sequences, and prefill.
// The bytes are those of the K and V read once; the operations those of the visible slots.
#include <numeric>
#include <vector>

#include "bench/kernels/machine.h"
#include "kernels/ops/attention.h"

namespace cairn::bench {
namespace {

struct Heads {
  const char* name;
  int heads, kv_heads, d;
};
constexpr Heads kHeads[] = {
    {"qwen2.5-0.5b", 14, 2, 64}, {"smollm2-135m", 9, 3, 64}, {"llama-3-8b", 32, 8, 128}, {"llama2.c", 6, 6, 48}};

// `batch` sequences of `slots` tokens each, of which the last `rows` are this step's.
void BenchAttention(benchmark::State& state, const Heads& h, int64_t batch, int32_t slots, int32_t rows, DType cache) {
  Context& context = SharedContext();
  const KvBlockLayout layout = {h.kv_heads, h.d, 16, cache};
  const int32_t blocks = (slots + 15) / 16;
  const Buffer pool = Buffer::Allocate(Device{}, batch * blocks * layout.block_bytes()).value();
  std::vector<std::vector<int32_t>> tables(batch, std::vector<int32_t>(blocks));
  std::vector<SequenceRows> sequences(batch);
  for (int64_t b = 0; b < batch; ++b) {
    for (int32_t i = 0; i < blocks; ++i) tables[b][i] = static_cast<int32_t>(i * batch + b);
    sequences[b] = {static_cast<int32_t>(b * rows), rows, {layout, pool.data(), tables[b].data(), slots}};
  }
  const int64_t T = batch * rows;
  std::vector<float> q(T * h.heads * h.d, 0.1f), out(q.size()), kv(T * h.kv_heads * h.d, 0.2f);
  std::vector<int32_t> positions(T);
  for (int64_t t = 0; t < T; ++t) positions[t] = slots - rows + static_cast<int32_t>(t % rows);
  const Tensor qs(q.data(), DType::kFloat32, {T, h.heads, h.d}), outs(out.data(), DType::kFloat32, {T, h.heads, h.d});
  const Tensor kvs(kv.data(), DType::kFloat32, {T, h.kv_heads, h.d}), p(positions.data(), DType::kInt32, {T});
  KvAppend(context, kvs, kvs, p, sequences);
  const double visible = static_cast<double>(rows) * (slots - rows) + rows * (rows + 1.0) / 2;
  const double flops = batch * visible * h.heads * h.d * 4;
  const double bytes = 2.0 * batch * slots * h.kv_heads * h.d * static_cast<double>(DTypeSize(cache));
  Measure(state, flops, rows == 1 ? bytes : 0, [&] { PagedAttention(context, qs, p, sequences, 0, outs); });
}

struct Case {
  const char* name;
  int64_t batch;
  int32_t slots, rows;
};
constexpr Case kCases[] = {{"decode/batch:1/slots:1024", 1, 1024, 1},   {"decode/batch:1/slots:16384", 1, 16384, 1},
                           {"decode/batch:32/slots:1024", 32, 1024, 1}, {"decode/batch:8/slots:4096", 8, 4096, 1},
                           {"prefill/rows:512", 1, 512, 512},           {"prefill/rows:512/slots:8192", 1, 8192, 512}};

[[maybe_unused]] const bool kRegistered = [] {
  for (const Heads& heads : kHeads) {
    for (const Case& c : kCases) {
      for (DType cache : {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat8E4M3}) {
        const std::string name = "Attention/" + std::string(heads.name) + "/" + DTypeName(cache) + "/" + c.name;
        benchmark::RegisterBenchmark(name.c_str(), BenchAttention, heads, c.batch, c.slots, c.rows, cache);
      }
    }
  }
  return true;
}();

void BenchKvAppend(benchmark::State& state, DType cache) {
  Context& context = SharedContext();
  const int64_t T = state.range(0), kv_heads = 8, d = 128;
  const KvBlockLayout layout = {8, 128, 16, cache};
  const int32_t blocks = static_cast<int32_t>(T + 15) / 16;
  const Buffer pool = Buffer::Allocate(Device{}, blocks * layout.block_bytes()).value();
  std::vector<int32_t> table(blocks), positions(T);
  std::iota(table.begin(), table.end(), 0);
  std::iota(positions.begin(), positions.end(), 0);
  std::vector<float> k(T * kv_heads * d, 0.1f), v = k;
  const std::vector<SequenceRows> sequences = {
      {0, static_cast<int32_t>(T), {layout, pool.data(), table.data(), static_cast<int32_t>(T)}}};
  Measure(state, 0, 2.0 * T * kv_heads * d * static_cast<double>(4 + DTypeSize(cache)), [&] {
    KvAppend(context, Tensor(k.data(), DType::kFloat32, {T, kv_heads, d}),
             Tensor(v.data(), DType::kFloat32, {T, kv_heads, d}), Tensor(positions.data(), DType::kInt32, {T}),
             sequences);
  });
}
BENCHMARK_CAPTURE(BenchKvAppend, bfloat16, DType::kBFloat16)->Arg(1)->Arg(512);
BENCHMARK_CAPTURE(BenchKvAppend, float8_e4m3, DType::kFloat8E4M3)->Arg(1)->Arg(512);
BENCHMARK_CAPTURE(BenchKvAppend, float32, DType::kFloat32)->Arg(1)->Arg(512);

}  // namespace
}  // namespace cairn::bench
