#include "kernels/ops/kv_scores.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <set>

#include "kernels/core/token_hash.h"
#include "kernels/ops/attention.h"
#include "kernels/ops/kv_select.h"
#include "tests/kernels/op_testing.h"
#include "tests/kernels/paged_cache.h"

namespace cairn {
namespace {

struct Shape {
  int group, kv_heads, d, block_size;
  int32_t n, window;
};

constexpr Shape kShapes[] = {{1, 1, 2, 1, 9, 8},      {4, 2, 64, 16, 200, 8},   {3, 3, 6, 7, 65, 1},
                             {7, 1, 80, 128, 300, 8}, {2, 4, 128, 24, 129, 16}, {1, 2, 34, 5, 64, 3},
                             {5, 1, 256, 16, 70, 8},  {2, 2, 16, 32, 640, 32}};

// A layer of one sequence in a paged cache of a context's device, and its keys as the cache holds them.
class Layer {
 public:
  // Keys of `clusters` kinds, spread by `spread` around each.
  Layer(Random& random, Context& context, const Shape& shape, DType dtype, int clusters = 6, float spread = 0.6f,
        int num_scores = 0)
      : shape_(shape),
        dtype_(dtype),
        cache_(random, {shape.kv_heads, shape.d, shape.block_size, dtype, num_scores}, {shape.n}, &context),
        keys_(shape.n, shape.kv_heads * shape.d),
        queries_(Rows::Normal(random, shape.window, shape.kv_heads * shape.group * shape.d, 3)) {
    const Rows centers = Rows::Normal(random, clusters, keys_.columns());
    for (int64_t i = 0; i < shape.n; ++i) {
      const int cluster = random.Integer(0, clusters - 1);
      for (int64_t j = 0; j < keys_.columns(); ++j) {
        keys_.at(i, j) = RoundTo(dtype, centers.at(cluster, j) + spread * random.Normal());
      }
    }
  }

  // To be called after changes to keys().
  void Write(Context& context) {
    std::vector<int32_t> positions(shape_.n);
    std::iota(positions.begin(), positions.end(), 0);
    Operands on(context);
    const Tensor k = on(keys_).SplitRows(shape_.kv_heads, shape_.d);
    KvAppend(context, k, k, on.Ints(positions), {{0, shape_.n, View()}});
    context.Synchronize();
  }

  Rows& keys() { return keys_; }
  // Head h's key of slot i.
  double key(int h, int64_t i, int64_t j) const { return RoundTo(dtype_, keys_.at(i, h * shape_.d + j)); }
  double query(int r, int head, int64_t j) const { return queries_.at(r, head * shape_.d + j); }
  Rows& queries() { return queries_; }
  Tensor Queries(Operands& on) { return on.F32(queries_).SplitRows(shape_.kv_heads * shape_.group, shape_.d); }
  KvView View() const { return cache_.View(0, shape_.n); }
  // To look into, and to send what was changed there.
  KvView HostView() { return cache_.HostView(0, shape_.n); }
  void Send() { cache_.Send(); }
  int32_t candidates() const { return shape_.n - shape_.window; }

