#include "launcher/eval/svg.h"

#include "absl/strings/str_format.h"

namespace cairn {

std::string XmlEscape(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '&':
        escaped += "&amp;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped.push_back(static_cast<unsigned char>(c) < 0x20 ? ' ' : c);
    }
  }
  return escaped;
}

std::string SvgText(double x, double y, const char* anchor, const std::string& text, const char* attributes) {
  return absl::StrFormat("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>%s</text>\n", x, y, anchor, attributes,
                         XmlEscape(text));
}

}  // namespace cairn
