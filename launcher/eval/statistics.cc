#include "launcher/eval/statistics.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace cairn {
namespace {

constexpr double kZ = 1.959963984540054;  // 97.5 % quantile of the normal distribution
constexpr int kResamples = 4000;

Interval Percentiles(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(std::lround(share * static_cast<double>(values.size() - 1)))];
  };
  return {at(0.025), at(0.975)};
}

}  // namespace

Interval WilsonInterval(int64_t right, int64_t total) {
  if (total == 0) return {0, 1};
  const double n = static_cast<double>(total), p = static_cast<double>(right) / n, z2 = kZ * kZ;
  const double middle = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kZ / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  return {right == 0 ? 0 : std::max(0.0, middle - half), right == total ? 1 : std::min(1.0, middle + half)};
}

double McNemarExact(int64_t lost, int64_t won) {
  const int64_t n = lost + won, k = std::min(lost, won);
  if (n == 0) return 1;
  double tail = 0;
  for (int64_t i = 0; i <= k; ++i) {
    tail += std::exp(std::lgamma(n + 1.0) - std::lgamma(i + 1.0) - std::lgamma(n - i + 1.0) -
                     static_cast<double>(n) * std::log(2.0));
  }
  return std::min(1.0, 2 * tail);
}

BootstrapIntervals Bootstrap(const std::vector<PairedShares>& questions) {
  BootstrapIntervals result;
  if (questions.empty()) return {.accuracy = {0, 1}, .share = std::nullopt};
  std::mt19937_64 random(20240527);
  std::vector<double> accuracies, shares;
  for (int resample = 0; resample < kResamples; ++resample) {
    double reference = 0, other = 0;
    for (size_t i = 0; i < questions.size(); ++i) {
      const PairedShares& drawn = questions[random() % questions.size()];
      reference += drawn.reference;
      other += drawn.other;
    }
    accuracies.push_back(other / static_cast<double>(questions.size()));
    if (reference > 0) shares.push_back(other / reference);
  }
  result.accuracy = Percentiles(accuracies);
  // Where a resample has no right answer at all there are too few to speak of a share.
  if (shares.size() == accuracies.size()) result.share = Percentiles(shares);
  return result;
}

}  // namespace cairn