 private:
  Shape shape_;
  DType dtype_;
  Cache cache_;
  Rows keys_, queries_;
};

using Matrix = std::vector<std::vector<double>>;

void Softmax(std::vector<double>& x) {
  const double max = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double& v : x) sum += v = std::exp(v - max);
  for (double& v : x) v /= sum;
}

// Logits of query r of head g of KV head h's group against the first `slots` slots.
std::vector<double> Logits(const Layer& layer, const Shape& shape, int h, int r, int g, int64_t slots) {
  std::vector<double> logits(slots);
  for (int64_t i = 0; i < slots; ++i) {
    for (int j = 0; j < shape.d; ++j) logits[i] += layer.query(r, h * shape.group + g, j) * layer.key(h, i, j);
    logits[i] /= std::sqrt(shape.d);
  }
  return logits;
}

// A logit of size up to X errs by (d + 3) u X, and a probability by a factor of twice that, its sum and its exp.
double LogitError(const Layer& layer, const Shape& shape) {
  double largest = 0;
  for (int h = 0; h < shape.kv_heads; ++h) {
    for (int v = 0; v < shape.window * shape.group; ++v) {
      for (int64_t i = 0; i < shape.n; ++i) {
        double size = 0;
        for (int j = 0; j < shape.d; ++j) {
          size += std::abs(layer.query(v / shape.group, h * shape.group + v % shape.group, j) * layer.key(h, i, j));
        }
        largest = std::max(largest, size / std::sqrt(shape.d));
      }
    }
  }
  return (shape.d + 3) * 0x1p-24 * largest;
}

double ProbabilityError(const Layer& layer, const Shape& shape) {
  return 2 * LogitError(layer, shape) + (shape.n + 32) * 0x1p-24;
}

// [kv_heads, m]: what an op is expected to give, and what it gives.
void ExpectNear(const Rows& got, const Matrix& exact, double relative, double absolute) {
  for (size_t h = 0; h < exact.size(); ++h) {
    for (size_t i = 0; i < exact[h].size(); ++i) {
      ASSERT_NEAR(got.at(h, i), exact[h][i], std::abs(exact[h][i]) * relative + absolute)
          << "head " << h << " slot " << i;
    }
  }
  EXPECT_TRUE(got.GapsIntact());
}

class KvScoresTest : public OpTest {
 protected:
  // body(layer, shape) for all shapes and cache types.
  void ForLayers(uint32_t seed, Context& context, const std::function<void(Layer&, const Shape&)>& body) {
    Random random(seed);
    int turn = 0;
    for (const Shape& shape : kShapes) {
      for (DType dtype : kCacheTypes) {
        if (Skips(turn++, 4)) continue;
        SCOPED_TRACE(testing::Message() << shape.kv_heads << " x " << shape.group << " heads of " << shape.d << ", n "
                                        << shape.n << ", w " << shape.window << ", " << DTypeName(dtype));
        Layer layer(random, context, shape, dtype);
        layer.Write(context);
        body(layer, shape);
      }
    }
  }
};
CAIRN_OP_TEST_SUITE(KvScoresTest);

void ExpectImportance(Context& context, Layer& layer, const Shape& shape, int left_out) {
  const int32_t m = shape.n - left_out;
  Rows out(shape.kv_heads, m, 5);
  Operands on(context);
  WindowImportance(context, {layer.View()}, layer.Queries(on), left_out, on.F32(out));
  on.Fetch();
  Matrix exact(shape.kv_heads, std::vector<double>(m));
  for (int h = 0; h < shape.kv_heads; ++h) {
    for (int r = 0; r < shape.window; ++r) {
      std::vector<double> most(m, -INFINITY);
      for (int g = 0; g < shape.group; ++g) {
        const std::vector<double> logits = Logits(layer, shape, h, r, g, m);
        for (int32_t i = 0; i < m; ++i) most[i] = std::max(most[i], logits[i]);
      }
      Softmax(most);
      for (int32_t i = 0; i < m; ++i) exact[h][i] += most[i] / shape.window;
    }
  }
  ExpectNear(out, exact, ProbabilityError(layer, shape), 1e-36);
}

TEST_P(KvScoresTest, WindowImportanceMatchesTheFormula) {
  auto c = context(3);
  ForLayers(1, *c, [&](Layer& layer, const Shape& shape) {
    ExpectImportance(*c, layer, shape, shape.window);
    ExpectImportance(*c, layer, shape, 0);
  });
}

// So many logits that a GPU works on some heads after the others.
TEST_P(KvScoresTest, WindowImportanceOfManyVectors) {
  auto c = context(3);
  Random random(14);
  const Shape shape = {8, 4, 2, 16, 1100, 32};
  Layer layer(random, *c, shape, DType::kFloat32);
  layer.Write(*c);
  ExpectImportance(*c, layer, shape, shape.window);
}

TEST_P(KvScoresTest, WindowAttentionMatchesTheFormula) {
  auto c = context(3);
  ForLayers(2, *c, [&](Layer& layer, const Shape& shape) {
    const int G = shape.group, w = shape.window;
    const int64_t n = shape.n;
    std::vector<Matrix> p(shape.kv_heads);  // [h][r * G + g][i]
    for (int h = 0; h < shape.kv_heads; ++h) {
      for (int v = 0; v < w * G; ++v) {
        p[h].push_back(Logits(layer, shape, h, v / G, v % G, n - w + v / G + 1));
        Softmax(p[h].back());
        p[h].back().resize(n);
      }
    }
    const auto over_queries = [&](int h, int g, int64_t i) {
      double sum = 0;
      for (int r = 0; r < w; ++r) sum += p[h][r * G + g][i];
      return sum;
    };
    for (WindowReduce reduce : {WindowReduce::kMeanOfHeads, WindowReduce::kSumOfHeads, WindowReduce::kMaxOfHeads,
                                WindowReduce::kMeanOfMaxima}) {
      Matrix exact(shape.kv_heads, std::vector<double>(n));
      for (int h = 0; h < shape.kv_heads; ++h) {
        for (int64_t i = 0; i < n; ++i) {
          double sum = 0, largest = 0, maxima = 0;
          for (int g = 0; g < G; ++g) {
            sum += over_queries(h, g, i);
            largest = std::max(largest, over_queries(h, g, i));
          }
          for (int r = 0; r < w; ++r) {
            double max = 0;
            for (int g = 0; g < G; ++g) max = std::max(max, p[h][r * G + g][i]);
            maxima += max;
          }
          exact[h][i] = reduce == WindowReduce::kMeanOfHeads  ? sum / G
                        : reduce == WindowReduce::kSumOfHeads ? sum
                        : reduce == WindowReduce::kMaxOfHeads ? largest
                                                              : maxima / w;
        }
      }
      // Of all slots, and of the candidates alone. Fixed point rounds each of G sums to 2^-41.
      for (int64_t columns : {n, n - w}) {
        SCOPED_TRACE(testing::Message() << "reduce " << static_cast<int>(reduce) << ", columns " << columns);
        Rows out(shape.kv_heads, columns, 2);
        Operands on(*c);
        WindowAttention(*c, {layer.View()}, layer.Queries(on), reduce, static_cast<int>(n - columns), on.F32(out));
        on.Fetch();
        for (auto& row : exact) row.resize(columns);
        ExpectNear(out, exact, ProbabilityError(layer, shape), G * 0x1p-41);
      }
    }
  });
}

// Keys in E4M3 are what their codes mean: the same bits as over a float16 cache of these numbers.
TEST_P(KvScoresTest, ACodeIsTheNumberThatItMeans) {
  auto c = context(3);
  int turn = 0;
  for (const Shape& shape : kShapes) {
    if (Skips(turn++, 3)) continue;
    SCOPED_TRACE(testing::Message() << shape.kv_heads << " x " << shape.group << " heads of " << shape.d);
    Random of_codes(15), of_numbers(15);
    Layer codes(of_codes, *c, shape, DType::kFloat8E4M3, 6, 0.6f, true);
    Layer numbers(of_numbers, *c, shape, DType::kFloat16, 6, 0.6f, true);
    for (int64_t i = 0; i < shape.n; ++i) {
      for (int64_t j = 0; j < codes.keys().columns(); ++j) {
        if (i == 2) codes.keys().at(i, j) *= 1e-3f;  // some below 2^-10, which become zero
        numbers.keys().at(i, j) = RoundTo(DType::kFloat8E4M3, codes.keys().at(i, j));
      }
    }
    codes.Write(*c);
    numbers.Write(*c);
    const auto scores_of = [&](Layer& layer) {
      std::vector<Rows> rows(6, Rows(shape.kv_heads, layer.candidates()));
      Operands on(*c);
      const Tensor queries = layer.Queries(on);
      WindowImportance(*c, {layer.View()}, queries, shape.window, on.F32(rows[0]));
      WindowAttention(*c, {layer.View()}, queries, WindowReduce::kMeanOfHeads, shape.window, on.F32(rows[1]));
      KeyRedundancy(*c, {layer.View()}, shape.window, 0.5f, RedundancyVariant::kCode, true, on.F32(rows[2]));
      KeyRedundancy(*c, {layer.View()}, shape.window, 0.5f, RedundancyVariant::kCode, true,
                    on.F32(rows[3]));  // from memory
      KeyRedundancy(*c, {layer.View()}, shape.window, 0.8f, RedundancyVariant::kPaper, false, on.F32(rows[4]));
      KeyDifference(*c, {layer.View()}, shape.window, on.F32(rows[5]));
      on.Fetch();
      return rows;
    };
    const std::vector<Rows> found = scores_of(codes), expected = scores_of(numbers);
    for (size_t i = 0; i < found.size(); ++i) EXPECT_TRUE(SameBits(found[i], expected[i])) << "score " << i;
  }
}

// The group's sum is one of integers: any order of the heads gives the same bits.
TEST_P(KvScoresTest, GroupSumsDoNotDependOnTheOrderOfHeads) {
  Random random(3);
  auto c = context(2);
  const Shape shape = {6, 1, 32, 16, 100, 8};
  Layer layer(random, *c, shape, DType::kFloat32);
  layer.Write(*c);
  Rows reversed(shape.window, layer.queries().columns());
  for (int r = 0; r < shape.window; ++r) {
    for (int g = 0; g < 6; ++g) {
      for (int j = 0; j < 32; ++j) reversed.at(r, g * 32 + j) = layer.queries().at(r, (5 - g) * 32 + j);
    }
  }
  for (WindowReduce reduce : {WindowReduce::kMeanOfHeads, WindowReduce::kSumOfHeads, WindowReduce::kMaxOfHeads,
                              WindowReduce::kMeanOfMaxima}) {
    Rows a(1, 100), b(1, 100);
    Operands on(*c);
    WindowAttention(*c, {layer.View()}, layer.Queries(on), reduce, 0, on.F32(a));
    WindowAttention(*c, {layer.View()}, on.F32(reversed).SplitRows(6, 32), reduce, 0, on.F32(b));
    on.Fetch();
    EXPECT_TRUE(SameBits(a, b)) << static_cast<int>(reduce);
  }
}

// Cosines of all pairs, the n x n loop of the specification; margin: the least distance of one to the threshold.
std::vector<double> PlainRedundancy(const Layer& layer, const Shape& shape, int h, double threshold,
                                    RedundancyVariant variant, double* margin) {
  const int64_t n = variant == RedundancyVariant::kCode ? shape.n : layer.candidates();
  Matrix unit(n, std::vector<double>(shape.d)), s(n, std::vector<double>(n));
  for (int64_t i = 0; i < n; ++i) {
    double squares = 0;
    for (int j = 0; j < shape.d; ++j) squares += layer.key(h, i, j) * layer.key(h, i, j);
    for (int j = 0; j < shape.d; ++j) unit[i][j] = layer.key(h, i, j) / (std::sqrt(squares) + 1e-8);
  }
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      if (i == j) continue;
      s[i][j] = std::inner_product(unit[i].begin(), unit[i].end(), unit[j].begin(), 0.0);
      *margin = std::min(*margin, std::abs(s[i][j] - threshold));
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    int64_t newest = n - 1;
    while (newest >= 0 && !(newest != i && s[i][newest] > threshold)) --newest;
    if (newest >= 0 || variant == RedundancyVariant::kCode) s[i][std::max<int64_t>(newest, 0)] = 0;
  }
  std::vector<double> mean(n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      mean[variant == RedundancyVariant::kCode ? j : i] += s[i][j] / static_cast<double>(n);
    }
  }
  Softmax(mean);
  mean.resize(layer.candidates());
  return mean;
}

