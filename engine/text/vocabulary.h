// Tokens and their ids: the model's vocabulary and the added tokens.
#ifndef CAIRN_ENGINE_TEXT_VOCABULARY_H_
#define CAIRN_ENGINE_TEXT_VOCABULARY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace cairn {

class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  // Later entries win, as in Hugging Face. INVALID_ARGUMENT where two tokens have one id.
  static absl::StatusOr<Vocabulary> Create(std::vector<std::pair<std::string, int32_t>> entries);

  // -1 where there is none.
  int32_t Id(std::string_view token) const {
    const auto found = ids_.find(absl::string_view(token.data(), token.size()));
    return found == ids_.end() ? -1 : found->second;
  }
  // nullptr where there is none.
  const std::string* Token(int32_t id) const {
    return id >= 0 && id < size() && entry_[id] >= 0 ? &entries_[entry_[id]].first : nullptr;
  }
  int32_t size() const { return static_cast<int32_t>(entry_.size()); }  // largest id + 1

 private:
  std::vector<std::pair<std::string, int32_t>> entries_;  // not touched any more: ids_ points into it
  std::vector<int32_t> entry_;                            // by id; -1: no such id
  absl::flat_hash_map<absl::string_view, int32_t> ids_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_VOCABULARY_H_
