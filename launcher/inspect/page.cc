#include "launcher/inspect/page.h"

#include <utility>

#include "kernels/core/check.h"
#include "launcher/inspect/inspect_report.h"

namespace cairn {

std::string ScriptSafeJson(const nlohmann::ordered_json& data) {
  const std::string json = DumpJson(data);
  std::string safe;
  safe.reserve(json.size());
  for (const char c : json) {
    // Only strings hold it, where the escape means the same. So neither </script> nor <!-- can arise.
    if (c == '<') {
      safe += "\\u003c";
    } else {
      safe.push_back(c);
    }
  }
  return safe;
}

std::string BuildPage(const nlohmann::ordered_json& data) {
  const std::string json = ScriptSafeJson(data);
  std::string page;
  page.reserve(kPageHtml.size() + kPageCss.size() + kKeepModelJs.size() + kPageJs.size() + json.size());
  std::string_view rest = kPageHtml;
  for (const auto& [mark, part] : {std::pair<std::string_view, std::string_view>("/*style*/", kPageCss),
                                   {"/*data*/", json},
                                   {"/*keep_model*/", kKeepModelJs},
                                   {"/*page*/", kPageJs}}) {
    const size_t at = rest.find(mark);
    CAIRN_CHECK(at != std::string_view::npos, "page.html has no ", std::string(mark));
    page.append(rest.substr(0, at)).append(part);
    rest.remove_prefix(at + mark.size());
  }
  return page.append(rest);
}

}  // namespace cairn
