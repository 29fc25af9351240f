// How sure a measured accuracy is, and a comparison of two settings on the same questions.
#ifndef CAIRN_LAUNCHER_EVAL_STATISTICS_H_
#define CAIRN_LAUNCHER_EVAL_STATISTICS_H_

#include <cstdint>
#include <optional>
#include <vector>

namespace cairn {

struct Interval {
  double low = 0, high = 0;
};

// 95 % interval of a proportion (Wilson 1927, score method): also at 0 and at n of n.
Interval WilsonInterval(int64_t right, int64_t total);

// Two-sided exact test that losses and gains of a paired comparison are equally likely (McNemar 1947, binomial): the
// probability of a split at least as uneven.
double McNemarExact(int64_t lost, int64_t won);

// Of one question: the share of its answers (over seeds) that were right.
struct PairedShares {
  double reference = 0, other = 0;
};

// 95 % percentile bootstrap over questions, seeded, so that the same data give the same interval (Efron 1979). The
// answers to one question stay together.
struct BootstrapIntervals {
  Interval accuracy;              // of `other`
  std::optional<Interval> share;  // accuracy of other / of reference; none where the reference has none right
};
BootstrapIntervals Bootstrap(const std::vector<PairedShares>& questions);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_STATISTICS_H_
