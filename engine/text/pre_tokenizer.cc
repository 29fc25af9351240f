#include "engine/text/pre_tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/unicode_class.h"
#include "engine/text/utf8.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

constexpr char kSupported[] = "Sequence, Split, ByteLevel, Digits, Punctuation, Metaspace";
constexpr char kGpt2Pattern[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr int kMaxDepth = 8;  // of sequences inside each other

absl::StatusOr<SplitBehavior> ReadBehavior(const JsonField& field) {
  CAIRN_ASSIGN_OR_RETURN(const std::string name, field.String());
  static constexpr std::pair<const char*, SplitBehavior> kNames[] = {
      {"Removed", SplitBehavior::kRemoved},
      {"Isolated", SplitBehavior::kIsolated},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  for (const auto& [known, behavior] : kNames) {
    if (name == known) return behavior;
  }
  return field.Unsupported(name, "Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
}

// Writes the words of text, given its segments in order, which cover it. As Hugging Face's NormalizedString::split.
template <class Segments>
void ApplyBehavior(std::string_view text, const Segments& segments, SplitBehavior behavior,
                   std::vector<std::string_view>* words) {
  const size_t first_word = words->size();
  bool previous_is_match = false;
  for (size_t i = 0; i < segments.size(); ++i) {
    const auto& segment = segments[i];
    bool joins_previous = false;
    switch (behavior) {
      case SplitBehavior::kRemoved:
        if (segment.is_match) continue;
        break;
      case SplitBehavior::kIsolated:
        break;
      case SplitBehavior::kMergedWithPrevious:
        joins_previous = segment.is_match && !previous_is_match;
        break;
      case SplitBehavior::kMergedWithNext:
        // The one before joins this one when it is a match and this is none.
        joins_previous = i > 0 && segments[i - 1].is_match && !segment.is_match;
        break;
      case SplitBehavior::kContiguous:
        joins_previous = segment.is_match == previous_is_match;
        break;
    }
    previous_is_match = segment.is_match;
    const std::string_view word = text.substr(segment.begin, segment.end - segment.begin);
    if (joins_previous && words->size() > first_word) {
      std::string_view& last = words->back();
      last = std::string_view(last.data(), last.size() + word.size());
    } else {
      words->push_back(word);
    }
  }
}

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::FromJson(const JsonField& field) {
  PreTokenizer pre_tokenizer;
  CAIRN_RETURN_IF_ERROR(pre_tokenizer.Add(field, 0));
  return pre_tokenizer;
}

absl::Status PreTokenizer::Add(const JsonField& field, int depth) {
  CAIRN_ASSIGN_OR_RETURN(const std::string type, field.String("type"));
  if (byte_level_) return field.Error(absl::StrCat("\"", type, "\" after ByteLevel is not supported"));
  if (type == "Sequence") {
    if (depth == kMaxDepth) return field.Error("too many sequences inside each other");
    CAIRN_ASSIGN_OR_RETURN(const JsonField members, field.Member("pretokenizers"));
    CAIRN_ASSIGN_OR_RETURN(const std::vector<JsonField> items, members.Items());
    for (const JsonField& item : items) CAIRN_RETURN_IF_ERROR(Add(item, depth + 1));
    return absl::OkStatus();
  }
  if (type == "Split") return AddSplit(field);
  if (type == "ByteLevel") return AddByteLevel(field);
  if (type == "Metaspace") return AddMetaspace(field);
  if (type == "Digits") {
    CAIRN_ASSIGN_OR_RETURN(const bool individual, field.Bool("individual_digits", false));
    steps_.push_back(ClassStep{&IsUnicodeNumeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous});
    return absl::OkStatus();
  }
  if (type == "Punctuation") {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> name, field.Find("behavior"));
    if (name) {
      CAIRN_ASSIGN_OR_RETURN(behavior, ReadBehavior(*name));
    }
    steps_.push_back(ClassStep{&IsUnicodePunctuation, behavior});
    return absl::OkStatus();
  }
  return field.Unsupported(type, kSupported);
}

absl::Status PreTokenizer::AddSplit(const JsonField& field) {
  CAIRN_ASSIGN_OR_RETURN(const JsonField pattern_field, field.Member("pattern"));
  CAIRN_ASSIGN_OR_RETURN(TextPattern pattern, ReadTextPattern(pattern_field));
  CAIRN_ASSIGN_OR_RETURN(const JsonField behavior_field, field.Member("behavior"));
  CAIRN_ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(behavior_field));
  CAIRN_ASSIGN_OR_RETURN(const bool invert, field.Bool("invert", false));
  steps_.push_back(SplitStep{std::move(pattern), behavior, invert});
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddByteLevel(const JsonField& field) {
  byte_level_ = true;
  CAIRN_ASSIGN_OR_RETURN(const bool add_prefix_space, field.Bool("add_prefix_space", true));
  CAIRN_ASSIGN_OR_RETURN(const bool use_regex, field.Bool("use_regex", true));
  if (add_prefix_space) steps_.push_back(PrefixSpaceStep{});
  if (use_regex) {
    CAIRN_ASSIGN_OR_RETURN(Regex regex, Regex::Compile(kGpt2Pattern));
    steps_.push_back(SplitStep{{"", std::move(regex)}, SplitBehavior::kIsolated, false});
  }
  return absl::OkStatus();
}

absl::Status PreTokenizer::AddMetaspace(const JsonField& field) {
  MetaspaceStep step;
  CAIRN_ASSIGN_OR_RETURN(step.replacement, field.String("replacement"));
  size_t length = 0;
  if (!step.replacement.empty()) NextCodePoint(step.replacement, &length);
  if (step.replacement.empty() || length != step.replacement.size()) {
    return field.Error("replacement: expected one character");
  }
  CAIRN_ASSIGN_OR_RETURN(step.split, field.Bool("split", true));
  CAIRN_ASSIGN_OR_RETURN(const bool add_prefix_space, field.Bool("add_prefix_space", true));
  std::string scheme = "always";
  CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> scheme_field, field.Find("prepend_scheme"));
  if (scheme_field) {
    CAIRN_ASSIGN_OR_RETURN(scheme, scheme_field->String());
  }
  if (scheme == "always") {
    step.prepend = MetaspaceStep::Prepend::kAlways;
  } else if (scheme == "first") {
    step.prepend = MetaspaceStep::Prepend::kFirst;
  } else if (scheme == "never") {
    step.prepend = MetaspaceStep::Prepend::kNever;
  } else {
    return scheme_field->Unsupported(scheme, "always, first, never");
  }
  if (!add_prefix_space) {
    if (scheme_field && scheme != "never") return field.Error("add_prefix_space false contradicts prepend_scheme");
    step.prepend = MetaspaceStep::Prepend::kNever;
  }
  steps_.push_back(std::move(step));
  return absl::OkStatus();
}

const std::vector<std::string_view>& PreTokenizer::Split(std::string_view text, bool at_start, Scratch* scratch) const {
  auto& words = scratch->words;
  auto& next_words = scratch->next_words;
  scratch->texts.clear();
  words.assign(1, text);
  for (const Step& step : steps_) {
    next_words.clear();
    for (size_t i = 0; i < words.size(); ++i) {
      std::visit([&](const auto& s) { Apply(s, words[i], at_start && i == 0, scratch); }, step);
    }
    words.swap(next_words);
  }
  return words;
}

void PreTokenizer::Apply(const SplitStep& step, std::string_view word, bool, Scratch* scratch) const {
  auto& segments = scratch->segments;
  segments.clear();
  size_t done = 0, begin = 0, end = 0;
  auto find = [&] {
    if (step.pattern.regex) return step.pattern.regex->Find(word, done, &scratch->regex, &begin, &end);
    begin = word.find(step.pattern.text, done);
    end = begin + step.pattern.text.size();
    return begin != std::string_view::npos;
  };
  while (done < word.size() && find()) {
    if (begin > done) segments.push_back({done, begin, step.invert});
    segments.push_back({begin, end, !step.invert});
    done = end;
  }
  if (done < word.size()) segments.push_back({done, word.size(), step.invert});
  ApplyBehavior(word, segments, step.behavior, &scratch->next_words);
}

void PreTokenizer::Apply(const ClassStep& step, std::string_view word, bool, Scratch* scratch) const {
  auto& segments = scratch->segments;
  segments.clear();
  size_t done = 0;
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    if (!step.contains(NextCodePoint(word, &pos))) continue;
    if (begin > done) segments.push_back({done, begin, false});
    segments.push_back({begin, pos, true});
    done = pos;
  }
  if (done < word.size()) segments.push_back({done, word.size(), false});
  ApplyBehavior(word, segments, step.behavior, &scratch->next_words);
}

