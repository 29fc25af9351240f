// "added_tokens" of tokenizer.json: tokens found in the text before anything else, each as a whole.
#ifndef CAIRN_ENGINE_TEXT_ADDED_TOKENS_H_
#define CAIRN_ENGINE_TEXT_ADDED_TOKENS_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "engine/text/json_field.h"
#include "engine/text/normalizer.h"

namespace cairn {

struct AddedToken {
  int32_t id = -1;
  std::string content;  // as the file writes it
  std::string
      normalized;  // what stands for it in normalized text and in decoding; `content` where it is not normalized
  bool single_word = false;
  bool lstrip = false;
  bool rstrip = false;
  bool normalize = false;  // searched in the normalized text, not in the raw one
  bool special = false;
};

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonField& file, const Normalizer& normalizer);

// Finds a set of tokens in a text, leftmost and longest first.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  // `tokens`: those of one kind, raw or normalized; patterns are their `normalized` texts.
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  // A stretch of text: one token (id >= 0) or plain (id = -1). Never empty.
  using Visitor = absl::FunctionRef<void(std::string_view stretch, int32_t id)>;
  void Split(std::string_view text, Visitor visit) const;

 private:
  struct Node {
    std::vector<std::pair<unsigned char, int32_t>> children;  // by byte
    int32_t token = -1;                                       // index of the token that ends here
  };
  int32_t Child(int32_t node, unsigned char byte) const;
  // The longest token that starts at text[pos], -1 where none does.
  int32_t LongestAt(std::string_view text, size_t pos) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;    // a trie; nodes_[0] is the root
  std::vector<int32_t> root_;  // the root's children by byte, for speed
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_ADDED_TOKENS_H_
