#include "kernels/ops/attention.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "tests/kernels/op_testing.h"
#include "tests/kernels/paged_cache.h"

namespace cairn {
namespace {

// Tokens of several sequences: their queries, keys, values and positions, one sequence after the other.
struct Tokens {
  int heads, kv_heads, d;
  std::vector<int32_t> lengths, positions;
  Rows q, k, v;

  int64_t first(int sequence) const { return std::accumulate(lengths.begin(), lengths.begin() + sequence, int64_t{0}); }
};

Tokens RandomTokens(Random& random, int heads, int kv_heads, int d, std::vector<int32_t> lengths,
                    DType activation = DType::kFloat32) {
  const int64_t T = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  Tokens tokens = {heads,
                   kv_heads,
                   d,
                   lengths,
                   {},
                   Rows::Normal(random, T, heads * d, 5, activation),
                   Rows::Normal(random, T, kv_heads * d, 3, activation),
                   Rows::Normal(random, T, kv_heads * d, 0, activation)};
  // Positions ascend with holes, as after an eviction.
  for (int32_t length : lengths) {
    int32_t position = random.Integer(0, 3);
    for (int32_t i = 0; i < length; ++i, position += random.Integer(1, 2)) tokens.positions.push_back(position);
  }
  return tokens;
}

// A step: rows [begin, end) of some sequences.
struct Piece {
  int sequence;
  int32_t begin, end;
};

// Appends the pieces' keys and values and attends with their queries, all in one call; writes their rows of `out`.
// Without `out` it appends alone.
void RunStep(Context& context, Tokens& tokens, const Cache& cache, const std::vector<Piece>& pieces, int window,
             Rows* out) {
  int64_t T = 0;
  for (const Piece& p : pieces) T += p.end - p.begin;
  Rows q(T, tokens.q.columns(), 1), k(T, tokens.k.columns(), 2), v(T, tokens.v.columns()), y(T, tokens.q.columns(), 4);
  std::vector<int32_t> positions;
  std::vector<SequenceRows> sequences;
  std::vector<int64_t> origin;
  for (const Piece& p : pieces) {
    sequences.push_back({static_cast<int32_t>(origin.size()), p.end - p.begin, cache.View(p.sequence, p.end)});
    for (int32_t i = p.begin; i < p.end; ++i) origin.push_back(tokens.first(p.sequence) + i);
  }
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t j = 0; j < q.columns(); ++j) q.at(t, j) = tokens.q.at(origin[t], j);
    for (int64_t j = 0; j < k.columns(); ++j) k.at(t, j) = tokens.k.at(origin[t], j);
    for (int64_t j = 0; j < v.columns(); ++j) v.at(t, j) = tokens.v.at(origin[t], j);
    positions.push_back(tokens.positions[origin[t]]);
  }
  Operands on(context);
  const Tensor p = on.Ints(positions);
  KvAppend(context, on(k).SplitRows(tokens.kv_heads, tokens.d), on(v).SplitRows(tokens.kv_heads, tokens.d), p,
           sequences);
  if (out == nullptr) return context.Synchronize();
  PagedAttention(context, on(q).SplitRows(tokens.heads, tokens.d), p, sequences, window,
                 on(y).SplitRows(tokens.heads, tokens.d));
  on.Fetch();
  for (int64_t t = 0; t < T; ++t) {
    for (int64_t j = 0; j < y.columns(); ++j) out->at(origin[t], j) = y.at(t, j);
  }
  EXPECT_TRUE(y.GapsIntact());
}

// Token i of a sequence, head h, in double: the exact output and a bound on the float32 one's error, per dimension.
struct Exact {
  std::vector<double> value, tolerance;
};

