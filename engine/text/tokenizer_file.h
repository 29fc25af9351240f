// Reads tokenizer.json. The two large members (model.vocab, model.merges: 150,000 entries each) go straight into
// vectors; everything else becomes a small JSON tree, read by the parts that own it.
#ifndef CAIRN_ENGINE_TEXT_TOKENIZER_FILE_H_
#define CAIRN_ENGINE_TEXT_TOKENIZER_FILE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cairn {

struct TokenizerFile {
  std::string path;
  std::vector<std::pair<std::string, int32_t>> vocab;       // in the file's order, ids in [0, kMaxTokenId]
  std::vector<std::pair<std::string, std::string>> merges;  // by rank
  nlohmann::json rest;                                      // the file without model.vocab and model.merges
};

// A guard for files that are not tokenizers: ids index a table.
inline constexpr int64_t kMaxTokenId = (1 << 24) - 1;

// The whole file. NOT_FOUND where it cannot be opened.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

// INVALID_ARGUMENT with the position on malformed JSON, and with the entry on a malformed vocabulary or merge list.
absl::StatusOr<TokenizerFile> ReadTokenizerFile(const std::string& path);

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_TOKENIZER_FILE_H_
