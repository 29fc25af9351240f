#include "kernels/ops/kv_select.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/kernels/op_testing.h"
#include "tests/kernels/paged_cache.h"

namespace cairn {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class KvSelectTest : public OpTest {};
CAIRN_OP_TEST_SUITE(KvSelectTest);

// Sorts the candidates: higher first, equals by slot.
template <typename T>
std::vector<int32_t> NaiveTopK(const T* scores, int m, int num_first, int window, int keep) {
  const auto value = [&](int32_t i) -> double {
    const double score = static_cast<double>(scores[i]);
    return std::isnan(score) ? -kInf : score;
  };
  const int first = std::min(num_first, keep - window);
  std::vector<int32_t> order(m - first), kept(first);
  std::iota(order.begin(), order.end(), first);
  std::iota(kept.begin(), kept.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return value(a) > value(b); });
  kept.insert(kept.end(), order.begin(), order.begin() + keep - window - first);
  std::sort(kept.begin(), kept.end());
  for (int i = 0; i < window; ++i) kept.push_back(m + i);
  return kept;
}

TEST_P(KvSelectTest, EqualsASort) {
  Random random(1);
  auto c = context(3);
  const float special[] = {std::nanf(""), -std::nanf(""), -kInf, kInf, 0.0f, -0.0f, 1e-42f, -1e-42f};
  for (int repeat = 0; repeat < (kEmulated ? 120 : 2000); ++repeat) {
    const int rows = random.Integer(1, 4), m = random.Integer(0, repeat % 10 == 0 ? 3000 : 60),
              window = random.Integer(0, 9), keep = window + random.Integer(0, m), first = random.Integer(0, 6);
    const int distinct = random.Integer(1, 40);  // few: many ties
    std::vector<float> scores(rows * m);
    std::vector<int64_t> fixed(rows * m);
    for (float& score : scores) {
      score = random.Integer(0, 7) == 0 ? special[random.Integer(0, 7)] : std::sin(random.Integer(1, distinct)) * 3;
    }
    for (int64_t& value : fixed) value = random.Integer(-distinct, distinct) * 0x123456789LL;
    std::vector<int32_t> kept(rows * keep), fixed_kept(rows * keep);
    Operands on(*c);
    SelectTopK(*c, on.F32(scores).Reshape({rows, m}), {{m, window, keep}}, first, on.Ints(kept).Reshape({rows, keep}));
    SelectTopK(*c, on.Ints(fixed).Reshape({rows, m}), {{m, window, keep}}, first,
               on.Ints(fixed_kept).Reshape({rows, keep}));
    on.Fetch();
    for (int row = 0; row < rows; ++row) {
      ASSERT_EQ(std::vector<int32_t>(kept.begin() + row * keep, kept.begin() + (row + 1) * keep),
                NaiveTopK(scores.data() + row * m, m, first, window, keep))
          << m << " candidates, keep " << keep;
      ASSERT_EQ(std::vector<int32_t>(fixed_kept.begin() + row * keep, fixed_kept.begin() + (row + 1) * keep),
                NaiveTopK(fixed.data() + row * m, m, first, window, keep))
          << m << " candidates, keep " << keep;
    }
  }
}

