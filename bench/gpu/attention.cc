// Decode attention at the lengths of a full and of a compressed cache, for the KV heads of an 8B model (8, of 4 query
// heads each) and of a 70B's shard over 8 (1, of 8).
#include "kernels/ops/attention.h"

#include <vector>

#include "bench/gpu/gpu.h"
#include "bench/gpu/paged_layer.h"
#include "kernels/core/copy.h"

namespace cairn::bench {
namespace {

struct Case {
  int64_t batch;
  int32_t slots;
};
struct Heads {
  int kv_heads, group;
};
constexpr int kHeadDim = 128;

void MeasureOne(Gpu& gpu, const Case& c, const Heads& heads) {
  const PagedLayer layer(gpu, heads.kv_heads, kHeadDim, c.batch, c.slots);
  const int64_t q_heads = int64_t{heads.kv_heads} * heads.group, elements = c.batch * q_heads * kHeadDim;
  const Buffer q = gpu.AllocateRandom(LtType::kBFloat16, elements);
  const Buffer out = gpu.Allocate(static_cast<size_t>(elements * 2));
  const Buffer positions = gpu.Allocate(static_cast<size_t>(c.batch) * sizeof(int32_t));
  const Tensor p(positions.data(), DType::kInt32, {c.batch}, gpu.device());
  const std::vector<int32_t> last(static_cast<size_t>(c.batch), c.slots - 1);
  CopyFromHost(gpu.context(), last.data(), p);
  const Tensor qs(q.data(), DType::kBFloat16, {c.batch, q_heads, kHeadDim}, gpu.device());
  const Tensor outs(out.data(), DType::kBFloat16, {c.batch, q_heads, kHeadDim}, gpu.device());
  const double seconds = gpu.Time([&] { PagedAttention(gpu.context(), qs, p, layer.rows(), 0, outs); });
  gpu.Report("attention",
             {{"batch", c.batch}, {"slots", c.slots}, {"kv_heads", heads.kv_heads}, {"group", heads.group}}, seconds,
             layer.bytes(), 4.0 * static_cast<double>(elements) * c.slots);
}

}  // namespace

void MeasureAttention(Gpu& gpu) {
  const std::vector<Case> cases =
      gpu.small() ? std::vector<Case>{{2, 40}, {1, 300}} : std::vector<Case>{{64, 1152}, {512, 1152}, {64, 16384}};
  const std::vector<Heads> all = gpu.small() ? std::vector<Heads>{{1, 8}, {2, 4}} : std::vector<Heads>{{1, 8}, {8, 4}};
  for (const Heads& heads : all) {
    for (const Case& c : cases) MeasureOne(gpu, c, heads);
  }
}

}  // namespace cairn::bench
