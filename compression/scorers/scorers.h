// One function per scorer file, for the registry; `config` is valid.
#ifndef CAIRN_COMPRESSION_SCORERS_SCORERS_H_
#define CAIRN_COMPRESSION_SCORERS_SCORERS_H_

#include <memory>

#include "compression/compression_config.h"
#include "compression/scorer.h"

namespace cairn {

std::unique_ptr<Scorer> MakeRkvScorer(const CompressionConfig& config);
std::unique_ptr<Scorer> MakeRkvHistoryScorer(const CompressionConfig& config);
std::unique_ptr<Scorer> MakeSnapKvScorer(const CompressionConfig& config);
std::unique_ptr<Scorer> MakeStreamingLlmScorer(const CompressionConfig& config);
std::unique_ptr<Scorer> MakeH2oScorer(const CompressionConfig& config);
std::unique_ptr<Scorer> MakeKeyDiffScorer(const CompressionConfig& config);
std::unique_ptr<Scorer> MakeGkvScorer(const CompressionConfig& config);
std::unique_ptr<Scorer> MakeRandomScorer(const CompressionConfig& config);

}  // namespace cairn

#endif  // CAIRN_COMPRESSION_SCORERS_SCORERS_H_
