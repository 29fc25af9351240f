// Reads typed, bounded fields out of a JSON object and remembers the first fault, so that a reader is one straight
// list.
#ifndef CAIRN_ENGINE_CONFIG_FIELDS_H_
#define CAIRN_ENGINE_CONFIG_FIELDS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace cairn {

// Field (with a prefix, "rope_parameters.factor") to its 1-based line. Empty for JSON.
using FieldLines = std::map<std::string, int>;

class Fields {
 public:
  // `object` and `lines` must outlive this. `prefix` names the enclosing field, with a dot, in messages.
  Fields(std::string file, const nlohmann::json& object, const FieldLines& lines, std::string prefix = "")
      : file_(std::move(file)), object_(object), lines_(lines), prefix_(std::move(prefix)) {}

  // Absent and null count as not there.
  bool Has(const std::string& name) const { return Find(name) != nullptr; }
  bool HasNull(const std::string& name) const { return object_.contains(name) && object_[name].is_null(); }

  // The value in [min, max]; absence is a fault. After a fault the results have no meaning.
  int64_t Int(const std::string& name, int64_t min, int64_t max);
  double Number(const std::string& name, double min, double max);
  std::string Text(const std::string& name);
  // The same with a default where the field is not there.
  int64_t IntOr(const std::string& name, int64_t fallback, int64_t min, int64_t max);
  double NumberOr(const std::string& name, double fallback, double min, double max);
  bool BoolOr(const std::string& name, bool fallback);
  std::string TextOr(const std::string& name, std::string fallback);
  std::vector<std::string> TextsOr(const std::string& name, std::vector<std::string> fallback);
  // An integer or a list of them.
  std::vector<int64_t> IntsOr(const std::string& name, std::vector<int64_t> fallback, int64_t min, int64_t max);
  // An object, or null where the field is not there.
  const nlohmann::json* ObjectOrNull(const std::string& name);

  // "FILE:LINE: NAME is VALUE; supported: ..."
  void Refuse(const std::string& name, const std::string& what_is_supported);
  void Fail(const std::string& message) { Remember(absl::StrCat(file_, ": ", message)); }
  // Takes over the fault of a nested object's fields.
  void Adopt(const absl::Status& status) { status_.Update(status); }
  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }

  const std::string& file() const { return file_; }
  const FieldLines& lines() const { return lines_; }

 private:
  const nlohmann::json* Find(const std::string& name) const;
  void Missing(const std::string& name, const std::string& kind);
  void Remember(const std::string& message);

  std::string file_;
  const nlohmann::json& object_;
  const FieldLines& lines_;
  std::string prefix_;
  absl::Status status_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_CONFIG_FIELDS_H_