// Every float: the product with 2^40 in long double is exact, and so is its rounding.
TEST_P(KvSelectTest, FixedPointRoundsHalfToEvenAndSaturates) {
  Random random(2);
  auto c = context(2);
  std::vector<float> scores = {0.0f,      -0.0f,           kInf,   -kInf,    std::nanf(""), 127.99999f, 128.0f,
                               -128.0f,   -127.99999f,     129.0f, -1e30f,   0x1p-41f,      0x3p-41f,   -0x1p-41f,
                               -0x3p-41f, 0x1.000002p-41f, 1e-45f, 0x5p-41f, 1.0f,          0x1.8p-40f, -0x1.8p-40f};
  for (int i = 0; i < 4000; ++i) scores.push_back(std::ldexp(random.Normal(), random.Integer(-50, 12)));
  const int64_t n = static_cast<int64_t>(scores.size());
  std::vector<int64_t> fixed(n, 77), sums(n, 1000);
  Operands on(*c);
  const Tensor x = on.F32(scores).Reshape({1, n});
  ScoresToFixedPoint(*c, x, false, on.Ints(fixed).Reshape({1, n}));
  ScoresToFixedPoint(*c, x, true, on.Ints(sums).Reshape({1, n}));
  on.Fetch();
  const int64_t limit = int64_t{1} << 47;
  for (int64_t i = 0; i < n; ++i) {
    int64_t expected = -limit;
    if (scores[i] >= 128) {
      expected = limit;
    } else if (scores[i] > -128) {
      const long double exact = static_cast<long double>(scores[i]) * 0x1p40L, down = std::floor(exact);
      expected = static_cast<int64_t>(down);
      if (exact - down > 0.5L || (exact - down == 0.5L && expected % 2 != 0)) ++expected;
    }
    ASSERT_EQ(fixed[i], expected) << scores[i];
    ASSERT_EQ(sums[i], expected + 1000) << scores[i];
  }
}

TEST_P(KvSelectTest, FingerprintIsFnv1a) {
  auto c = context(2);
  std::vector<int32_t> kept = {0, 1, 2, 258, 65536, 1 << 24};
  std::vector<int64_t> fingerprints(2);
  Operands on(*c);
  const Tensor slots = on.Ints(kept).Reshape({2, 3}), prints = on.Ints(fingerprints);
  FingerprintRows(*c, slots, prints);
  on.Fetch();
  EXPECT_EQ(static_cast<uint64_t>(fingerprints[0]), 0x756241e1be8c9396u);
  uint64_t hash = 0xcbf29ce484222325u;
  for (int byte : {2, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}) hash = (hash ^ byte) * 0x100000001b3u;
  EXPECT_EQ(static_cast<uint64_t>(fingerprints[1]), hash);
  FingerprintRows(*c, slots.Columns(0, 0), prints);
  on.Fetch();
  EXPECT_EQ(static_cast<uint64_t>(fingerprints[1]), 0xcbf29ce484222325u);
}

// What a slot of one head holds.
struct Slot {
  std::vector<uint8_t> k, v;
  int32_t position;
  std::vector<float> scores;
  bool operator==(const Slot&) const = default;
};

Slot ReadSlot(const KvView& kv, int head, int32_t slot) {
  const size_t bytes = kv.layout.head_dim * DTypeSize(kv.layout.dtype);
  Slot read = {{kv.k(head, slot), kv.k(head, slot) + bytes},
               {kv.v(head, slot), kv.v(head, slot) + bytes},
               *kv.position(head, slot),
               {}};
  for (int plane = 0; plane < kv.layout.num_scores; ++plane) read.scores.push_back(*kv.score(head, slot, plane));
  return read;
}

std::vector<int32_t> RandomSubset(Random& random, int32_t n, int32_t count) {
  std::vector<int32_t> slots(n);
  std::iota(slots.begin(), slots.end(), 0);
  for (int32_t i = n - 1; i > 0; --i) std::swap(slots[i], slots[random.Integer(0, i)]);
  slots.resize(count);
  std::sort(slots.begin(), slots.end());
  return slots;
}