std::vector<int32_t> Highest(std::vector<double> scores, int32_t count) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  order.resize(count);
  std::sort(order.begin(), order.end());
  return order;
}

// |dR| <= 1e-6 (in fact R's error is that of a mean of cosines, times R), and the same half of the slots stays.
TEST_P(KvScoresTest, RedundancyMatchesThePlainLoop) {
  auto c = context(3);
  Random random(4);
  int compared = 0, sets = 0, turn = 0;
  for (const Shape& shape : kShapes) {
    // From keys all alike to keys of their own; thresholds between "everything is similar" and "nothing is".
    for (const auto& [clusters, spread, threshold] : {std::tuple{1, 0.1f, 0.5},
                                                      {6, 0.6f, 0.5},
                                                      {40, 0.3f, 0.5},
                                                      {1, 30.0f, 0.5},
                                                      {6, 0.6f, -0.25},
                                                      {6, 0.6f, 0.0},
                                                      {3, 0.5f, -1.0},
                                                      {3, 0.5f, 1.0}}) {
      const DType dtype = kFloatTypes[turn % 3];
      if (Skips(turn++, 4)) continue;
      Layer layer(random, *c, shape, dtype, clusters, spread);
      // Some keys that a 16-bit norm would lose, and a zero.
      for (int64_t j = 0; j < layer.keys().columns(); ++j) {
        layer.keys().at(2, j) *= 1e-4f;
        layer.keys().at(5, j) = 0;
        if (dtype != DType::kFloat16) layer.keys().at(3, j) *= 1e4f;
      }
      layer.Write(*c);
      for (RedundancyVariant variant : {RedundancyVariant::kCode, RedundancyVariant::kPaper}) {
        SCOPED_TRACE(testing::Message() << shape.n << " keys of " << shape.d << ", " << DTypeName(dtype) << ", "
                                        << clusters << " clusters, threshold " << threshold << ", variant "
                                        << static_cast<int>(variant));
        Rows out(shape.kv_heads, layer.candidates(), 1);
        Operands on(*c);
        KeyRedundancy(*c, {layer.View()}, shape.window, static_cast<float>(threshold), variant, false, on.F32(out));
        on.Fetch();
        EXPECT_TRUE(out.GapsIntact());
        for (int h = 0; h < shape.kv_heads; ++h) {
          double margin = 1;
          const std::vector<double> exact = PlainRedundancy(layer, shape, h, threshold, variant, &margin);
          if (margin < (on_cpu() ? 1e-6 : 4e-6)) continue;  // float32 may see a pair on the other side
          ++compared;
          std::vector<double> got;
          for (size_t i = 0; i < exact.size(); ++i) {
            got.push_back(out.at(h, i));
            ASSERT_NEAR(got[i], exact[i], std::min(1e-6, 4e-6 * exact[i])) << "head " << h << " slot " << i;
          }
          std::vector<double> sorted = exact;
          std::sort(sorted.begin(), sorted.end());
          const size_t half = sorted.size() / 2;
          if (half == 0 || sorted[half] - sorted[half - 1] < 4e-6 * sorted[half]) continue;
          ++sets;
          ASSERT_EQ(Highest(got, static_cast<int32_t>(sorted.size() - half)),
                    Highest(exact, static_cast<int32_t>(sorted.size() - half)));
        }
      }
    }
  }
  EXPECT_GT(compared, kEmulated ? 25 : 130);
  EXPECT_GT(sets, kEmulated ? 10 : 60);
}

