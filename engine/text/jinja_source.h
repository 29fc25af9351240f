// A chat template taken apart far enough to recognise it: which texts it writes, around what, and under which
// conditions. Nothing is evaluated.
#ifndef CAIRN_ENGINE_TEXT_JINJA_SOURCE_H_
#define CAIRN_ENGINE_TEXT_JINJA_SOURCE_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cairn {

class JinjaSource {
 public:
  // One operand of a concatenation.
  struct Term {
    enum class Kind { kLiteral, kContent, kRole, kBos, kEos, kSystem, kOther };
    Kind kind = Kind::kOther;
    std::string text;       // of a literal
    bool stripped = false;  // content|trim, content.strip()
    bool operator==(const Term& o) const { return kind == o.kind && text == o.text && stripped == o.stripped; }
  };
  using Concatenation = std::vector<Term>;  // no two literals next to each other

  // nullopt where the text is not well formed or uses an escape that is not known here.
  static std::optional<JinjaSource> Parse(std::string_view source);

  // Whether there is text outside of tags that is written, as transformers sets up Jinja (trim_blocks, lstrip_blocks).
  bool has_text() const { return has_text_; }
  // What {{ ... }} write, in the source's order.
  const std::vector<Concatenation>& outputs() const { return outputs_; }
  // The right sides of {% set name = ... %}.
  const std::vector<Concatenation>& assigned() const { return assigned_; }
  // Every string literal.
  const std::vector<std::string>& literals() const { return literals_; }

  // All tags' code, spaces outside of literals left out, literals between single quotes: what conditions are looked up
  // in.
  bool Says(std::string_view code) const { return code_.find(code) != std::string::npos; }
  bool HasLiteral(std::string_view text) const;
  bool Outputs(const Concatenation& what) const;
  // The literal that `{% set name = "literal" %}` gives a variable first; "" where there is none.
  std::string AssignedLiteral(const std::string& name) const;

 private:
  class Parser;

  std::vector<Concatenation> outputs_, assigned_;
  std::vector<std::string> literals_;
  std::vector<std::pair<std::string, std::string>> assigned_literals_;
  std::string code_;
  bool has_text_ = false;
};

// Terms for comparing with.
JinjaSource::Term JinjaLiteral(std::string text);
JinjaSource::Term JinjaContent(bool stripped = false);
JinjaSource::Term JinjaTerm(JinjaSource::Term::Kind kind);

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_JINJA_SOURCE_H_
