// A value inside a JSON file together with the place where it stands, so that every error names the file and the field.
#ifndef CAIRN_ENGINE_TEXT_JSON_FIELD_H_
#define CAIRN_ENGINE_TEXT_JSON_FIELD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace cairn {

class JsonField {
 public:
  // `value` must outlive the field and all that is reached from it.
  JsonField(const std::string& file, const nlohmann::json& value);

  // A member that must be there; null counts as absent.
  absl::StatusOr<JsonField> Member(const std::string& name) const;
  // A member that may be absent or null. INVALID_ARGUMENT where this is not an object.
  absl::StatusOr<std::optional<JsonField>> Find(const std::string& name) const;
  absl::StatusOr<std::vector<JsonField>> Items() const;

  absl::StatusOr<std::string> String() const;
  absl::StatusOr<bool> Bool() const;
  absl::StatusOr<int64_t> Integer(int64_t least, int64_t most) const;

  // The same of a member; with a default where that may be absent or null.
  absl::StatusOr<std::string> String(const std::string& name) const;
  absl::StatusOr<bool> Bool(const std::string& name, bool absent) const;
  absl::StatusOr<int64_t> Integer(const std::string& name, int64_t least, int64_t most) const;

  bool is_string() const { return value_->is_string(); }
  bool is_object() const { return value_->is_object(); }
  bool is_array() const { return value_->is_array(); }
  const nlohmann::json& value() const { return *value_; }

  // INVALID_ARGUMENT "FILE: FIELD: MESSAGE".
  absl::Status Error(std::string_view message) const;
  // For a value that is legal in the format but not implemented here.
  absl::Status Unsupported(std::string_view found, std::string_view supported) const;

 private:
  JsonField(std::shared_ptr<const std::string> file, std::string path, const nlohmann::json& value);
  absl::Status WrongType(std::string_view expected) const;

  std::shared_ptr<const std::string> file_;
  std::string path_;  // "model.merges[3]"; "" at the root
  const nlohmann::json* value_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_JSON_FIELD_H_
