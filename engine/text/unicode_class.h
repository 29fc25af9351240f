// The character classes that Hugging Face `tokenizers` sees, which come from several versions of Unicode: its regular
// expressions (Oniguruma) from 16.0, its Digits from 17.0, its Punctuation from 8.0, its normal forms from 11.0.
// Debian's libraries have others (PCRE2 10.42: 14.0, utf8proc 2.8: 15.0); the tables here are the differences, found by
// asking both about every code point (tools/tokenizer_reference.py, --sweep) and held by the sweeps in tests/data/text.
#ifndef CAIRN_ENGINE_TEXT_UNICODE_CLASS_H_
#define CAIRN_ENGINE_TEXT_UNICODE_CLASS_H_

#include <optional>
#include <string_view>
#include <vector>

#include "absl/types/span.h"

namespace cairn {

struct CodePointRange {
  char32_t first, last;  // both inside
};

bool InRanges(char32_t c, absl::Span<const CodePointRange> ascending);

// White_Space: what Rust's char::is_whitespace, its regex crate's \s and Oniguruma's \s take.
bool IsUnicodeSpace(char32_t c);
// Rust's char::is_numeric: categories Nd, Nl, No.
bool IsUnicodeNumeric(char32_t c);
// ASCII punctuation and symbols, and category P as of Unicode 8.
bool IsUnicodePunctuation(char32_t c);
// \w of Rust's regex crate: Alphabetic, marks, decimal digits, connectors, joiners.
bool IsUnicodeWord(char32_t c);
// Assigned, or given its canonical properties, after Unicode 11: the normal forms leave it alone, and nothing moves
// past it.
bool IsInertForNormalization(char32_t c, bool compatibility);

// Code points of a general category (L, Lu, N, Nd, M, P, S ...) that are newer than PCRE2's tables: what \p{category}
// in a pattern must be widened by. nullopt for a category of which the additions are not known here.
std::optional<std::vector<CodePointRange>> CategoryAdditions(std::string_view category);

}  // namespace cairn

#endif  // CAIRN_ENGINE_TEXT_UNICODE_CLASS_H_
