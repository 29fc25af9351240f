#include "launcher/batch/json_limits.h"

#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace cairn {
namespace {

constexpr int kMaxDepth = 64;
constexpr int kMaxValues = 2'000'000;

struct LimitExceeded : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// nlohmann's message without its "[json.exception...]" head.
std::string ParseMessage(const std::string& what) {
  const size_t head = what.find("] ");
  return (head == std::string::npos ? what : what.substr(head + 2)).substr(0, 300);
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseBoundedJson(const std::string& text) {
  int values = 0;
  const auto count = [&values](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxDepth) throw LimitExceeded(absl::StrCat("nested deeper than ", kMaxDepth, " levels"));
    if (++values > kMaxValues) throw LimitExceeded(absl::StrCat("more than ", kMaxValues, " values"));
    return true;
  };
  try {
    return nlohmann::json::parse(text, count);
  } catch (const LimitExceeded& error) {
    return absl::InvalidArgumentError(error.what());
  } catch (const nlohmann::json::exception& error) {
    return absl::InvalidArgumentError(ParseMessage(error.what()));
  }
}

}  // namespace cairn