void PreTokenizer::Apply(const MetaspaceStep& step, std::string_view word, bool at_start, Scratch* scratch) const {
  std::string text = ReplaceAll(word, " ", step.replacement);
  const bool wants_prefix =
      step.prepend == MetaspaceStep::Prepend::kAlways || (step.prepend == MetaspaceStep::Prepend::kFirst && at_start);
  if (wants_prefix && text.compare(0, step.replacement.size(), step.replacement) != 0) {
    text.insert(0, step.replacement);
  }
  word = scratch->texts.emplace_back(std::move(text));
  if (!step.split) {
    scratch->next_words.push_back(word);
    return;
  }
  // Each replacement begins a word: MergedWithNext, of which a match before a match stands alone.
  size_t begin = 0;
  for (size_t pos = 1; (pos = word.find(step.replacement, pos)) != std::string_view::npos;
       pos += step.replacement.size()) {
    scratch->next_words.push_back(word.substr(begin, pos - begin));
    begin = pos;
  }
  scratch->next_words.push_back(word.substr(begin));
}

void PreTokenizer::Apply(const PrefixSpaceStep&, std::string_view word, bool, Scratch* scratch) const {
  if (word.front() != ' ') word = scratch->texts.emplace_back(1, ' ').append(word);
  scratch->next_words.push_back(word);
}

}  // namespace cairn