// A cosine of exactly the threshold is not above it: keys of norm 1 with products of exactly 1 and 1/2.
TEST_P(KvScoresTest, ThresholdIsStrict) {
  auto c = context(2);
  for (int d : {16, 64}) {
    Random random(13);
    const Shape shape = {1, 1, d, 16, 100, 8};
    Layer layer(random, *c, shape, DType::kBFloat16);
    for (int64_t i = 0; i < 100; ++i) {
      for (int j = 0; j < d; ++j) layer.keys().at(i, j) = i < 50 ? (j == 0 ? 1.0f : 0) : (j < 4 ? 0.5f : 0);
    }
    layer.Write(*c);
    Rows out(1, 92);
    Operands on(*c);
    KeyRedundancy(*c, {layer.View()}, 8, 0.5f, RedundancyVariant::kCode, false, on.F32(out));
    on.Fetch();
    double margin = 1;
    ExpectNear(out, {PlainRedundancy(layer, shape, 0, 0.5, RedundancyVariant::kCode, &margin)}, 4e-6, 0);
  }
}

TEST_P(KvScoresTest, DifferenceMatchesTheFormula) {
  auto c = context(3);
  ForLayers(5, *c, [&](Layer& layer, const Shape& shape) {
    Rows out(shape.kv_heads, layer.candidates(), 1);
    Operands on(*c);
    KeyDifference(*c, {layer.View()}, shape.window, on.F32(out));
    on.Fetch();
    Matrix exact(shape.kv_heads);
    for (int h = 0; h < shape.kv_heads; ++h) {
      Matrix unit(shape.n, std::vector<double>(shape.d));
      std::vector<double> mean(shape.d);
      for (int64_t i = 0; i < shape.n; ++i) {
        double squares = 0;
        for (int j = 0; j < shape.d; ++j) squares += layer.key(h, i, j) * layer.key(h, i, j);
        for (int j = 0; j < shape.d; ++j) {
          unit[i][j] = layer.key(h, i, j) / (std::sqrt(squares) + 1e-8);
          mean[j] += unit[i][j] / shape.n;
        }
      }
      const double norm = std::sqrt(std::inner_product(mean.begin(), mean.end(), mean.begin(), 0.0)) + 1e-8;
      for (int32_t i = 0; i < layer.candidates(); ++i) {
        exact[h].push_back(-std::inner_product(unit[i].begin(), unit[i].end(), mean.begin(), 0.0) / norm);
      }
    }
    ExpectNear(out, exact, 0, 2e-5);
  });
}

