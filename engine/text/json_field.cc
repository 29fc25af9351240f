#include "engine/text/json_field.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {

JsonField::JsonField(const std::string& file, const nlohmann::json& value)
    : JsonField(std::make_shared<const std::string>(file), "", value) {}

JsonField::JsonField(std::shared_ptr<const std::string> file, std::string path, const nlohmann::json& value)
    : file_(std::move(file)), path_(std::move(path)), value_(&value) {}

absl::Status JsonField::Error(std::string_view message) const {
  const std::string where = path_.empty() ? *file_ : absl::StrCat(*file_, ": ", path_);
  return absl::InvalidArgumentError(absl::StrCat(where, ": ", std::string(message)));
}

absl::Status JsonField::Unsupported(std::string_view found, std::string_view supported) const {
  return Error(absl::StrCat("\"", std::string(found), "\" is not supported (supported: ", std::string(supported), ")"));
}

absl::Status JsonField::WrongType(std::string_view expected) const {
  return Error(absl::StrCat("expected ", std::string(expected), ", found ", value_->type_name()));
}

absl::StatusOr<std::optional<JsonField>> JsonField::Find(const std::string& name) const {
  if (!value_->is_object()) return WrongType("an object");
  const auto member = value_->find(name);
  if (member == value_->end() || member->is_null()) return std::optional<JsonField>();
  return std::optional<JsonField>(JsonField(file_, path_.empty() ? name : absl::StrCat(path_, ".", name), *member));
}

absl::StatusOr<JsonField> JsonField::Member(const std::string& name) const {
  CAIRN_ASSIGN_OR_RETURN(std::optional<JsonField> member, Find(name));
  if (!member) return Error(absl::StrCat("field \"", name, "\" is missing"));
  return *std::move(member);
}

absl::StatusOr<std::vector<JsonField>> JsonField::Items() const {
  if (!value_->is_array()) return WrongType("an array");
  std::vector<JsonField> items;
  items.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) {
    items.push_back(JsonField(file_, absl::StrCat(path_, "[", i, "]"), (*value_)[i]));
  }
  return items;
}

absl::StatusOr<std::string> JsonField::String() const {
  if (!value_->is_string()) return WrongType("a string");
  return value_->get<std::string>();
}

absl::StatusOr<bool> JsonField::Bool() const {
  if (!value_->is_boolean()) return WrongType("true or false");
  return value_->get<bool>();
}

absl::StatusOr<int64_t> JsonField::Integer(int64_t least, int64_t most) const {
  if (!value_->is_number_integer()) return WrongType("an integer");
  const bool too_large = value_->is_number_unsigned() && value_->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  const int64_t number = too_large ? INT64_MAX : value_->get<int64_t>();
  if (too_large || number < least || number > most) {
    return Error(absl::StrCat("expected an integer from ", least, " to ", most, ", found ", value_->dump()));
  }
  return number;
}

absl::StatusOr<std::string> JsonField::String(const std::string& name) const {
  CAIRN_ASSIGN_OR_RETURN(const JsonField member, Member(name));
  return member.String();
}

absl::StatusOr<bool> JsonField::Bool(const std::string& name, bool absent) const {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> member, Find(name));
  if (!member) return absent;
  return member->Bool();
}

absl::StatusOr<int64_t> JsonField::Integer(const std::string& name, int64_t least, int64_t most) const {
  CAIRN_ASSIGN_OR_RETURN(const JsonField member, Member(name));
  return member.Integer(least, most);
}

}  // namespace cairn
