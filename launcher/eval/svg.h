// What the plots' SVG files are put together from.
#ifndef CAIRN_LAUNCHER_EVAL_SVG_H_
#define CAIRN_LAUNCHER_EVAL_SVG_H_

#include <string>

namespace cairn {

// For text and attributes of XML: <, >, &, quotes; control characters become spaces.
std::string XmlEscape(const std::string& text);

// A <text> with its anchor (start, middle or end) at x, y; `attributes` begin with a space.
std::string SvgText(double x, double y, const char* anchor, const std::string& text, const char* attributes = "");

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_EVAL_SVG_H_