// The same bits on one thread and on three, for a head alone and among others, time after time.
TEST_P(KvScoresTest, BitsDependOnTheHeadAlone) {
  auto c1 = context(1), c3 = context(3);
  const int32_t n = kEmulated ? 150 : 700;
  for (int d : {48, 64}) {
    Random random(6);
    const Shape all = {3, 4, d, 16, n, 8}, one = {3, 1, d, 16, n, 8};
    Layer layer(random, *c1, all, DType::kBFloat16);
    Layer single(random, *c1, one, DType::kBFloat16);
    for (int64_t i = 0; i < n; ++i) {
      for (int j = 0; j < d; ++j) single.keys().at(i, j) = layer.keys().at(i, 2 * d + j);
    }
    for (int r = 0; r < 8; ++r) {
      for (int j = 0; j < 3 * d; ++j) single.queries().at(r, j) = layer.queries().at(r, 2 * 3 * d + j);
    }
    layer.Write(*c1);
    single.Write(*c1);
    const std::function<void(Context&, Layer&, const Tensor& queries, const Tensor& out)> ops[] = {
        [](Context& c, Layer& l, const Tensor& queries, const Tensor& out) {
          WindowImportance(c, {l.View()}, queries, 8, out);
        },
        [](Context& c, Layer& l, const Tensor& queries, const Tensor& out) {
          WindowAttention(c, {l.View()}, queries, WindowReduce::kMeanOfHeads, 8, out);
        },
        [](Context& c, Layer& l, const Tensor&, const Tensor& out) {
          KeyRedundancy(c, {l.View()}, 8, 0.5f, RedundancyVariant::kCode, false, out);
        },
        [](Context& c, Layer& l, const Tensor&, const Tensor& out) { KeyDifference(c, {l.View()}, 8, out); },
    };
    for (const auto& op : ops) {
      const auto run = [&](Context& c, Layer& l, Rows& out) {
        Operands on(c);
        op(c, l, l.Queries(on), on.F32(out));
        on.Fetch();
      };
      Rows serial(4, n - 8), alone(1, n - 8);
      run(*c1, layer, serial);
      run(*c3, single, alone);
      EXPECT_TRUE(SameRowBits(serial, 2, alone, 0));
      for (int repeat = 0; repeat < (kEmulated ? 1 : 5); ++repeat) {
        Rows parallel(4, n - 8);
        run(*c3, layer, parallel);
        EXPECT_TRUE(SameBits(serial, parallel));
      }
    }
  }
}