// `p_roundoff`: of the weights, where tensor cores take them in 16 bits.
//
// Scores err by (d + 2) u sum |q k| / sqrt(d); a change e of all scores changes weights by a factor within exp(2 e);
// exp errs by 2 ulp; sums of n terms by n u each.
Exact ExactAttention(const Tokens& tokens, int sequence, int32_t i, int h, int window, DType cache_type,
                     double p_roundoff = 0) {
  const int d = tokens.d, kv_head = h / (tokens.heads / tokens.kv_heads);
  const int64_t first = tokens.first(sequence);
  std::vector<double> scores(i + 1, -INFINITY);
  double score_error = 0, max = -INFINITY;
  for (int32_t s = 0; s <= i; ++s) {
    if (window > 0 && tokens.positions[first + s] <= tokens.positions[first + i] - window) continue;
    double dot = 0, size = 0;
    for (int j = 0; j < d; ++j) {
      const double product = static_cast<double>(tokens.q.at(first + i, h * d + j)) *
                             RoundTo(cache_type, tokens.k.at(first + s, kv_head * d + j));
      dot += product;
      size += std::abs(product);
    }
    scores[s] = dot / std::sqrt(d);
    score_error = std::max(score_error, (d + 2) * 0x1p-24 * size / std::sqrt(d));
    max = std::max(max, scores[s]);
  }
  Exact exact = {std::vector<double>(d), std::vector<double>(d)};
  double sum = 0;
  for (int32_t s = 0; s <= i; ++s) {
    const double p = std::exp(scores[s] - max);
    sum += p;
    for (int j = 0; j < d; ++j) {
      const double term = p * RoundTo(cache_type, tokens.v.at(first + s, kv_head * d + j));
      exact.value[j] += term;
      exact.tolerance[j] += std::abs(term);
    }
  }
  for (int j = 0; j < d; ++j) {
    exact.value[j] /= sum;
    exact.tolerance[j] *= (2 * score_error + (2.0 * i + 16) * 0x1p-24 + 1.01 * p_roundoff) / sum;
  }
  return exact;
}

struct Shape {
  int heads, kv_heads, d, block_size;
};

const std::vector<Shape> kShapes = {{4, 4, 8, 16},  {6, 2, 64, 16},  {9, 3, 64, 32},  {14, 2, 64, 5},
                                    {2, 1, 2, 4},   {3, 3, 6, 7},    {8, 2, 16, 1},   {4, 1, 80, 128},
                                    {4, 2, 96, 16}, {4, 1, 128, 24}, {2, 1, 256, 16}, {5, 5, 32, 16}};

class AttentionTest : public OpTest {};
CAIRN_OP_TEST_SUITE(AttentionTest);

TEST_P(AttentionTest, MatchesTheFormula) {
  Random random(1);
  int turn = 0;
  for (const Shape& shape : kShapes) {
    for (DType cache_type : kCacheTypes) {
      for (int window : {0, 20}) {
        if (Skips(turn++, 11)) continue;
        SCOPED_TRACE(testing::Message() << shape.heads << "/" << shape.kv_heads << " heads of " << shape.d << ", "
                                        << DTypeName(cache_type) << ", window " << window);
        auto c = context(3);
        Tokens tokens = RandomTokens(random, shape.heads, shape.kv_heads, shape.d, {131, 1, 70});
        Cache cache(random, {shape.kv_heads, shape.d, shape.block_size, cache_type}, tokens.lengths, c.get());
        Rows out(tokens.q.rows(), tokens.q.columns());
        RunStep(*c, tokens, cache, {{0, 0, 131}, {1, 0, 1}, {2, 0, 70}}, window, &out);
        for (const auto& [sequence, i] :
             {std::pair<int, int>{0, 0}, {0, 1}, {0, 63}, {0, 64}, {0, 130}, {1, 0}, {2, 69}}) {
          for (int h = 0; h < shape.heads; ++h) {
            const Exact exact = ExactAttention(tokens, sequence, i, h, window, cache_type);
            for (int j = 0; j < shape.d; ++j) {
              ASSERT_NEAR(out.at(tokens.first(sequence) + i, h * shape.d + j), exact.value[j], exact.tolerance[j])
                  << "sequence " << sequence << " token " << i << " head " << h << " dimension " << j;
            }
          }
        }
      }
    }
  }
}

// Long enough for several spans (512 slots), which one thread walks and several share.
TEST_P(AttentionTest, MatchesTheFormulaOverALongContext) {
  Random random(2);
  const int32_t n = kEmulated ? 560 : 1200;
  for (int window : {0, n / 2}) {
    if (Skips(window > 0, 2)) continue;
    Tokens tokens = RandomTokens(random, 4, 2, 32, {n});
    auto c = context(2), other = context(3);
    Cache cache(random, {2, 32, 16, DType::kBFloat16}, tokens.lengths, c.get());
    Rows prefill(n, 128), decode(n, 128);
    RunStep(*c, tokens, cache, {{0, 0, n - 1}}, window, &prefill);
    RunStep(*other, tokens, cache, {{0, n - 1, n}}, window, &decode);
    for (const auto& [out, i] : {std::pair<Rows*, int>{&prefill, 511}, {&prefill, n - 10}, {&decode, n - 1}}) {
      for (int h = 0; h < 4; ++h) {
        const Exact exact = ExactAttention(tokens, 0, i, h, window, DType::kBFloat16);
        for (int j = 0; j < 32; ++j) ASSERT_NEAR(out->at(i, h * 32 + j), exact.value[j], exact.tolerance[j]) << i;
      }
    }
  }
}

