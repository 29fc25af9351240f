// Whether two answers to a mathematics problem say the same: \frac12 and 0.5, 1,000 and 1000, 5\text{ cm} and 5.
//
// In the order in which the graders of MATH do it (Hendrycks et al., arXiv 2103.03874, and prm800k): both are brought
// to one spelling and compared as text; else lists and intervals are compared part by part; else both are read as
// expressions and compared by value, with the same numbers in place of their letters.
#ifndef CAIRN_LAUNCHER_EVAL_MATH_ANSWER_H_
#define CAIRN_LAUNCHER_EVAL_MATH_ANSWER_H_

#include <string>
#include <string_view>

namespace cairn {

// One spelling: no spaces, sizes, currency, degrees, units after a number, thousands commas or final period; \dfrac12
// is \frac{1}{2}.
std::string NormalizeMath(std::string_view answer);

bool MathEqual(std::string_view a, std::string_view b);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_MATH_ANSWER_H_
