// Text to token ids and back, from a Hugging Face tokenizer.json: byte-level BPE (GPT-2, Llama-3, Qwen2 pre-tokenizers)
// and sentencepiece-style BPE with byte fallback. Agrees with Hugging Face `tokenizers`.
#ifndef CAIRN_ENGINE_TEXT_TOKENIZER_H_
#define CAIRN_ENGINE_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace cairn {

class Tokenizer {
 public:
  // `directory` holds tokenizer.json and, optionally, tokenizer_config.json (and chat_template.jinja). NOT_FOUND and
  // INVALID_ARGUMENT name the file and the field.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& directory);
  ~Tokenizer();

  // Added and special tokens in the text are recognised ("<|im_end|>" becomes its id). With add_special_tokens the
  // post-processor's BOS/EOS are added (where the file has no post-processor: as add_bos_token and add_eos_token of
  // tokenizer_config.json say). Any bytes are accepted: invalid UTF-8 is replaced by U+FFFD, as Hugging Face would.
  // Texts are below 2 GiB. May be called from several threads at once, as all that is const here.
  std::vector<int32_t> Encode(std::string_view text, bool add_special_tokens) const;
  std::string Decode(absl::Span<const int32_t> ids, bool skip_special_tokens) const;

  int32_t vocab_size() const;                       // largest id + 1, added tokens included
  int32_t TokenToId(std::string_view token) const;  // -1 where there is none
  std::string IdToToken(int32_t id) const;          // as tokenizer.json writes it; "" where there is none
  // The bytes an id stands for when it follows other text (no leading-space stripping); "" for special tokens.
  std::string TokenBytes(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  // The chat template's source (tokenizer_config.json, or chat_template.jinja), "" where the model has none.
  const std::string& chat_template() const;
  // From tokenizer_config.json, "" or -1 where absent.
  const std::string& bos_token() const;
  const std::string& eos_token() const;
  int32_t bos_id() const;
  int32_t eos_id() const;

  struct Impl;

 private:
  friend class IncrementalDetokenizer;
  Tokenizer();
  std::unique_ptr<Impl> impl_;
};

// What decoding remembers between two tokens of one sequence.
struct DecoderState {
  bool any_token = false;  // some token was decoded already
  std::string bytes;       // of a character, or of a run of byte-fallback tokens, that is not complete
  int64_t stripped = 0;    // characters taken off the beginning
  int64_t held = 0;        // characters that are taken off if the text ends here
};

// Turns ids into text as they arrive: never a broken UTF-8 sequence, and all pieces together are exactly
// Decode(all ids, skip_special_tokens). One per sequence. A run of byte-fallback tokens is settled only when another
// token follows or the sequence ends: one bad byte in it makes U+FFFD of the whole run.
class IncrementalDetokenizer {
 public:
  IncrementalDetokenizer(const Tokenizer& tokenizer, bool skip_special_tokens);
  // The text that this token completes (may be empty while a character is incomplete).
  std::string Add(int32_t id);
  // What is left at the end: an incomplete character as U+FFFD. The next Add begins a new sequence.
  std::string Finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  DecoderState state_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_TOKENIZER_H_
