// The parts of a Tokenizer.
#ifndef CAIRN_ENGINE_TEXT_TOKENIZER_IMPL_H_
#define CAIRN_ENGINE_TEXT_TOKENIZER_IMPL_H_

#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe.h"
#include "engine/text/decoder.h"
#include "engine/text/normalizer.h"
#include "engine/text/post_processor.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_config.h"

namespace cairn {

struct Tokenizer::Impl {
  struct Scratch {
    PreTokenizer::Scratch pre_tokenizer;
    Bpe::Scratch bpe;
  };
  // Working memories that no Encode is using. They keep the words they have met.
  class ScratchPool {
   public:
    std::unique_ptr<Scratch> Take();
    void Return(std::unique_ptr<Scratch> scratch);

   private:
    std::mutex mutex_;
    std::vector<std::unique_ptr<Scratch>> idle_;
  };

  absl::Status Load(const std::string& directory);
  absl::Status AddTokens(const JsonField& root);

  // The pieces of Encode: a text without raw added tokens, and one without any.
  void EncodePlain(std::string_view text, bool at_start, Scratch* scratch, std::vector<int32_t>* ids) const;
  void EncodeWords(std::string_view text, bool at_start, Scratch* scratch, std::vector<int32_t>* ids) const;

  // The text that decoding sees, nullptr where the id has none or is skipped.
  const std::string* TokenText(int32_t id, bool skip_special_tokens) const;

  Bpe bpe;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  Decoder decoder;
  TokenizerConfig config;
  std::vector<AddedToken> added;
  absl::flat_hash_map<int32_t, size_t> added_by_id;  // -> added
  absl::flat_hash_map<std::string, size_t> added_by_text;
  AddedTokenFinder raw_tokens, normalized_tokens;
  std::vector<bool> special;  // by id
  int32_t vocab_size = 0;
  int32_t bos_id = -1, eos_id = -1;
  mutable ScratchPool pool;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_TOKENIZER_IMPL_H_