// The context's scratch is all the memory there is, and it settles with the longest sequence.
TEST_P(KvScoresTest, ScratchSettles) {
  Random random(7);
  auto c = context(2);
  const int32_t n = kEmulated ? 100 : 400;
  const Shape shape = {2, 2, 32, 16, n, 8};
  Layer layer(random, *c, shape, DType::kFloat32);
  layer.Write(*c);
  Rows out(2, n - 8);
  Operands on(*c);
  const auto run = [&] {
    WindowImportance(*c, {layer.View()}, layer.Queries(on), 8, on.F32(out));
    WindowAttention(*c, {layer.View()}, layer.Queries(on), WindowReduce::kMeanOfHeads, 8, on.F32(out));
    KeyRedundancy(*c, {layer.View()}, 8, 0.5f, RedundancyVariant::kCode, false, on.F32(out));
    KeyDifference(*c, {layer.View()}, 8, on.F32(out));
  };
  ReserveScoreMemory(*c, layer.View().layout, n, 8 * shape.group);
  const void* const reserved = c->SharedScratch(0);
  const auto scratch = [&] {
    std::vector<const void*> memory = {c->SharedScratch(0)};
    for (int worker = 0; worker < c->threads().num_threads(); ++worker) memory.push_back(c->Scratch(worker, 0));
    return memory;
  };
  // Which worker takes which task is left to chance, so give every worker the largest need.
  for (int worker = 0; worker < c->threads().num_threads(); ++worker) c->Scratch(worker, 1 << 20);
  run();
  const std::vector<const void*> before = scratch();
  run();
  EXPECT_EQ(before, scratch());
  if (!on_cpu()) {
    EXPECT_EQ(c->SharedScratch(0), reserved);
  }
}

// What redundancy remembers from call to call spares work and changes no bit: over compactions that take
// near-duplicates away or leave them, for keys in clusters and alone, on every path through the search.
TEST_P(KvScoresTest, WhatIsRememberedChangesNothing) {
  auto c = context(3);
  struct Case {
    int d;
    DType dtype;
    int clusters;
    float spread;
  };
  int turn = 0;
  for (const auto& [d, dtype, clusters, spread] : {Case{64, DType::kBFloat16, 3, 0.7f},
                                                   {64, DType::kFloat16, 40, 0.2f},
                                                   {16, DType::kFloat32, 3, 0.7f},
                                                   {16, DType::kBFloat16, 40, 0.2f},
                                                   {64, DType::kBFloat16, 40, 0.7f},
                                                   {16, DType::kFloat32, 40, 30.0f},
                                                   {128, DType::kFloat16, 12, 0.7f},
                                                   {64, DType::kBFloat16, 1, 30.0f}}) {
    if (Skips(turn++, 4)) continue;
    SCOPED_TRACE(testing::Message() << clusters << " clusters, spread " << spread << ", d " << d);
    Random random(11);
    constexpr int kHeads = 2;
    constexpr int32_t kCapacity = 260;
    const Rows centers = Rows::Normal(random, clusters, kHeads * d);
    Cache with(random, {kHeads, d, 16, dtype, /*num_scores=*/1}, {kCapacity}, c.get()),
        without(random, {kHeads, d, 16, dtype, /*num_scores=*/0}, {kCapacity}, c.get());
    int32_t n = 0, fed = 0;
    for (int round = 0; round < (kEmulated ? 6 : 20); ++round) {
      const int32_t more = std::min(kCapacity - n, random.Integer(0, round % 5 == 0 ? 200 : 70));
      Rows keys(more, kHeads * d);
      std::vector<int32_t> positions(more);
      std::iota(positions.begin(), positions.end(), fed);
      for (int32_t i = 0; i < more; ++i) {
        const int cluster = random.Integer(0, clusters - 1);
        for (int j = 0; j < kHeads * d; ++j) keys.at(i, j) = centers.at(cluster, j) + spread * random.Normal();
      }
      fed += more;
      n += more;
      if (n <= 9) continue;
      Rows expected(kHeads, n - 8), got(kHeads, n - 8);
      std::vector<int32_t> kept;
      const int32_t keep = random.Integer(std::max(9, n - 150), n);
      std::vector<float> worth(kHeads * (n - 8));
      for (float& value : worth) value = random.Normal();
      kept.resize(kHeads * keep);
      Operands on(*c);
      const Tensor k = on(keys).SplitRows(kHeads, d), p = on.Ints(positions);
      const Tensor sets = on.Ints(kept).Reshape({kHeads, keep});
      for (const Cache* cache : {&with, &without}) {
        if (more > 0) KvAppend(*c, k, k, p, {{0, more, cache->View(0, n)}});
        KeyRedundancy(*c, {cache->View(0, n)}, 8, 0.5f, RedundancyVariant::kCode, cache == &with,
                      on.F32(cache == &with ? got : expected));
      }
      // The least redundant, or anything: then many a near-duplicate is gone.
      SelectTopK(*c, round % 2 == 0 ? on.F32(got) : on.F32(worth).Reshape({kHeads, n - 8}), {{n - 8, 8, keep}}, 0,
                 sets);
      for (const Cache* cache : {&with, &without}) KvCompact(*c, {cache->View(0, n)}, sets, {keep});
      on.Fetch();
      ASSERT_TRUE(SameBits(got, expected)) << "round " << round << ", " << n << " slots";
      n = keep;
    }
  }
}

