#include "engine/text/jinja_source.h"

#include <algorithm>
#include <utility>

namespace cairn {
namespace {

constexpr std::string_view kSpace = " \t\n\r\v\f";

bool IsSpace(char c) { return kSpace.find(c) != std::string_view::npos; }

void StripLeft(std::string_view* text) { text->remove_prefix(std::min(text->find_first_not_of(kSpace), text->size())); }
void StripRight(std::string_view* text) { *text = text->substr(0, text->find_last_not_of(kSpace) + 1); }

}  // namespace

JinjaSource::Term JinjaLiteral(std::string text) { return {JinjaSource::Term::Kind::kLiteral, std::move(text), false}; }
JinjaSource::Term JinjaContent(bool stripped) { return {JinjaSource::Term::Kind::kContent, "", stripped}; }
JinjaSource::Term JinjaTerm(JinjaSource::Term::Kind kind) { return {kind, "", false}; }

class JinjaSource::Parser {
 public:
  Parser(std::string_view source, JinjaSource* out) : source_(source), out_(out) {
    // Jinja's keep_trailing_newline is off.
    if (!source_.empty() && source_.back() == '\n') source_.remove_suffix(1);
  }

  bool Run() {
    while (true) {
      const size_t open = FindTag();
      AddText(source_.substr(pos_, open - pos_), open);
      if (open == source_.size()) return true;
      if (!ReadTag(open)) return false;
    }
  }

 private:
  size_t FindTag() const {
    for (size_t i = pos_; i + 1 < source_.size(); ++i) {
      const char next = source_[i + 1];
      if (source_[i] == '{' && (next == '{' || next == '%' || next == '#')) return i;
    }
    return source_.size();
  }

  // A text between the tag before and the one at `open`, less what whitespace control takes away.
  void AddText(std::string_view text, size_t open) {
    if (strip_after_) {
      StripLeft(&text);
    } else if (block_before_ && !text.empty() && text.front() == '\n') {
      text.remove_prefix(1);  // trim_blocks
    }
    if (open < source_.size()) {
      const char after_brace = open + 2 < source_.size() ? source_[open + 2] : ' ';
      if (after_brace == '-') {
        StripRight(&text);
      } else if (source_[open + 1] != '{' && after_brace != '+') {
        const size_t line = text.find_last_not_of(" \t");  // lstrip_blocks
        const size_t kept = line == std::string_view::npos ? 0 : line + 1;
        const size_t before = open - (text.size() - kept);
        if (before == 0 || source_[before - 1] == '\n') text = text.substr(0, kept);
      }
    }
    if (!text.empty()) out_->has_text_ = true;
  }

  bool ReadTag(size_t open) {
    const char kind = source_[open + 1];
    pos_ = open + 2;
    if (pos_ < source_.size() && (source_[pos_] == '-' || source_[pos_] == '+')) ++pos_;
    if (kind == '#') {
      const size_t close = source_.find("#}", pos_);
      if (close == std::string_view::npos) return false;
      EndTag(close, /*is_block=*/true);
      return true;
    }
    terms_.clear();
    code_.clear();
    Concatenation concatenation;
    const std::string_view end = kind == '{' ? "}}" : "%}";
    int depth = 0;  // of brackets in the tag
    while (true) {
      if (pos_ >= source_.size()) return false;
      const char c = source_[pos_];
      if (depth == 0 && source_.substr(pos_, 2) == end) break;
      if (c == '\'' || c == '"') {
        if (!ReadLiteral(c)) return false;
        continue;
      }
      if (depth == 0 && (c == '+' || c == '~')) {
        if (!terms_.empty()) EndTerm(&concatenation);
        ++pos_;
        code_ += '+';
        continue;
      }
      if (c == '(' || c == '[' || c == '{') ++depth;
      if (c == ')' || c == ']' || c == '}') --depth;
      if (depth < 0) return false;
      if (!IsSpace(c)) {
        terms_ += c;
        code_ += c;
      } else if (kind == '%' && code_ == "set") {
        terms_.clear();
      }
      ++pos_;
      if (depth == 0 && c == '=' && StartsAssignment()) {
        assigned_name_ = code_.substr(3, code_.size() - 4);
        terms_.clear();
      }
    }
    // "-%}": the sign is not part of the code.
    if (!code_.empty() && code_.back() == '-') {
      code_.pop_back();
      terms_.pop_back();
    }
    EndTerm(&concatenation);
    EndTag(pos_, kind == '%');
    out_->code_ += code_ + "\n";
    if (kind == '{') out_->outputs_.push_back(std::move(concatenation));
    if (kind == '%' && code_.rfind("set", 0) == 0) Assign(std::move(concatenation));
    return true;
  }

