#include "kernels/ops/kv_scores.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "kernels/ops/attention.h"
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

// A layer of one sequence in a paged cache, and its keys as the cache holds them.
class Layer {
 public:
  // Keys of `clusters` kinds, spread by `spread` around each.
  Layer(Random& random, const Shape& shape, DType dtype, int clusters = 6, float spread = 0.6f, bool has_score = false)
      : shape_(shape),
        dtype_(dtype),
        cache_(random, {shape.kv_heads, shape.d, shape.block_size, dtype, has_score}, {shape.n}),
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
    const Tensor k = keys_.tensor().SplitRows(shape_.kv_heads, shape_.d);
    KvAppend(context, k, k, Tensor(positions.data(), DType::kInt32, {shape_.n}), {{0, shape_.n, View()}});
  }

  Rows& keys() { return keys_; }
  // Head h's key of slot i.
  double key(int h, int64_t i, int64_t j) const { return RoundTo(dtype_, keys_.at(i, h * shape_.d + j)); }
  double query(int r, int head, int64_t j) const { return queries_.at(r, head * shape_.d + j); }
  Rows& queries() { return queries_; }
  Tensor query_tensor() { return queries_.tensor().SplitRows(shape_.kv_heads * shape_.group, shape_.d); }
  KvView View() const { return cache_.View(0, shape_.n); }
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
  // body(layer, shape, dtype) for all shapes and cache types.
  void ForLayers(uint32_t seed, Context& context, const std::function<void(Layer&, const Shape&)>& body) {
    Random random(seed);
    for (const Shape& shape : kShapes) {
      for (DType dtype : kFloatTypes) {
        SCOPED_TRACE(testing::Message() << shape.kv_heads << " x " << shape.group << " heads of " << shape.d << ", n "
                                        << shape.n << ", w " << shape.window << ", " << DTypeName(dtype));
        Layer layer(random, shape, dtype);
        layer.Write(context);
        body(layer, shape);
      }
    }
  }
};
CAIRN_CPU_OP_TEST_SUITE(KvScoresTest);

TEST_P(KvScoresTest, WindowImportanceMatchesTheFormula) {
  auto c = context(3);
  ForLayers(1, *c, [&](Layer& layer, const Shape& shape) {
    const int32_t m = layer.candidates();
    Rows out(shape.kv_heads, m, 5);
    WindowImportance(*c, layer.View(), layer.query_tensor(), out.tensor());
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
  });
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
        WindowAttention(*c, layer.View(), layer.query_tensor(), reduce, out.tensor());
        for (auto& row : exact) row.resize(columns);
        ExpectNear(out, exact, ProbabilityError(layer, shape), G * 0x1p-41);
      }
    }
  });
}

