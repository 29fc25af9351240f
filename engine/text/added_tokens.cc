#include "engine/text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer_file.h"
#include "engine/text/unicode_class.h"
#include "engine/text/utf8.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// Searching costs at most this many steps per byte of text.
constexpr size_t kMaxContentBytes = 4096;

absl::StatusOr<AddedToken> ReadAddedToken(const JsonField& item, const Normalizer& normalizer,
                                          Regex::Scratch* scratch) {
  AddedToken token;
  CAIRN_ASSIGN_OR_RETURN(const int64_t id, item.Integer("id", 0, kMaxTokenId));
  token.id = static_cast<int32_t>(id);
  CAIRN_ASSIGN_OR_RETURN(token.content, item.String("content"));
  CAIRN_ASSIGN_OR_RETURN(token.special, item.Bool("special", false));
  CAIRN_ASSIGN_OR_RETURN(token.single_word, item.Bool("single_word", false));
  CAIRN_ASSIGN_OR_RETURN(token.lstrip, item.Bool("lstrip", false));
  CAIRN_ASSIGN_OR_RETURN(token.rstrip, item.Bool("rstrip", false));
  CAIRN_ASSIGN_OR_RETURN(token.normalize, item.Bool("normalized", !token.special));
  token.normalized = token.normalize ? normalizer.Normalize(token.content, scratch) : token.content;
  if (token.normalized.empty()) return item.Error("an empty added token");
  if (token.normalized.size() > kMaxContentBytes) {
    return item.Error(
        absl::StrCat("expected a token of at most ", kMaxContentBytes, " bytes, found ", token.normalized.size()));
  }
  return token;
}

size_t SpaceBefore(std::string_view text, size_t end, size_t least) {
  while (end > least) {
    const char32_t c = LastCodePoint(text, end);
    if (!IsUnicodeSpace(c)) break;
    end -= c < 0x80 ? 1 : c < 0x800 ? 2 : 3;
  }
  return end;
}

size_t SpaceAfter(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    size_t next = begin;
    if (!IsUnicodeSpace(NextCodePoint(text, &next))) break;
    begin = next;
  }
  return begin;
}

bool IsWholeWord(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && IsUnicodeWord(LastCodePoint(text, begin))) return false;
  return end == text.size() || !IsUnicodeWord(NextCodePoint(text, &end));
}

}  // namespace

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonField& file, const Normalizer& normalizer) {
  std::vector<AddedToken> tokens;
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> list, file.Find("added_tokens"));
  if (!list) return tokens;
  CAIRN_ASSIGN_OR_RETURN(const std::vector<JsonField> items, list->Items());
  Regex::Scratch scratch;
  absl::flat_hash_map<int32_t, std::string> contents;
  for (const JsonField& item : items) {
    CAIRN_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(item, normalizer, &scratch));
    const auto [place, is_new] = contents.emplace(token.id, token.content);
    if (!is_new) return item.Error(absl::StrCat("id ", token.id, " is already \"", place->second, "\""));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), nodes_(1), root_(256, -1) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    int32_t node = 0;
    for (char c : tokens_[i].normalized) {
      const auto byte = static_cast<unsigned char>(c);
      int32_t child = Child(node, byte);
      if (child < 0) {
        child = static_cast<int32_t>(nodes_.size());
        auto& children = nodes_[node].children;
        children.insert(std::upper_bound(children.begin(), children.end(), std::pair(byte, child)), {byte, child});
        if (node == 0) root_[byte] = child;
        nodes_.emplace_back();
      }
      node = child;
    }
    nodes_[node].token = static_cast<int32_t>(i);
  }
}

int32_t AddedTokenFinder::Child(int32_t node, unsigned char byte) const {
  const auto& children = nodes_[node].children;
  const auto found = std::lower_bound(children.begin(), children.end(), std::pair(byte, int32_t{0}));
  return found != children.end() && found->first == byte ? found->second : -1;
}

int32_t AddedTokenFinder::LongestAt(std::string_view text, size_t pos) const {
  int32_t token = -1;
  int32_t node = root_[static_cast<unsigned char>(text[pos])];
  while (node >= 0) {
    if (nodes_[node].token >= 0) token = nodes_[node].token;
    if (++pos == text.size()) break;
    node = Child(node, static_cast<unsigned char>(text[pos]));
  }
  return token;
}

void AddedTokenFinder::Split(std::string_view text, Visitor visit) const {
  size_t done = 0;  // everything before is visited
  size_t pos = 0;   // where the search goes on; a token's stripped space does not move it, as in Hugging Face
  while (!tokens_.empty() && pos < text.size()) {
    const int32_t found = root_[static_cast<unsigned char>(text[pos])] < 0 ? -1 : LongestAt(text, pos);
    if (found < 0) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_[found];
    size_t begin = pos, end = pos + token.normalized.size();
    pos = end;
    if (token.single_word && !IsWholeWord(text, begin, end)) continue;
    if (token.lstrip) begin = SpaceBefore(text, begin, done);
    if (token.rstrip) end = SpaceAfter(text, end);
    if (begin > done) visit(text.substr(done, begin - done), -1);
    visit(text.substr(begin, end - begin), token.id);
    done = end;
  }
  if (done < text.size()) visit(text.substr(done), -1);
}

}  // namespace cairn
