// The model of tokenizer.json: byte-pair encoding. A word's symbols (characters or bytes) are merged, always the pair
// of lowest rank and of those the leftmost, until no pair of neighbours has a merge.
#ifndef CAIRN_ENGINE_TEXT_BPE_H_
#define CAIRN_ENGINE_TEXT_BPE_H_

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/text/json_field.h"
#include "engine/text/tokenizer_file.h"
#include "engine/text/vocabulary.h"

namespace cairn {

class Bpe {
 public:
  // Working memory of Encode and the words it has met; one per thread at a time.
  class Scratch {
    friend class Bpe;
    struct Symbol {
      int32_t id;              // -1: merged into its left neighbour
      int32_t previous, next;  // indices, -1 at the ends
    };
    struct Candidate {
      uint32_t rank;
      int32_t position;  // of the left symbol
      int32_t merged;
      bool operator<(const Candidate& o) const {  // for a heap with the lowest rank, then position, on top
        return rank != o.rank ? rank > o.rank : position > o.position;
      }
    };
    std::string text;
    std::vector<int32_t> symbols;
    std::vector<Symbol> chain;
    std::vector<Candidate> heap;
    absl::flat_hash_map<std::string, std::pair<uint32_t, uint32_t>> words;  // symbols' bytes -> range of `merged`
    std::vector<int32_t> merged;
  };

  // Takes file->vocab and file->merges. With `byte_level` words arrive as raw bytes, and the vocabulary is written in
  // the byte alphabet. INVALID_ARGUMENT names what is malformed or not supported.
  static absl::StatusOr<Bpe> Create(TokenizerFile* file, const JsonField& model, bool byte_level);

  // Appends the ids of `word`, valid UTF-8. O(n log n), whatever the word.
  void Encode(std::string_view word, Scratch* scratch, std::vector<int32_t>* ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    uint32_t rank;
    int32_t merged;
  };
  static constexpr char32_t kDirectCharacters = 0x250;

  absl::Status ReadOptions(const JsonField& model);
  absl::Status ReadMerges(const TokenizerFile& file);
  void FillTables();
  void FillJoints();

  const Merge* FindMerge(int32_t left, int32_t right) const {
    const auto found = merges_.find(Pair(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }
  static uint64_t Pair(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  int32_t CharacterId(std::string_view character, char32_t code_point) const {
    return code_point < kDirectCharacters ? character_ids_[code_point] : vocabulary_.Id(character);
  }
  void AppendSymbols(std::string_view word, std::vector<int32_t>* symbols) const;
  bool AppendFallback(std::string_view character, std::vector<int32_t>* symbols) const;
  void EncodeSymbols(absl::Span<const int32_t> symbols, Scratch* scratch, std::vector<int32_t>* ids) const;
  void MergeSymbols(absl::Span<const int32_t> symbols, Scratch* scratch, std::vector<int32_t>* ids) const;
  bool IsFallbackSymbol(int32_t token) const;
  int32_t FirstSymbol(int32_t token) const;
  int32_t LastSymbol(int32_t token) const;

  Vocabulary vocabulary_;
  absl::flat_hash_map<uint64_t, Merge> merges_;
  // Pairs of symbols that some merge can join: where two neighbours are not here, no merge ever crosses between them,
  // and the two sides are independent.
  absl::flat_hash_set<uint64_t> joints_;
  std::array<int32_t, kDirectCharacters> character_ids_;  // the ids of the first characters, -1 where there is none
  std::array<int32_t, 256> byte_ids_;                     // byte-level: a byte's id; else that of "<0x..>"; or -1
  bool byte_level_ = false;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  int32_t unknown_ = -1;  // id of the unknown token; -1: unknown characters are left out
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_BPE_H_