// The group's sum is one of integers: any order of the heads gives the same bits.
TEST_P(KvScoresTest, GroupSumsDoNotDependOnTheOrderOfHeads) {
  Random random(3);
  auto c = context(2);
  const Shape shape = {6, 1, 32, 16, 100, 8};
  Layer layer(random, shape, DType::kFloat32);
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
    WindowAttention(*c, layer.View(), layer.query_tensor(), reduce, a.tensor());
    WindowAttention(*c, layer.View(), reversed.tensor().SplitRows(6, 32), reduce, b.tensor());
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
  int compared = 0, sets = 0, next_type = 0;
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
      const DType dtype = kFloatTypes[next_type++ % 3];
      Layer layer(random, shape, dtype, clusters, spread);
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
        KeyRedundancy(*c, layer.View(), static_cast<float>(threshold), variant, false, out.tensor());
        for (int h = 0; h < shape.kv_heads; ++h) {
          double margin = 1;
          const std::vector<double> exact = PlainRedundancy(layer, shape, h, threshold, variant, &margin);
          if (margin < 1e-6) continue;  // float32 may see a pair on the other side
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
  EXPECT_GT(compared, 130);
  EXPECT_GT(sets, 60);
}

TEST_P(KvScoresTest, DifferenceMatchesTheFormula) {
  auto c = context(3);
  ForLayers(5, *c, [&](Layer& layer, const Shape& shape) {
    Rows out(shape.kv_heads, layer.candidates(), 1);
    KeyDifference(*c, layer.View(), out.tensor());
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
  Random random(6);
  const Shape all = {3, 4, 48, 16, 700, 8}, one = {3, 1, 48, 16, 700, 8};
  auto c1 = context(1), c3 = context(3);
  Layer layer(random, all, DType::kBFloat16);
  Layer single(random, one, DType::kBFloat16);
  for (int64_t i = 0; i < 700; ++i) {
    for (int j = 0; j < 48; ++j) single.keys().at(i, j) = layer.keys().at(i, 2 * 48 + j);
  }
  for (int r = 0; r < 8; ++r) {
    for (int j = 0; j < 3 * 48; ++j) single.queries().at(r, j) = layer.queries().at(r, 2 * 3 * 48 + j);
  }
  layer.Write(*c1);
  single.Write(*c1);
  const std::function<void(Context&, Layer&, const Tensor&)> ops[] = {
      [](Context& c, Layer& l, const Tensor& out) { WindowImportance(c, l.View(), l.query_tensor(), out); },
      [](Context& c, Layer& l, const Tensor& out) {
        WindowAttention(c, l.View(), l.query_tensor(), WindowReduce::kMeanOfHeads, out);
      },
      [](Context& c, Layer& l, const Tensor& out) {
        KeyRedundancy(c, l.View(), 0.5f, RedundancyVariant::kCode, false, out);
      },
      [](Context& c, Layer& l, const Tensor& out) { KeyDifference(c, l.View(), out); },
  };
  for (const auto& op : ops) {
    Rows serial(4, 692), alone(1, 692);
    op(*c1, layer, serial.tensor());
    op(*c3, single, alone.tensor());
    EXPECT_TRUE(SameRowBits(serial, 2, alone, 0));
    for (int repeat = 0; repeat < 5; ++repeat) {
      Rows parallel(4, 692);
      op(*c3, layer, parallel.tensor());
      EXPECT_TRUE(SameBits(serial, parallel));
    }
  }
}

// The context's scratch is all the memory there is, and it settles with the longest sequence.
TEST_P(KvScoresTest, ScratchSettles) {
  Random random(7);
  auto c = context(2);
  const Shape shape = {2, 2, 32, 16, 400, 8};
  Layer layer(random, shape, DType::kFloat32);
  layer.Write(*c);
  Rows out(2, 392);
  const auto run = [&] {
    WindowImportance(*c, layer.View(), layer.query_tensor(), out.tensor());
    WindowAttention(*c, layer.View(), layer.query_tensor(), WindowReduce::kMeanOfHeads, out.tensor());
    KeyRedundancy(*c, layer.View(), 0.5f, RedundancyVariant::kCode, false, out.tensor());
    KeyDifference(*c, layer.View(), out.tensor());
  };
  // Twice: which worker takes which task is left to chance, so give every worker the largest need.
  for (int worker = 0; worker < 2; ++worker) c->Scratch(worker, 1 << 20);
  run();
  const void* before[] = {c->Scratch(0, 0), c->Scratch(1, 0), c->SharedScratch(0)};
  run();
  const void* after[] = {c->Scratch(0, 0), c->Scratch(1, 0), c->SharedScratch(0)};
  EXPECT_TRUE(std::equal(before, before + 3, after));
}

TEST_P(KvScoresTest, PoolingOverNeighbours) {
  Random random(8);
  auto c = context(2);
  for (int m : {1, 2, 3, 7, 8, 100}) {
    for (int kernel : {1, 3, 7, 31}) {
      Rows x = Rows::Normal(random, 3, m, 2), max(3, m, 1), average(3, m, 1);
      PoolSlots(*c, x.tensor(), Pooling::kMax, kernel, max.tensor());
      PoolSlots(*c, x.tensor(), Pooling::kAverage, kernel, average.tensor());
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
  Rows x = Rows::Normal(random, 2, 50, 1), y = Rows::Normal(random, 2, 50, 2), out(2, 50, 3);
  MixScores(*c, 0.25f, x.tensor(), -0.75f, y.tensor(), out.tensor());
  for (int i = 0; i < 50; ++i) ASSERT_NEAR(out.at(1, i), 0.25 * x.at(1, i) - 0.75 * y.at(1, i), 1e-6);
  SlotRecency(*c, 60, out.tensor());
  for (int i = 0; i < 50; ++i) ASSERT_EQ(out.at(1, i), static_cast<float>(i) / 60);
  const Rows before = x;
  for (int i = 0; i < 50; ++i) y.at(0, i) = -std::abs(y.at(0, i));
  const Rows negative = y;
  DivideByRowMax(*c, x.tensor());
  DivideByRowMax(*c, y.tensor());
  float most = 0;
  for (int i = 0; i < 50; ++i) most = std::max(most, before.at(1, i));
  for (int i = 0; i < 50; ++i) ASSERT_EQ(x.at(1, i), before.at(1, i) / most);
  EXPECT_TRUE(SameRowBits(y, 0, negative, 0));
}

TEST_P(KvScoresTest, RunningScores) {
  Random random(10);
  auto c = context(2);
  const Shape shape = {1, 2, 8, 7, 40, 8};
  Layer layer(random, shape, DType::kBFloat16, 2, 0.5f, true);
  layer.Write(*c);
  const KvView kv = layer.View();
  Rows added(2, 40, 1), current(2, 32, 1), scores(2, 32, 1);
  Matrix running(2, std::vector<double>(40));
  for (int round = 0; round < 3; ++round) {
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < 40; ++i) added.at(h, i) = std::abs(random.Normal());
    }
    AddToRunningScores(*c, kv, 0.5f, added.tensor(), scores.tensor());
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
    DecayRunningScores(*c, kv, 0.8f, current.tensor(), scores.tensor());
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

}  // namespace
}  // namespace cairn
