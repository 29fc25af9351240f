#include "engine/text/post_processor.h"

#include <string>

#include "engine/text/tokenizer_file.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

constexpr char kSupported[] = "TemplateProcessing, ByteLevel, Sequence";
constexpr int kMaxDepth = 8;  // of sequences inside each other

absl::StatusOr<std::vector<int32_t>> SpecialTokenIds(const JsonField& template_field, const JsonField& piece) {
  CAIRN_ASSIGN_OR_RETURN(const std::string name, piece.String("id"));
  CAIRN_ASSIGN_OR_RETURN(const JsonField tokens, template_field.Member("special_tokens"));
  CAIRN_ASSIGN_OR_RETURN(const JsonField token, tokens.Member(name));
  CAIRN_ASSIGN_OR_RETURN(const JsonField ids, token.Member("ids"));
  CAIRN_ASSIGN_OR_RETURN(const std::vector<JsonField> items, ids.Items());
  std::vector<int32_t> result;
  for (const JsonField& item : items) {
    CAIRN_ASSIGN_OR_RETURN(const int64_t id, item.Integer(0, kMaxTokenId));
    result.push_back(static_cast<int32_t>(id));
  }
  return result;
}

// "single": special tokens, the text (sequence A), special tokens.
absl::StatusOr<PostProcessor> ReadTemplate(const JsonField& field) {
  PostProcessor result;
  CAIRN_ASSIGN_OR_RETURN(const JsonField single, field.Member("single"));
  CAIRN_ASSIGN_OR_RETURN(const std::vector<JsonField> pieces, single.Items());
  bool has_text = false;
  for (const JsonField& piece : pieces) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> special, piece.Find("SpecialToken"));
    if (special) {
      CAIRN_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, SpecialTokenIds(field, *special));
      std::vector<int32_t>& side = has_text ? result.after : result.before;
      side.insert(side.end(), ids.begin(), ids.end());
      continue;
    }
    CAIRN_ASSIGN_OR_RETURN(const JsonField text, piece.Member("Sequence"));
    CAIRN_ASSIGN_OR_RETURN(const std::string name, text.String("id"));
    if (name != "A" || has_text) return single.Error("expected sequence A once");
    has_text = true;
  }
  if (!has_text) return single.Error("expected sequence A once");
  return result;
}

absl::Status Add(const JsonField& field, int depth, PostProcessor* result) {
  CAIRN_ASSIGN_OR_RETURN(const std::string type, field.String("type"));
  if (type == "ByteLevel") return absl::OkStatus();
  if (type == "Sequence") {
    if (depth == kMaxDepth) return field.Error("too many sequences inside each other");
    CAIRN_ASSIGN_OR_RETURN(const JsonField members, field.Member("processors"));
    CAIRN_ASSIGN_OR_RETURN(const std::vector<JsonField> items, members.Items());
    for (const JsonField& item : items) CAIRN_RETURN_IF_ERROR(Add(item, depth + 1, result));
    return absl::OkStatus();
  }
  if (type != "TemplateProcessing") return field.Unsupported(type, kSupported);
  CAIRN_ASSIGN_OR_RETURN(const PostProcessor around, ReadTemplate(field));
  result->before.insert(result->before.begin(), around.before.begin(), around.before.end());
  result->after.insert(result->after.end(), around.after.begin(), around.after.end());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::FromJson(const JsonField& field) {
  PostProcessor result;
  CAIRN_RETURN_IF_ERROR(Add(field, 0, &result));
  return result;
}

}  // namespace cairn
