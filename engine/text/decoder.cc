#include "engine/text/decoder.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

constexpr char kSupported[] = "Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace";
constexpr int kMaxDepth = 8;  // of sequences inside each other

// The byte that "<0x0A>" stands for, -1 for any other token. Read as Hugging Face does: u8::from_str_radix takes "+A"
// too.
int FallbackByte(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return -1;
  int value = 0;
  for (size_t i = token[3] == '+' ? 4 : 3; i < 5; ++i) {
    const char c = token[i];
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

std::string ReplaceIn(std::string_view text, const TextPattern& pattern, const std::string& content,
                      Regex::Scratch* scratch) {
  return pattern.regex ? ReplaceAll(text, *pattern.regex, content, scratch) : ReplaceAll(text, pattern.text, content);
}

bool StartsWith(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }
bool EndsWith(std::string_view text, std::string_view suffix) {
  return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

}  // namespace

Decoder::Decoder() : steps_{Join{}} {}

absl::StatusOr<Decoder> Decoder::FromJson(const JsonField& field) {
  Decoder decoder;
  decoder.steps_.clear();
  bool fused = false;
  CAIRN_RETURN_IF_ERROR(decoder.AddStep(field, 0, &fused));
  return decoder;
}

absl::Status Decoder::AddStep(const JsonField& field, int depth, bool* fused) {
  CAIRN_ASSIGN_OR_RETURN(const std::string type, field.String("type"));
  if (type == "Sequence") {
    if (depth == kMaxDepth) return field.Error("too many sequences inside each other");
    CAIRN_ASSIGN_OR_RETURN(const JsonField members, field.Member("decoders"));
    CAIRN_ASSIGN_OR_RETURN(const std::vector<JsonField> items, members.Items());
    for (const JsonField& item : items) CAIRN_RETURN_IF_ERROR(AddStep(item, depth + 1, fused));
    return absl::OkStatus();
  }
  if (type == "Fuse") {
    *fused = true;
    steps_.push_back(Fuse{});
    return absl::OkStatus();
  }
  if (type == "Strip") return AddStrip(field, *fused);
  if (*fused) return field.Error(absl::StrCat("\"", type, "\" after Fuse or ByteLevel is not supported"));
  if (type == "ByteLevel" || type == "ByteFallback") {
    for (const Step& step : steps_) {
      if (std::holds_alternative<ByteFallback>(step)) return field.Error("a second step for bytes is not supported");
    }
    if (type == "ByteLevel") {
      *fused = true;
      steps_.push_back(ByteLevel{});
    } else {
      steps_.push_back(ByteFallback{});
    }
    return absl::OkStatus();
  }
  if (type == "Replace") {
    CAIRN_ASSIGN_OR_RETURN(const JsonField pattern_field, field.Member("pattern"));
    CAIRN_ASSIGN_OR_RETURN(TextPattern pattern, ReadTextPattern(pattern_field));
    CAIRN_ASSIGN_OR_RETURN(std::string content, field.String("content"));
    steps_.push_back(Replace{std::move(pattern), std::move(content)});
    return absl::OkStatus();
  }
  if (type == "Metaspace") {
    if (!steps_.empty()) return field.Error("Metaspace after another step is not supported");
    CAIRN_ASSIGN_OR_RETURN(std::string replacement, field.String("replacement"));
    if (replacement.empty()) return field.Error("replacement: expected one character");
    CAIRN_ASSIGN_OR_RETURN(const bool add_prefix_space, field.Bool("add_prefix_space", true));
    CAIRN_ASSIGN_OR_RETURN(const std::optional<JsonField> scheme, field.Find("prepend_scheme"));
    const bool never = !add_prefix_space || (scheme && scheme->value() == "never");
    steps_.push_back(Metaspace{std::move(replacement), !never});
    return absl::OkStatus();
  }
  return field.Unsupported(type, kSupported);
}

absl::Status Decoder::AddStrip(const JsonField& field, bool fused) {
  Strip strip;
  strip.fused = fused;
  CAIRN_ASSIGN_OR_RETURN(strip.content, field.String("content"));
  size_t length = 0;
  if (!strip.content.empty()) NextCodePoint(strip.content, &length);
  if (strip.content.empty() || length != strip.content.size()) return field.Error("content: expected one character");
  CAIRN_ASSIGN_OR_RETURN(strip.start, field.Integer("start", 0, 1 << 20));
  CAIRN_ASSIGN_OR_RETURN(strip.stop, field.Integer("stop", 0, 1 << 20));
  for (const Step& step : steps_) {
    const Strip* other = std::get_if<Strip>(&step);
    if (fused && other != nullptr && other->fused) return field.Error("a second Strip after Fuse is not supported");
  }
  steps_.push_back(std::move(strip));
  return absl::OkStatus();
}

struct Decoder::Run {
  const std::vector<Step>& steps;
  DecoderState* state;
  Regex::Scratch* scratch;
  std::string* out;

  void Feed(size_t step, std::string_view piece) {
    if (step == steps.size()) {
      out->append(piece);
      return;
    }
    std::visit([&](const auto& s) { Apply(s, step, piece); }, steps[step]);
  }

  void Apply(const Join&, size_t step, std::string_view piece) {
    if (state->any_token) Feed(step + 1, " ");
    Feed(step + 1, piece);
  }
  void Apply(const Replace& s, size_t step, std::string_view piece) {
    Feed(step + 1, ReplaceIn(piece, s.pattern, s.content, scratch));
  }
  void Apply(const Fuse&, size_t step, std::string_view piece) { Feed(step + 1, piece); }

  void Apply(const ByteFallback&, size_t step, std::string_view piece) {
    const int byte = FallbackByte(piece);
    if (byte >= 0) {
      state->bytes.push_back(static_cast<char>(byte));
      return;
    }
    FlushFallback(step);
    Feed(step + 1, piece);
  }
  // A run of byte tokens is a text of its own, or as many U+FFFD as it has bytes: known only when the run is over.
  void FlushFallback(size_t step) {
    const std::string run = std::exchange(state->bytes, {});
    if (run.empty()) return;
    if (IsValidUtf8(run)) {
      Feed(step + 1, run);
    } else {
      for (size_t i = 0; i < run.size(); ++i) Feed(step + 1, kReplacementCharacter);
    }
  }

  void Apply(const ByteLevel&, size_t step, std::string_view piece) {
    AppendByteLevelToken(piece, &state->bytes);
    FlushByteLevel(step, /*at_end=*/false);
  }
  void FlushByteLevel(size_t step, bool at_end) {
    std::string text;
    const size_t used = AppendLossyUtf8(state->bytes, at_end, &text);
    state->bytes.erase(0, used);  // at most three bytes stay
    if (!text.empty()) Feed(step + 1, text);
  }

  void Apply(const Metaspace& s, size_t step, std::string_view piece) {
    Feed(step + 1, ReplaceAll(piece, s.replacement, s.prepends && !state->any_token ? "" : " "));
  }

  void Apply(const Strip& s, size_t step, std::string_view piece) {
    if (!s.fused) {
      for (int64_t i = 0; i < s.start && StartsWith(piece, s.content); ++i) piece.remove_prefix(s.content.size());
      for (int64_t i = 0; i < s.stop && EndsWith(piece, s.content); ++i) piece.remove_suffix(s.content.size());
      Feed(step + 1, piece);
      return;
    }
    while (state->stripped < s.start && StartsWith(piece, s.content)) {
      piece.remove_prefix(s.content.size());
      ++state->stripped;
    }
    if (!piece.empty()) state->stripped = s.start;  // the beginning is over
    // The last `stop` characters wait: they go if they turn out to be the end.
    size_t kept = piece.size();
    int64_t trailing = 0;
    while (trailing < s.stop && EndsWith(piece.substr(0, kept), s.content)) {
      kept -= s.content.size();
      ++trailing;
    }
    if (kept > 0) {
      FlushHeld(s, step, state->held);
      Feed(step + 1, piece.substr(0, kept));
      state->held = trailing;
    } else {
      FlushHeld(s, step, state->held + trailing - s.stop);
      state->held += trailing;
    }
  }
  void FlushHeld(const Strip& s, size_t step, int64_t count) {
    for (; count > 0; --count) {
      Feed(step + 1, s.content);
      --state->held;
    }
  }
};

void Decoder::Add(std::string_view token, DecoderState* state, Regex::Scratch* scratch, std::string* out) const {
  Run{steps_, state, scratch, out}.Feed(0, token);
  state->any_token = true;
}

void Decoder::Finish(DecoderState* state, Regex::Scratch* scratch, std::string* out) const {
  Run run{steps_, state, scratch, out};
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (std::holds_alternative<ByteFallback>(steps_[i])) run.FlushFallback(i);
    if (std::holds_alternative<ByteLevel>(steps_[i])) run.FlushByteLevel(i, /*at_end=*/true);
  }
  *state = DecoderState();
}

std::string Decoder::TokenBytes(std::string_view token, Regex::Scratch* scratch) const {
  std::string bytes(token);
  for (const Step& step : steps_) {
    if (const auto* replace = std::get_if<Replace>(&step)) {
      bytes = ReplaceIn(bytes, replace->pattern, replace->content, scratch);
    } else if (const auto* metaspace = std::get_if<Metaspace>(&step)) {
      bytes = ReplaceAll(bytes, metaspace->replacement, " ");
    } else if (std::holds_alternative<ByteLevel>(step)) {
      std::string raw;
      AppendByteLevelToken(bytes, &raw);
      bytes = std::move(raw);
    } else if (std::holds_alternative<ByteFallback>(step)) {
      const int byte = FallbackByte(bytes);
      if (byte >= 0) bytes = std::string(1, static_cast<char>(byte));
    } else if (std::holds_alternative<Join>(step)) {
      bytes.insert(bytes.begin(), ' ');
    }
  }
  return bytes;
}

}  // namespace cairn
