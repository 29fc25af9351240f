// The value of an expression of school mathematics in LaTeX's spelling.
#ifndef CAIRN_LAUNCHER_EVAL_MATH_EXPRESSION_H_
#define CAIRN_LAUNCHER_EVAL_MATH_EXPRESSION_H_

#include <optional>
#include <string_view>

namespace cairn {

// `text` as NormalizeMath leaves it: numbers, letters, \pi, + - * /, ^, \frac, \sqrt, parentheses; what stands side by
// side is multiplied, but 1\frac{1}{2} is one and a half. A letter has a value that depends on the letter and on
// `point` alone, so equal values at a few points mean equal expressions. None for anything else (a word, a relation, a
// matrix), and where the value is not finite.
std::optional<double> EvaluateMath(std::string_view text, int point);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_MATH_EXPRESSION_H_
