#include "engine/text/vocabulary.h"

#include <algorithm>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace cairn {

absl::StatusOr<Vocabulary> Vocabulary::Create(std::vector<std::pair<std::string, int32_t>> entries) {
  Vocabulary vocabulary;
  vocabulary.entries_ = std::move(entries);
  int32_t size = 0;
  for (const auto& [token, id] : vocabulary.entries_) size = std::max(size, id + 1);
  vocabulary.entry_.assign(size, -1);
  vocabulary.ids_.reserve(vocabulary.entries_.size());
  for (const auto& [token, id] : vocabulary.entries_) vocabulary.ids_[token] = id;
  for (size_t i = 0; i < vocabulary.entries_.size(); ++i) {
    const auto& [token, id] = vocabulary.entries_[i];
    if (vocabulary.ids_[token] != id) continue;  // written again further down
    int32_t& entry = vocabulary.entry_[id];
    if (entry >= 0 && vocabulary.entries_[entry].first != token) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", vocabulary.entries_[entry].first, "\" and \"", token, "\" have the same id ", id));
    }
    entry = static_cast<int32_t>(i);
  }
  return vocabulary;
}

}  // namespace cairn
