// The methods by name: one line each.

#include "absl/strings/str_join.h"
#include "compression/scorer.h"
#include "compression/scorers/scorers.h"
#include "kernels/core/check.h"

namespace cairn {
namespace {

struct Algorithm {
  const char* name;
  std::unique_ptr<Scorer> (*make)(const CompressionConfig&);
};

constexpr Algorithm kAlgorithms[] = {
    {"rkv", MakeRkvScorer},       {"rkv-history", MakeRkvHistoryScorer},
    {"snapkv", MakeSnapKvScorer}, {"streamingllm", MakeStreamingLlmScorer},
    {"h2o", MakeH2oScorer},       {"keydiff", MakeKeyDiffScorer},
    {"gkv", MakeGkvScorer},       {"random", MakeRandomScorer},
};

const Algorithm* Find(const std::string& name) {
  for (const Algorithm& algorithm : kAlgorithms) {
    if (name == algorithm.name) return &algorithm;
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<Scorer> MakeScorer(const CompressionConfig& config) {
  const Algorithm* algorithm = Find(config.algorithm);
  CAIRN_CHECK(algorithm != nullptr, config.algorithm);
  return algorithm->make(config);
}

std::string AlgorithmNames() {
  return absl::StrJoin(kAlgorithms, ", ", [](std::string* out, const Algorithm& a) { out->append(a.name); });
}

bool IsAlgorithm(const std::string& name) { return Find(name) != nullptr; }

}  // namespace cairn
