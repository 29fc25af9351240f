// Where in a model's text its answer stands.
#ifndef CAIRN_LAUNCHER_EVAL_ANSWER_TEXT_H_
#define CAIRN_LAUNCHER_EVAL_ANSWER_TEXT_H_

#include <optional>
#include <string>
#include <string_view>

namespace cairn {

std::string Trim(std::string_view text);

// What follows the last </think>; all of it where the model has no such mark. Without white space at both ends.
std::string AfterThinking(std::string_view text);

// What stands in the last \boxed{...} (or \fbox) whose braces close; `\boxed 5` is 5. None without one.
std::optional<std::string> LastBoxed(std::string_view text);

// The last number of the text as plain decimal digits: "-1,234.50" is "-1234.5". A minus after a digit, a letter or a
// closing parenthesis is a subtraction. None without a number.
std::optional<std::string> LastNumber(std::string_view text);

// "+007.50" to "7.5", "-0" to "0", "1,234" to "1234"; none where `text` is no decimal number. Commas count only where
// they group by thousands.
std::optional<std::string> PlainNumber(std::string_view text);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_ANSWER_TEXT_H_
