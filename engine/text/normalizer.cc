#include "engine/text/normalizer.h"

#include <utility>

#include "engine/text/unicode_class.h"
#include "engine/text/utf8.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

constexpr char kSupported[] = "NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip, Sequence";
// Sequences inside sequences: none is seen in practice, and a hostile file must not exhaust the stack.
constexpr int kMaxDepth = 8;

std::string_view StripSpace(std::string_view text, bool left, bool right) {
  while (left && !text.empty()) {
    size_t pos = 0;
    if (!IsUnicodeSpace(NextCodePoint(text, &pos))) break;
    text.remove_prefix(pos);
  }
  while (right && !text.empty()) {
    const char32_t last = LastCodePoint(text, text.size());
    if (!IsUnicodeSpace(last)) break;
    text.remove_suffix(last < 0x80 ? 1 : last < 0x800 ? 2 : 3);
  }
  return text;
}

}  // namespace

std::string ReplaceAll(std::string_view text, const std::string& from, const std::string& to) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t pos = 0;
  for (size_t found; !from.empty() && (found = text.find(from, pos)) != std::string_view::npos;) {
    out.append(text, pos, found - pos);
    out += to;
    pos = found + from.size();
  }
  return out.append(text, pos, text.size() - pos);
}

std::string ReplaceAll(std::string_view text, const Regex& from, const std::string& to, Regex::Scratch* scratch) {
  std::string out;
  size_t pos = 0, begin = 0, end = 0;
  while (pos < text.size() && from.Find(text, pos, scratch, &begin, &end)) {
    out.append(text, pos, begin - pos);
    out += to;
    pos = end;
  }
  return out.append(text, pos, text.size() - pos);
}

absl::StatusOr<TextPattern> ReadTextPattern(const JsonField& field) {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> text, field.Find("String"));
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> regex, field.Find("Regex"));
  if (text.has_value() == regex.has_value()) return field.Error("expected one of \"String\" and \"Regex\"");
  TextPattern pattern;
  if (text) {
    CAIRN_ASSIGN_OR_RETURN(pattern.text, text->String());
    if (pattern.text.empty()) return text->Error("an empty string is not supported");
    return pattern;
  }
  CAIRN_ASSIGN_OR_RETURN(const std::string source, regex->String());
  absl::StatusOr<Regex> compiled = Regex::Compile(source);
  if (!compiled.ok()) return regex->Error(std::string(compiled.status().message()));
  pattern.regex = *std::move(compiled);
  return pattern;
}

absl::StatusOr<Normalizer> Normalizer::FromJson(const JsonField& field) {
  Normalizer normalizer;
  CAIRN_RETURN_IF_ERROR(normalizer.Add(field, 0));
  return normalizer;
}

absl::Status Normalizer::Add(const JsonField& field, int depth) {
  CAIRN_ASSIGN_OR_RETURN(const std::string type, field.String("type"));
  if (type == "Sequence") {
    if (depth == kMaxDepth) return field.Error("too many sequences inside each other");
    CAIRN_ASSIGN_OR_RETURN(const JsonField members, field.Member("normalizers"));
    CAIRN_ASSIGN_OR_RETURN(const std::vector<JsonField> items, members.Items());
    for (const JsonField& item : items) CAIRN_RETURN_IF_ERROR(Add(item, depth + 1));
  } else if (type == "NFC") {
    steps_.push_back(NormalForm::kNfc);
  } else if (type == "NFD") {
    steps_.push_back(NormalForm::kNfd);
  } else if (type == "NFKC") {
    steps_.push_back(NormalForm::kNfkc);
  } else if (type == "NFKD") {
    steps_.push_back(NormalForm::kNfkd);
  } else if (type == "Prepend") {
    CAIRN_ASSIGN_OR_RETURN(std::string prefix, field.String("prepend"));
    steps_.push_back(Prepend{std::move(prefix)});
  } else if (type == "Replace") {
    CAIRN_ASSIGN_OR_RETURN(const JsonField pattern_field, field.Member("pattern"));
    CAIRN_ASSIGN_OR_RETURN(TextPattern pattern, ReadTextPattern(pattern_field));
    CAIRN_ASSIGN_OR_RETURN(std::string content, field.String("content"));
    steps_.push_back(Replace{std::move(pattern.text), std::move(pattern.regex), std::move(content)});
  } else if (type == "Strip") {
    CAIRN_ASSIGN_OR_RETURN(const bool left, field.Bool("strip_left", false));
    CAIRN_ASSIGN_OR_RETURN(const bool right, field.Bool("strip_right", false));
    steps_.push_back(Strip{left, right});
  } else {
    return field.Unsupported(type, kSupported);
  }
  return absl::OkStatus();
}

std::string Normalizer::Normalize(std::string_view text, Regex::Scratch* scratch) const {
  std::string out(text);
  for (const Step& step : steps_) {
    if (const auto* form = std::get_if<NormalForm>(&step)) {
      out = NormalizeUnicode(out, *form);
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (!out.empty()) out.insert(0, prepend->prefix);
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      out = replace->pattern ? ReplaceAll(out, *replace->pattern, replace->content, scratch)
                             : ReplaceAll(out, replace->text, replace->content);
    } else {
      const Strip& strip = std::get<Strip>(step);
      out = std::string(StripSpace(out, strip.left, strip.right));
    }
  }
  return out;
}

}  // namespace cairn