// Activations and cache in 16 bits, as a GPU runs models: prefill in chunks, then decode, among others. (On a GPU the
// head sizes of its tensor-core kernels, and one that they leave out.)
TEST_P(AttentionTest, MatchesTheFormulaIn16Bits) {
  Random random(8);
  int turn = 0;
  for (const Shape& shape :
       {Shape{14, 2, 64, 16}, {4, 4, 64, 5}, {8, 1, 128, 32}, {20, 1, 64, 16}, {32, 2, 128, 48}, {6, 2, 80, 16}}) {
    for (DType type : {DType::kBFloat16, DType::kFloat16}) {
      for (int window : {0, 50}) {
        if (Skips(turn++, 7)) continue;
        SCOPED_TRACE(testing::Message() << shape.heads << "/" << shape.kv_heads << " heads of " << shape.d << ", "
                                        << DTypeName(type) << ", window " << window);
        auto c = context(3, type);
        const std::vector<int32_t> lengths = {150, 1, 280};
        Tokens tokens = RandomTokens(random, shape.heads, shape.kv_heads, shape.d, lengths, type);
        Cache cache(random, {shape.kv_heads, shape.d, shape.block_size, type}, lengths, c.get());
        Rows out(tokens.q.rows(), tokens.q.columns());
        RunStep(*c, tokens, cache, {{0, 0, 71}, {2, 0, 40}}, window, &out);
        RunStep(*c, tokens, cache, {{1, 0, 1}, {0, 71, 149}}, window, &out);
        RunStep(*c, tokens, cache, {{2, 40, 240}}, window, nullptr);
        RunStep(*c, tokens, cache, {{2, 240, 279}}, window, &out);
        RunStep(*c, tokens, cache, {{0, 149, 150}, {2, 279, 280}}, window, &out);
        for (const auto& [sequence, i] :
             {std::pair<int, int>{0, 0}, {0, 70}, {0, 71}, {0, 149}, {1, 0}, {2, 39}, {2, 240}, {2, 278}, {2, 279}}) {
          for (int h = 0; h < shape.heads; ++h) {
            const Exact exact = ExactAttention(tokens, sequence, i, h, window, type, UnitRoundoff(type));
            for (int j = 0; j < shape.d; ++j) {
              const double rounding = UnitRoundoff(type) * std::abs(exact.value[j]) + 0x1p-25;
              ASSERT_NEAR(out.at(tokens.first(sequence) + i, h * shape.d + j), exact.value[j],
                          exact.tolerance[j] + rounding)
                  << "sequence " << sequence << " token " << i << " head " << h << " dimension " << j;
            }
          }
        }
      }
    }
  }
}

Rows RoundedTo(DType type, const Rows& rows) {
  Rows rounded = rows;
  for (int64_t i = 0; i < rows.rows(); ++i) {
    for (int64_t j = 0; j < rows.columns(); ++j) rounded.at(i, j) = RoundTo(type, rows.at(i, j));
  }
  return rounded;
}

