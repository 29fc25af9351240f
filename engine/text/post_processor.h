// The "post_processor" of tokenizer.json: the special tokens that add_special_tokens puts around a text.
#ifndef CAIRN_ENGINE_TEXT_POST_PROCESSOR_H_
#define CAIRN_ENGINE_TEXT_POST_PROCESSOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/json_field.h"

namespace cairn {

struct PostProcessor {
  std::vector<int32_t> before, after;

  // TemplateProcessing, ByteLevel (which moves offsets only), Sequence.
  static absl::StatusOr<PostProcessor> FromJson(const JsonField& field);
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_POST_PROCESSOR_H_
