// Normal forms. utf8proc gives each character's decomposition and combining class and composes pairs; ordering the
// marks is done here, since utf8proc's own is quadratic in the length of a run of marks.
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "engine/text/normalizer.h"
#include "engine/text/unicode_class.h"
#include "engine/text/utf8.h"
#include "kernels/core/check.h"

namespace cairn {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// The canonical ordering algorithm: each run of marks is sorted by class, equal classes keep their order.
void OrderMarks(CodePoints* text) {
  auto by_class = [](utf8proc_int32_t a, utf8proc_int32_t b) { return CombiningClass(a) < CombiningClass(b); };
  for (auto begin = text->begin(); begin != text->end();) {
    if (CombiningClass(*begin) == 0) {
      ++begin;
      continue;
    }
    const auto end = std::find_if(begin, text->end(), [](utf8proc_int32_t c) { return CombiningClass(c) == 0; });
    std::stable_sort(begin, end, by_class);
    begin = end;
  }
}

// Normalizes `text`, in which no character is inert, and appends it.
void AppendNormalized(CodePoints* text, NormalForm form, std::string* out) {
  const bool compatibility = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatibility ? UTF8PROC_COMPAT : 0);
  CodePoints decomposed;
  decomposed.reserve(text->size() * 2);
  for (utf8proc_int32_t c : *text) {
    std::array<utf8proc_int32_t, 32> parts;  // the longest decomposition has 18
    int boundary = 0;
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(c, parts.data(), parts.size(), static_cast<utf8proc_option_t>(options), &boundary);
    CAIRN_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()), "code point ", c);
    decomposed.insert(decomposed.end(), parts.begin(), parts.begin() + count);
  }
  OrderMarks(&decomposed);
  utf8proc_ssize_t length = static_cast<utf8proc_ssize_t>(decomposed.size());
  if (form == NormalForm::kNfc || form == NormalForm::kNfkc) {
    length = utf8proc_normalize_utf32(decomposed.data(), length,
                                      static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  }
  for (utf8proc_ssize_t i = 0; i < length; ++i) AppendUtf8(static_cast<char32_t>(decomposed[i]), out);
  text->clear();
}

size_t AsciiRun(std::string_view text, size_t pos) {
  size_t end = pos;
  while (end < text.size() && static_cast<unsigned char>(text[end]) < 0x80) ++end;
  return end - pos;
}

}  // namespace

std::string NormalizeUnicode(std::string_view text, NormalForm form) {
  const bool compatibility = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  CodePoints run;  // from one character that nothing moves or composes across to the next
  for (size_t pos = 0; pos < text.size();) {
    // ASCII never changes; only its last character can compose with what follows.
    const size_t ascii = AsciiRun(text, pos);
    if (ascii > 0) {
      AppendNormalized(&run, form, &out);
      out.append(text, pos, ascii - 1);
      run.push_back(text[pos + ascii - 1]);
      pos += ascii;
      continue;
    }
    const char32_t c = NextCodePoint(text, &pos);
    if (IsInertForNormalization(c, compatibility)) {
      AppendNormalized(&run, form, &out);
      AppendUtf8(c, &out);
    } else {
      run.push_back(static_cast<utf8proc_int32_t>(c));
    }
  }
  AppendNormalized(&run, form, &out);
  return out;
}

}  // namespace cairn