// Keys and values in E4M3 are what their codes mean, and nothing else is seen of them: the same bits as over a cache of
// the activations' type that holds these numbers, for prompts in chunks and single tokens.
TEST_P(AttentionTest, ACodeIsTheNumberThatItMeans) {
  Random random(10);
  int turn = 0;
  for (const Shape& shape : {Shape{6, 2, 64, 16},
                             {9, 3, 64, 5},
                             {16, 1, 128, 32},
                             {4, 2, 80, 16},
                             {3, 3, 6, 7},
                             {4, 1, 256, 16},
                             {60, 1, 64, 16}}) {
    for (DType type : kFloatTypes) {
      for (int window : {0, 40}) {
        if (Skips(turn++, 11)) continue;
        SCOPED_TRACE(testing::Message() << shape.heads << "/" << shape.kv_heads << " heads of " << shape.d << ", "
                                        << DTypeName(type) << ", window " << window);
        auto c = context(3, type);
        const std::vector<int32_t> lengths = {150, kEmulated ? 290 : 600};
        Tokens tokens = RandomTokens(random, shape.heads, shape.kv_heads, shape.d, lengths, type);
        for (int64_t j = 0; j < tokens.k.columns(); ++j) {
          tokens.k.at(3, j) = RoundTo(type, tokens.k.at(3, j) * 1000);     // beyond 448
          tokens.v.at(5, j) = RoundTo(type, tokens.v.at(5, j) * 0x1p-8f);  // among them subnormal numbers
        }
        Tokens meant = tokens;
        meant.k = RoundedTo(DType::kFloat8E4M3, tokens.k);
        meant.v = RoundedTo(DType::kFloat8E4M3, tokens.v);
        const KvBlockLayout layout = {shape.kv_heads, shape.d, shape.block_size, DType::kFloat8E4M3};
        KvBlockLayout wide = layout;
        wide.dtype = type;
        Cache codes(random, layout, lengths, c.get()), numbers(random, wide, lengths, c.get());
        Rows out(tokens.q.rows(), tokens.q.columns()), expected = out;
        for (const std::vector<Piece>& step : {std::vector<Piece>{{0, 0, 71}, {1, 0, 40}},
                                               {{1, 40, lengths[1] - 9}, {0, 71, 149}},
                                               {{0, 149, 150}},
                                               {{1, lengths[1] - 9, lengths[1] - 1}},
                                               {{1, lengths[1] - 1, lengths[1]}}}) {
          RunStep(*c, tokens, codes, step, window, &out);
          RunStep(*c, meant, numbers, step, window, &expected);
        }
        EXPECT_TRUE(SameBits(out, expected));
      }
    }
  }
}

// Some tokens of some sequences, counted in `done`; none alone where `together`.
std::vector<Piece> RandomStep(Random& random, const std::vector<int32_t>& lengths, bool together,
                              std::vector<int32_t>& done) {
  std::vector<Piece> step;
  for (int s : {2, 0, 1}) {
    const int32_t left = lengths[s] - done[s];
    if (left == 0 || random.Integer(0, 3) == 0) continue;
    int32_t count = std::min(left, random.Integer(0, 2) == 0 ? 1 + together : random.Integer(2, 200));
    if (together && left - count == 1) count = left;
    step.push_back({s, done[s], done[s] + count});
    done[s] += count;
  }
  return step;
}

// Whole prompts at once, in chunks, token by token, alone and among others, on one to three threads: the same bits. (A
// GPU has a kernel of its own for tokens that come alone.)
TEST_P(AttentionTest, BitsDependOnTheRowAlone) {
  Random random(3);
  int turn = 0;
  std::map<std::pair<int, DType>, std::shared_ptr<Context>> contexts;
  for (DType activation : {DType::kFloat32, DType::kBFloat16}) {
    for (int threads : {1, 2, 3}) contexts[{threads, activation}] = context(threads, activation);
  }
  const std::vector<int32_t> lengths =
      kEmulated ? std::vector<int32_t>{40, 20, 270} : std::vector<int32_t>{530, 20, 600};
  for (const Shape& shape : {Shape{6, 2, 64, 16}, {7, 1, 16, 3}, {2, 2, 80, 32}}) {
    for (DType cache_type : kCacheTypes) {
      if (Skips(turn++, 5)) continue;
      const DType activation = cache_type == DType::kBFloat16 ? DType::kBFloat16 : DType::kFloat32;
      const int window = random.Integer(0, 1) == 0 ? 0 : 150;
      Tokens tokens = RandomTokens(random, shape.heads, shape.kv_heads, shape.d, lengths, activation);
      const KvBlockLayout layout = {shape.kv_heads, shape.d, shape.block_size, cache_type};
      Rows whole(tokens.q.rows(), tokens.q.columns()), pieces = whole;
      Context* first = contexts[{1, activation}].get();
      Cache cache(random, layout, tokens.lengths, first);
      RunStep(*first, tokens, cache, {{0, 0, lengths[0]}, {1, 0, 20}, {2, 0, lengths[2]}}, window, &whole);
      Cache other(random, layout, tokens.lengths, first);
      std::vector<int32_t> done(3);
      while (done != tokens.lengths) {
        const std::vector<Piece> step = RandomStep(random, tokens.lengths, !on_cpu(), done);
        RunStep(*contexts[{random.Integer(1, 3), activation}], tokens, other, step, window, &pieces);
      }
      EXPECT_TRUE(SameBits(pieces, whole)) << "head_dim " << shape.d << " window " << window;
    }
  }
}

