// The page of `cairn inspect`: one HTML file with its data, style and script in it, that loads nothing.
#ifndef CAIRN_LAUNCHER_INSPECT_PAGE_H_
#define CAIRN_LAUNCHER_INSPECT_PAGE_H_

#include <string>
#include <string_view>

#include "nlohmann/json.hpp"

namespace cairn {

// `data` as text that can stand in a <script> of an HTML page and is still JSON: it has no `<`.
std::string ScriptSafeJson(const nlohmann::ordered_json& data);

// `data`: PageData of a report.
std::string BuildPage(const nlohmann::ordered_json& data);

// The parts of the page, files of this folder that the build puts into the binary (page_parts.cc.in).
extern const std::string_view kPageHtml, kPageCss, kKeepModelJs, kPageJs;

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_INSPECT_PAGE_H_