  // "{% set name =", and not a comparison further on.
  bool StartsAssignment() const {
    return code_.rfind("set", 0) == 0 && std::count(code_.begin(), code_.end(), '=') == 1;
  }

  void Assign(Concatenation concatenation) {
    if (concatenation.size() == 1 && concatenation[0].kind == Term::Kind::kLiteral) {
      out_->assigned_literals_.emplace_back(assigned_name_, concatenation[0].text);
    }
    out_->assigned_.push_back(std::move(concatenation));
  }

  void EndTag(size_t close, bool is_block) {
    strip_after_ = close > 0 && source_[close - 1] == '-';
    block_before_ = is_block;
    pos_ = close + 2;
  }

  // A string literal: into literals_, into the code, and into the term being read (as itself where it is the whole
  // term).
  bool ReadLiteral(char quote) {
    std::string text;
    for (++pos_; pos_ < source_.size() && source_[pos_] != quote; ++pos_) {
      char c = source_[pos_];
      if (c == '\\') {
        if (++pos_ == source_.size()) return false;
        static constexpr std::string_view kEscapes = "nrt\\'\"", kMeanings = "\n\r\t\\'\"";
        const size_t escape = kEscapes.find(source_[pos_]);
        if (escape == std::string_view::npos) return false;
        c = kMeanings[escape];
      }
      text += c;
    }
    if (pos_ == source_.size()) return false;
    ++pos_;
    code_ += "'" + text + "'";
    literal_ = text;
    literal_is_term_ = terms_.empty();
    terms_ += "'" + text + "'";
    out_->literals_.push_back(std::move(text));
    return true;
  }

  void EndTerm(Concatenation* concatenation) {
    Term term = ReadTerm();
    terms_.clear();
    literal_is_term_ = false;
    if (term.kind == Term::Kind::kLiteral && !concatenation->empty() &&
        concatenation->back().kind == Term::Kind::kLiteral) {
      concatenation->back().text += term.text;
    } else {
      concatenation->push_back(std::move(term));
    }
  }

  Term ReadTerm() const {
    using Kind = Term::Kind;
    if (literal_is_term_ && terms_.size() == literal_.size() + 2) return JinjaLiteral(literal_);
    for (const char* name : {"message['content']", "message.content", "content"}) {
      if (terms_ == name) return JinjaContent(false);
      if (terms_ == std::string(name) + "|trim" || terms_ == std::string(name) + ".strip()") return JinjaContent(true);
    }
    for (const char* name : {"message['role']", "message.role"}) {
      if (terms_ == name) return JinjaTerm(Kind::kRole);
    }
    if (terms_ == "bos_token") return JinjaTerm(Kind::kBos);
    if (terms_ == "eos_token") return JinjaTerm(Kind::kEos);
    if (terms_ == "system_message" || terms_ == "ns.system_prompt") return JinjaTerm(Kind::kSystem);
    return JinjaTerm(Kind::kOther);
  }

  std::string_view source_;
  JinjaSource* out_;
  size_t pos_ = 0;
  bool strip_after_ = false;   // the tag before ended with "-"
  bool block_before_ = false;  // it was a statement or a comment
  std::string code_;           // of the tag being read
  std::string terms_;          // of the operand being read
  std::string literal_;
  bool literal_is_term_ = false;
  std::string assigned_name_;
};

std::optional<JinjaSource> JinjaSource::Parse(std::string_view source) {
  JinjaSource result;
  if (!Parser(source, &result).Run()) return std::nullopt;
  return result;
}

bool JinjaSource::HasLiteral(std::string_view text) const {
  return std::find(literals_.begin(), literals_.end(), text) != literals_.end();
}

bool JinjaSource::Outputs(const Concatenation& what) const {
  return std::find(outputs_.begin(), outputs_.end(), what) != outputs_.end();
}

std::string JinjaSource::AssignedLiteral(const std::string& name) const {
  for (const auto& [assigned, text] : assigned_literals_) {
    if (assigned == name) return text;
  }
  return "";
}

}  // namespace cairn
