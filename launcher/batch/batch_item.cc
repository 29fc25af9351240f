#include "launcher/batch/batch_item.h"

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "launcher/batch/json_limits.h"
#include "launcher/batch/request_body.h"

namespace cairn {
namespace {

using nlohmann::json;

constexpr size_t kMaxCustomIdBytes = 512;

std::optional<ItemError> ReadEnvelope(const json& line, BatchItem& item) {
  if (!line.is_object()) return ItemError{"invalid_json", "expected an object with custom_id, method, url and body"};
  const json id = line.value("custom_id", json());
  if (!id.is_string() || id.get_ref<const std::string&>().empty()) {
    return ItemError{"missing_custom_id", "custom_id: expected a text that no other line has"};
  }
  if (id.get_ref<const std::string&>().size() > kMaxCustomIdBytes) {
    return ItemError{"invalid_custom_id", absl::StrCat("custom_id: longer than ", kMaxCustomIdBytes, " bytes")};
  }
  item.custom_id = id.get<std::string>();
  if (line.value("method", json()) != "POST") return ItemError{"invalid_method", "method: expected \"POST\""};
  const json url = line.value("url", json());
  if (url == "/v1/chat/completions") {
    item.endpoint = Endpoint::kChatCompletions;
  } else if (url == "/v1/completions") {
    item.endpoint = Endpoint::kCompletions;
  } else {
    return ItemError{"invalid_url", "url: expected \"/v1/chat/completions\" or \"/v1/completions\""};
  }
  const auto body = line.find("body");
  if (body == line.end() || !body->is_object()) return ItemError{"invalid_request", "body: expected an object"};
  return ReadRequestBody(*body, item);
}

}  // namespace

ParsedItem ParseBatchItem(const InputLine& line) {
  ParsedItem parsed;
  parsed.item.line = line.number;
  if (line.too_long) {
    parsed.error = ItemError{"line_too_long", absl::StrCat("longer than ", LineReader::kMaxLineBytes, " bytes")};
  } else if (const absl::StatusOr<json> value = ParseBoundedJson(line.text); !value.ok()) {
    parsed.error = ItemError{"invalid_json", std::string(value.status().message())};
  } else {
    parsed.error = ReadEnvelope(*value, parsed.item);
  }
  if (parsed.error.has_value()) parsed.error->message = absl::StrCat("line ", line.number, ": ", parsed.error->message);
  return parsed;
}

}  // namespace cairn