TEST_P(KvSelectTest, CompactionMovesEveryPlaneOfItsSequenceAlone) {
  Random random(3);
  auto c = context(3);
  for (int repeat = 0; repeat < (kEmulated ? 25 : 60); ++repeat) {
    const KvBlockLayout layout = {random.Integer(1, 4), 2 * random.Integer(1, 20), random.Integer(1, 24),
                                  kCacheTypes[random.Integer(0, 3)], random.Integer(0, kMaxScores)};
    const int32_t n = random.Integer(1, 150), keep = random.Integer(0, n);
    Cache cache(random, layout, {n, 40}, c.get());
    std::vector<KvView> views = {cache.HostView(0, n), cache.HostView(1, 40)};
    for (const KvView& view : views) {
      for (int32_t slot = 0; slot < view.num_slots; ++slot) {
        for (int h = 0; h < layout.kv_heads; ++h) {
          for (size_t i = 0; i < layout.head_dim * DTypeSize(layout.dtype); ++i) {
            view.k(h, slot)[i] = static_cast<uint8_t>(random.Integer(0, 255));
            view.v(h, slot)[i] = static_cast<uint8_t>(random.Integer(0, 255));
          }
          *view.position(h, slot) = random.Integer(0, 1 << 30);
          for (int plane = 0; plane < layout.num_scores; ++plane) *view.score(h, slot, plane) = random.Normal();
        }
      }
    }
    std::vector<std::vector<Slot>> before(layout.kv_heads), neighbour(layout.kv_heads);
    for (int h = 0; h < layout.kv_heads; ++h) {
      for (int32_t slot = 0; slot < n; ++slot) before[h].push_back(ReadSlot(views[0], h, slot));
      for (int32_t slot = 0; slot < 40; ++slot) neighbour[h].push_back(ReadSlot(views[1], h, slot));
    }
    const int sets = random.Integer(0, 1) == 0 ? 1 : layout.kv_heads;
    std::vector<int32_t> kept;
    for (int s = 0; s < sets; ++s) {
      const std::vector<int32_t> subset = RandomSubset(random, n, keep);
      kept.insert(kept.end(), subset.begin(), subset.end());
    }
    cache.Send();
    Operands on(*c);
    KvCompact(*c, {cache.View(0, n)}, on.Ints(kept).Reshape({sets, keep}), {keep});
    views = {cache.HostView(0, n), cache.HostView(1, 40)};
    for (int h = 0; h < layout.kv_heads; ++h) {
      const int32_t* slots = kept.data() + (sets == 1 ? 0 : h) * keep;
      for (int32_t j = 0; j < n; ++j) {
        ASSERT_TRUE(ReadSlot(views[0], h, j) == before[h][j < keep ? slots[j] : j]) << "head " << h << " slot " << j;
      }
      for (int32_t j = 0; j < 40; ++j) ASSERT_TRUE(ReadSlot(views[1], h, j) == neighbour[h][j]);
    }
  }
}

// Prompts in chunks of any length and decode steps, several sequences at once: the ring holds the last w queries.
TEST_P(KvSelectTest, RingHoldsTheLastQueries) {
  Random random(4);
  auto c = context(3);
  const int heads = 3, d = 4, window = 5;
  std::vector<std::vector<float>> rings(3, std::vector<float>(window * heads * d, -1));
  std::vector<std::vector<std::vector<float>>> fed(3);  // [sequence][position][heads * d]
  for (int step = 0; step < (kEmulated ? 40 : 200); ++step) {
    Operands on(*c);
    std::vector<SequenceRows> sequences;
    std::vector<float*> pointers;
    std::vector<int32_t> positions, owners;
    for (int s = 0; s < 3; ++s) {
      const int32_t rows = random.Integer(0, 3) == 0 ? random.Integer(0, 12) : 1;
      sequences.push_back({static_cast<int32_t>(positions.size()), rows, {}});
      pointers.push_back(on.F32(rings[s]).data<float>());
      for (int32_t i = 0; i < rows; ++i) {
        positions.push_back(static_cast<int32_t>(fed[s].size()) + i);
        owners.push_back(s);
      }
    }
    const int64_t T = static_cast<int64_t>(positions.size());
    Rows q = Rows::Normal(random, T, heads * d, 7);
    for (int64_t t = 0; t < T; ++t) {
      std::vector<float> row;
      for (int j = 0; j < heads * d; ++j) row.push_back(q.at(t, j));
      fed[owners[t]].push_back(row);
    }
    RecordQueries(*c, on(q).SplitRows(heads, d), on.Ints(positions), sequences, pointers, window);
    on.Fetch();
    for (int s = 0; s < 3; ++s) {
      const int64_t length = static_cast<int64_t>(fed[s].size());
      for (int64_t p = std::max<int64_t>(0, length - window); p < length; ++p) {
        ASSERT_EQ(std::memcmp(rings[s].data() + p % window * heads * d, fed[s][p].data(), heads * d * sizeof(float)), 0)
            << "sequence " << s << " position " << p << " of " << length;
      }
    }
  }
}

}  // namespace
}  // namespace cairn