// Nothing is looked for twice: a plane that says that no key has a near-duplicate is believed.
TEST_P(KvScoresTest, WhatIsRememberedIsBelieved) {
  auto c = context(2);
  for (int d : {16, 64}) {
    Random random(12);
    const Shape shape = {1, 2, d, 16, 100, 8};
    Layer layer(random, *c, shape, DType::kBFloat16, 2, 0.3f, /*num_scores=*/1);
    layer.Write(*c);
    Rows none(2, 92), first(2, 92), again(2, 92);
    Operands on(*c);
    KeyRedundancy(*c, {layer.View()}, 8, 2.0f, RedundancyVariant::kCode, false, on.F32(none));
    KeyRedundancy(*c, {layer.View()}, 8, 0.5f, RedundancyVariant::kCode, true, on.F32(first));
    const KvView kv = layer.HostView();
    for (int h = 0; h < 2; ++h) {
      for (int32_t slot = 0; slot < 100; ++slot) *kv.score(h, slot) = std::bit_cast<float>(1);
    }
    layer.Send();
    KeyRedundancy(*c, {layer.View()}, 8, 0.5f, RedundancyVariant::kCode, true, on.F32(again));
    on.Fetch();
    EXPECT_FALSE(SameBits(first, none));
    EXPECT_TRUE(SameBits(again, none));
  }
}

TEST_P(KvScoresTest, PoolingOverNeighbours) {
  Random random(8);
  auto c = context(2);
  for (int m : {1, 2, 3, 7, 8, 300}) {
    for (int kernel : {1, 3, 7, 31}) {
      Rows x = Rows::Normal(random, 3, m, 2), max(3, m, 1), average(3, m, 1);
      Operands on(*c);
      PoolSlots(*c, on.F32(x), {m}, Pooling::kMax, kernel, on.F32(max));
      PoolSlots(*c, on.F32(x), {m}, Pooling::kAverage, kernel, on.F32(average));
      on.Fetch();
      EXPECT_TRUE(max.GapsIntact() && average.GapsIntact());
      for (int h = 0; h < 3; ++h) {
        for (int i = 0; i < m; ++i) {
          float most = -INFINITY;
          double sum = 0;
          for (int j = std::max(0, i - kernel / 2); j <= std::min(m - 1, i + kernel / 2); ++j) {
            most = std::max(most, x.at(h, j));
            sum += x.at(h, j);
          }
          ASSERT_EQ(max.at(h, i), most);
          ASSERT_NEAR(average.at(h, i), sum / kernel, 1e-6);
        }
      }
    }
  }
}

TEST_P(KvScoresTest, RowSteps) {
  Random random(9);
  auto c = context(2);
  const int n = 550;
  Rows x = Rows::Normal(random, 2, n, 1), y = Rows::Normal(random, 2, n, 2), out(2, n, 3);
  for (int i = 0; i < n; ++i) y.at(0, i) = -std::abs(y.at(0, i));
  Rows in_place = x, recency(2, n, 1);
  const Rows before = x, negative = y;
  const std::vector<int32_t> block_table = {0};
  const KvView six_hundred = {.layout = {.kv_heads = 2, .head_dim = 4, .block_size = 600},
                              .pool = nullptr,
                              .block_table = block_table.data(),
                              .num_slots = 600};
  Operands on(*c);
  MixScores(*c, 0.25f, on.F32(x), -0.75f, on.F32(y), on.F32(out));
  MixScores(*c, 0.25f, on.F32(in_place), -0.75f, on.F32(y), on.F32(in_place));
  SlotRecency(*c, {six_hundred}, on.F32(recency));
  DivideByRowMax(*c, on.F32(x), {n});
  DivideByRowMax(*c, on.F32(y), {n});
  on.Fetch();
  float most = 0;
  for (int i = 0; i < n; ++i) most = std::max(most, before.at(1, i));
  for (int i = 0; i < n; ++i) {
    ASSERT_NEAR(out.at(1, i), 0.25 * before.at(1, i) - 0.75 * negative.at(1, i), 1e-6);
    ASSERT_EQ(in_place.at(1, i), out.at(1, i));
    ASSERT_EQ(recency.at(1, i), static_cast<float>(i) / 600);
    ASSERT_EQ(x.at(1, i), before.at(1, i) / most);
  }
  EXPECT_TRUE(SameRowBits(y, 0, negative, 0));
  EXPECT_TRUE(out.GapsIntact() && x.GapsIntact() && recency.GapsIntact());
}

