#include "engine/config/fields.h"

namespace cairn {
namespace {

// A value for a message: JSON, cut where a hostile file would flood the terminal.
std::string Shown(const nlohmann::json& value) {
  constexpr size_t kMaxShown = 200;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxShown) text = text.substr(0, kMaxShown) + "...";
  return text;
}

}  // namespace

const nlohmann::json* Fields::Find(const std::string& name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void Fields::Remember(const std::string& message) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(message);
}

void Fields::Missing(const std::string& name, const std::string& kind) {
  Fail(absl::StrCat("field ", prefix_, name, " is absent; it must be ", kind));
}

void Fields::Refuse(const std::string& name, const std::string& what_is_supported) {
  const auto line = lines_.find(prefix_ + name);
  const std::string place = line == lines_.end() ? file_ : absl::StrCat(file_, ":", line->second);
  const nlohmann::json* value = Find(name);
  Remember(absl::StrCat(place, ": ", prefix_, name, " is ", value ? Shown(*value) : "absent",
                        "; supported: ", what_is_supported));
}

int64_t Fields::Int(const std::string& name, int64_t min, int64_t max) {
  const std::string kind = absl::StrCat("an integer from ", min, " to ", max);
  const nlohmann::json* value = Find(name);
  if (value == nullptr) {
    Missing(name, kind);
    return min;
  }
  // An unsigned value above INT64_MAX would turn negative in get<int64_t>.
  const bool fits = value->is_number_integer() &&
                    !(value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) &&
                    value->get<int64_t>() >= min && value->get<int64_t>() <= max;
  if (fits) return value->get<int64_t>();
  Refuse(name, kind);
  return min;
}

double Fields::Number(const std::string& name, double min, double max) {
  const std::string kind = absl::StrCat("a number from ", min, " to ", max);
  const nlohmann::json* value = Find(name);
  if (value == nullptr) {
    Missing(name, kind);
    return min;
  }
  // A NaN fails both comparisons.
  if (value->is_number() && value->get<double>() >= min && value->get<double>() <= max) return value->get<double>();
  Refuse(name, kind);
  return min;
}

std::string Fields::Text(const std::string& name) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) {
    Missing(name, "a string");
    return "";
  }
  if (value->is_string()) return value->get<std::string>();
  Refuse(name, "a string");
  return "";
}

int64_t Fields::IntOr(const std::string& name, int64_t fallback, int64_t min, int64_t max) {
  return Has(name) ? Int(name, min, max) : fallback;
}

double Fields::NumberOr(const std::string& name, double fallback, double min, double max) {
  return Has(name) ? Number(name, min, max) : fallback;
}

std::string Fields::TextOr(const std::string& name, std::string fallback) { return Has(name) ? Text(name) : fallback; }

bool Fields::BoolOr(const std::string& name, bool fallback) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  Refuse(name, "true or false");
  return fallback;
}

std::vector<std::string> Fields::TextsOr(const std::string& name, std::vector<std::string> fallback) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  std::vector<std::string> texts;
  if (value->is_array()) {
    for (const nlohmann::json& item : *value) {
      if (item.is_string()) texts.push_back(item.get<std::string>());
    }
    if (texts.size() == value->size()) return texts;
  }
  Refuse(name, "a list of strings");
  return fallback;
}

std::vector<int64_t> Fields::IntsOr(const std::string& name, std::vector<int64_t> fallback, int64_t min, int64_t max) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr) return fallback;
  const nlohmann::json items = value->is_array() ? *value : nlohmann::json::array({*value});
  std::vector<int64_t> numbers;
  for (const nlohmann::json& item : items) {
    // As a field of its own, so that the checks of Int apply.
    const nlohmann::json single = {{name, item}};
    Fields one(file_, single, lines_, prefix_);
    numbers.push_back(one.Int(name, min, max));
    if (!one.ok()) {
      Refuse(name, absl::StrCat("an integer from ", min, " to ", max, ", or a list of them"));
      return fallback;
    }
  }
  return numbers;
}

const nlohmann::json* Fields::ObjectOrNull(const std::string& name) {
  const nlohmann::json* value = Find(name);
  if (value == nullptr || value->is_object()) return value;
  Refuse(name, "an object");
  return nullptr;
}

}  // namespace cairn