// The last tokens of three sequences, together and one by one.
TEST_P(AttentionTest, DecodedBitsDependOnTheSequenceAlone) {
  Random random(9);
  for (const auto& [heads, kv_heads, d] : {std::tuple<int, int, int>{6, 2, 64}, {4, 1, 128}, {4, 4, 16}}) {
    auto c = context(2, DType::kBFloat16);
    const std::vector<int32_t> lengths = {70, 290, 33};
    Tokens tokens = RandomTokens(random, heads, kv_heads, d, lengths, DType::kBFloat16);
    Cache cache(random, {kv_heads, d, 16, DType::kBFloat16}, lengths, c.get());
    Rows together(tokens.q.rows(), tokens.q.columns()), alone = together;
    RunStep(*c, tokens, cache, {{0, 0, 69}, {1, 0, 289}, {2, 0, 32}}, 0, nullptr);
    RunStep(*c, tokens, cache, {{0, 69, 70}, {1, 289, 290}, {2, 32, 33}}, 0, &together);
    for (int i = 0; i < 3; ++i) RunStep(*c, tokens, cache, {{i, lengths[i] - 1, lengths[i]}}, 0, &alone);
    EXPECT_TRUE(SameBits(together, alone)) << "head_dim " << d;
  }
}

// NaN in a key, and infinity in a value, reach the rows that see them and no others.
TEST_P(AttentionTest, NanReachesLaterRowsOfItsHeadOnly) {
  Random random(4);
  Tokens tokens = RandomTokens(random, 4, 2, 16, {100});
  tokens.k.at(70, 16) = std::nanf("");                          // second KV head
  tokens.v.at(80, 3) = std::numeric_limits<float>::infinity();  // first
  auto c = context(2);
  Cache cache(random, {2, 16, 16, DType::kFloat32}, tokens.lengths, c.get());
  Rows out(100, 64);
  RunStep(*c, tokens, cache, {{0, 0, 100}}, 0, &out);
  for (int64_t t = 0; t < 100; ++t) {
    for (int64_t j = 0; j < 64; ++j) {
      const bool first_kv_head = j < 32;
      ASSERT_EQ(std::isnan(out.at(t, j)), !first_kv_head && t >= 70) << t << ", " << j;
      ASSERT_EQ(std::isinf(out.at(t, j)), first_kv_head && j % 16 == 3 && t >= 80) << t << ", " << j;
    }
  }
}

// Scores of several thousands: exp must not overflow, and one key takes all.
TEST_P(AttentionTest, SurvivesLargeScores) {
  Random random(5);
  Tokens tokens = RandomTokens(random, 2, 1, 16, {90});
  for (int64_t t = 0; t < 90; ++t) {
    for (int64_t j = 0; j < 32; ++j) tokens.q.at(t, j) *= 1000;
  }
  auto c = context(2);
  Cache cache(random, {1, 16, 16, DType::kFloat32}, tokens.lengths, c.get());
  Rows out(90, 32);
  RunStep(*c, tokens, cache, {{0, 0, 90}}, 0, &out);
  for (int64_t t = 0; t < 90; ++t) {
    for (int64_t j = 0; j < 32; ++j) ASSERT_TRUE(std::isfinite(out.at(t, j)));
  }
}

class CpuAttentionTest : public OpTest {};
CAIRN_CPU_OP_TEST_SUITE(CpuAttentionTest);