// A token's number depends on its layer, head (not on which of them a rank has) and position, and is uniform.
TEST_P(KvScoresTest, RandomScores) {
  Random random(12);
  auto c = context(2);
  const Shape shape = {1, 2, 8, 7, 140, 8};
  Layer layer(random, *c, shape, DType::kBFloat16, 2, 0.5f, false);
  layer.Write(*c);
  Rows here(2, 132, 1), shifted(2, 132, 2), deeper(2, 132, 1);
  Operands on(*c);
  RandomScores(*c, {layer.View()}, 8, {3}, 4, on.F32(here));
  RandomScores(*c, {layer.View()}, 8, {3}, 5, on.F32(shifted));
  RandomScores(*c, {layer.View()}, 8, {4}, 4, on.F32(deeper));
  on.Fetch();
  double sum = 0;
  std::set<float> values;
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 132; ++i) {
      const float value = here.at(h, i);
      ASSERT_EQ(value, UniformOfToken(3, 4 + h, i));
      ASSERT_TRUE(value >= 0 && value < 1) << value;
      sum += value;
      values.insert({value, deeper.at(h, i)});
      if (h == 1) {
        ASSERT_EQ(shifted.at(0, i), value);
      }
    }
  }
  EXPECT_NEAR(sum / 264, 0.5, 0.06);  // standard deviation 0.018
  EXPECT_GT(values.size(), 520);
}

TEST_P(KvScoresTest, RunningScores) {
  Random random(10);
  auto c = context(2);
  const Shape shape = {1, 2, 8, 7, 40, 8};
  Layer layer(random, *c, shape, DType::kBFloat16, 2, 0.5f, true);
  layer.Write(*c);
  Rows added(2, 40, 1), current(2, 32, 1), scores(2, 32, 1);
  Matrix running(2, std::vector<double>(40));
  for (int round = 0; round < 3; ++round) {
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 40; ++i) added.at(h, i) = std::abs(random.Normal());
    }
    Operands on(*c);
    AddToRunningScores(*c, {layer.View()}, 8, 0.5f, on.F32(added), on.F32(scores));
    on.Fetch();
    const KvView kv = layer.HostView();
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 40; ++i) {
        running[h][i] += 0.5 * added.at(h, i);
        ASSERT_NEAR(*kv.score(h, i), running[h][i], 1e-5);
        if (i < 32) {
          ASSERT_EQ(scores.at(h, i), *kv.score(h, i));
        }
      }
    }
  }
  for (int round = 0; round < 3; ++round) {
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 32; ++i) current.at(h, i) = std::abs(random.Normal());
    }
    Operands on(*c);
    DecayRunningScores(*c, {layer.View()}, 8, 0.8f, on.F32(current), on.F32(scores));
    on.Fetch();
    const KvView kv = layer.HostView();
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 40; ++i) {
        if (i < 32) running[h][i] = std::max(0.8 * running[h][i], static_cast<double>(current.at(h, i)));
        ASSERT_NEAR(*kv.score(h, i), running[h][i], 1e-5);
        if (i < 32) {
          ASSERT_EQ(scores.at(h, i), *kv.score(h, i));
        }
      }
    }
  }
}

// Slots that came with windows 1 to 5 of eight tokens, the last window being seen by all of them: each has the mean
// over the windows that it has been there for, at most as many as there were.
TEST_P(KvScoresTest, RunningMeans) {
  Random random(11);
  auto c = context(2);
  const Shape shape = {1, 2, 8, 7, 40, 8};
  for (const int32_t windows : {5, 3}) {
    Layer layer(random, *c, shape, DType::kBFloat16, 2, 0.5f, 2);
    layer.Write(*c);  // positions 0 .. 39
    Rows current(2, 40, 1), scores(2, 32, 1);
    Matrix sums(2, std::vector<double>(40));
    for (int32_t seen = 1; seen <= windows; ++seen) {
      for (int h = 0; h < 2; ++h) {
        for (int i = 0; i < 40; ++i) current.at(h, i) = std::abs(random.Normal());
      }
      Operands on(*c);
      AverageRunningScores(*c, {layer.View()}, 8, 1, {seen}, on.F32(current), on.F32(scores));
      on.Fetch();
      const KvView kv = layer.HostView();
      for (int h = 0; h < 2; ++h) {
        for (int i = 0; i < 40; ++i) {
          // A slot whose window is the k-th from the end has a count of k at most, so the mean goes over fewer.
          const int count = std::min(seen, (39 - i) / 8 + 1);
          sums[h][i] += (current.at(h, i) - sums[h][i]) / count;
          ASSERT_NEAR(*kv.score(h, i, 1), sums[h][i], 1e-5) << "slot " << i << " after " << seen;
          ASSERT_EQ(*kv.score(h, i, 0), 0);
          if (i < 32) {
            ASSERT_EQ(scores.at(h, i), *kv.score(h, i, 1));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace cairn
