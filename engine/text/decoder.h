// The "decoder" of tokenizer.json: tokens back to text, one token at a time, so that a stream and the whole give the
// same.
#ifndef CAIRN_ENGINE_TEXT_DECODER_H_
#define CAIRN_ENGINE_TEXT_DECODER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/json_field.h"
#include "engine/text/normalizer.h"
#include "engine/text/regex.h"
#include "engine/text/tokenizer.h"

namespace cairn {

class Decoder {
 public:
  // Without a "decoder": tokens with a space between them, as Hugging Face joins them.
  Decoder();

  // Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, in the orders in use: token by token, then Fuse
  // or ByteLevel, then Strip.
  static absl::StatusOr<Decoder> FromJson(const JsonField& field);

  // Appends the text that `token` settles.
  void Add(std::string_view token, DecoderState* state, Regex::Scratch* scratch, std::string* out) const;
  // Appends what waits for a continuation that does not come.
  void Finish(DecoderState* state, Regex::Scratch* scratch, std::string* out) const;

  // The bytes of a token that follows other text: nothing stripped, no neighbour awaited.
  std::string TokenBytes(std::string_view token, Regex::Scratch* scratch) const;

 private:
  struct Join {};  // a space between tokens
  struct Replace {
    TextPattern pattern;
    std::string content;
  };
  struct ByteFallback {};
  struct ByteLevel {};
  struct Fuse {};
  struct Strip {
    std::string content;  // one character
    int64_t start, stop;  // how many of it are taken off each end, at most
    bool fused;           // of the whole text, not of each token
  };
  struct Metaspace {
    std::string replacement;
    bool prepends;  // the first token's replacements vanish
  };
  using Step = std::variant<Join, Replace, ByteFallback, ByteLevel, Fuse, Strip, Metaspace>;

  absl::Status AddStep(const JsonField& field, int depth, bool* fused);
  absl::Status AddStrip(const JsonField& field, bool fused);

  // Hands a piece to steps_[step] and so on to the end, where it is appended to `out`.
  struct Run;

  std::vector<Step> steps_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_DECODER_H_