// The exponential under the softmax, seen through a merge of one part into an empty total of the same maximum.
TEST_P(CpuAttentionTest, ExponentialIsWithinOneUlp) {
  const cpu::Kernels& kernels = *GetParam().kernels;
  double worst = 0;
  float worst_at = 0;
  const auto exp_of = [&](float x) {
    float part[16], weighted[16] = {}, max = 0, sum = 1;
    std::fill_n(part, 16, 1.0f);
    kernels.merge_attention(x, 1, part, 16, &max, &sum, weighted);
    return weighted[0];
  };
  const uint32_t lowest = std::bit_cast<uint32_t>(-87.3f);
  for (uint32_t bits = std::bit_cast<uint32_t>(-1e-9f); bits <= lowest; bits += 397) {
    const float x = std::bit_cast<float>(bits);
    const double exact = std::exp(static_cast<double>(x));
    int exponent = 0;
    std::frexp(exact, &exponent);
    const double ulps = std::abs(exp_of(x) - exact) / std::ldexp(1.0, exponent - 24);
    if (ulps > worst) worst = ulps, worst_at = x;
  }
  EXPECT_LE(worst, 1.0) << "at " << worst_at;
  EXPECT_EQ(exp_of(0), 1);
  EXPECT_EQ(exp_of(-std::numeric_limits<float>::infinity()), 0);
}

class KvAppendTest : public OpTest {};
CAIRN_OP_TEST_SUITE(KvAppendTest);

// Running scores of new slots start from zero, whatever their block held before; the others keep theirs.
TEST_P(KvAppendTest, ZeroesTheScoresOfItsSlots) {
  Random random(7);
  auto c = context(2);
  Tokens tokens = RandomTokens(random, 2, 2, 8, {30});
  Cache cache(random, {2, 8, 4, DType::kBFloat16, /*num_scores=*/2}, tokens.lengths, c.get());
  KvView view = cache.HostView(0, 30);
  for (int32_t slot = 0; slot < 30; ++slot) {
    for (int h = 0; h < 2; ++h) *view.score(h, slot, 0) = *view.score(h, slot, 1) = 5;
  }
  cache.Send();
  Operands on(*c);
  KvAppend(*c, on(tokens.k).SplitRows(2, 8), on(tokens.v).SplitRows(2, 8), on.Ints(tokens.positions),
           {{17, 13, cache.View(0, 30)}});
  view = cache.HostView(0, 30);
  for (int32_t slot = 0; slot < 30; ++slot) {
    for (int h = 0; h < 2; ++h) {
      for (int plane = 0; plane < 2; ++plane) EXPECT_EQ(*view.score(h, slot, plane), slot < 17 ? 5 : 0) << slot;
    }
    EXPECT_EQ(*view.position(1, slot), slot < 17 ? -1 : tokens.positions[slot]);
  }
}

TEST_P(KvAppendTest, FillsTheSlotsOfItsRowsOnly) {
  Random random(6);
  for (const Shape& shape : kShapes) {
    for (DType type : kCacheTypes) {
      auto c = context(3);
      Tokens tokens = RandomTokens(random, shape.heads, shape.kv_heads, shape.d, {50, 9});
      const KvBlockLayout layout = {shape.kv_heads, shape.d, shape.block_size, type};
      Cache cache(random, layout, tokens.lengths, c.get());
      // Slots 20 .. 39 of the first sequence and 8 of the second.
      const std::vector<SequenceRows> sequences = {{20, 20, cache.View(0, 40)}, {58, 1, cache.View(1, 9)}};
      Operands on(*c);
      KvAppend(*c, on(tokens.k).SplitRows(shape.kv_heads, shape.d), on(tokens.v).SplitRows(shape.kv_heads, shape.d),
               on.Ints(tokens.positions), sequences);
      for (const auto& [sequence, slot, written] : {std::tuple<int, int, bool>{0, 19, false},
                                                    {0, 20, true},
                                                    {0, 39, true},
                                                    {0, 40, false},
                                                    {1, 7, false},
                                                    {1, 8, true}}) {
        const KvView view = cache.HostView(sequence, tokens.lengths[sequence]);
        const int64_t t = tokens.first(sequence) + slot;
        for (int h = 0; h < shape.kv_heads; ++h) {
          EXPECT_EQ(*view.position(h, slot), written ? tokens.positions[t] : -1);
          for (int j = 0; j < shape.d; ++j) {
            const float k = ReadElement(type, view.k(h, slot), j), v = ReadElement(type, view.v(h, slot), j);
            if (written) {
              ASSERT_EQ(k, RoundTo(type, tokens.k.at(t, h * shape.d + j)));
              ASSERT_EQ(v, RoundTo(type, tokens.v.at(t, h * shape.d + j)));
            } else {
              ASSERT_TRUE(std::isnan(k) && std::isnan(v)) << "slot " << slot;
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace cairn
