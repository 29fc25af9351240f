#include "launcher/build_info.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace cairn {

std::string BuildInfo() {
  return absl::StrCat("cairn ", CAIRN_VERSION, " (", absl::AsciiStrToLower(CAIRN_BUILD_TYPE), ", g++ ", __GNUC__, ".",
                      __GNUC_MINOR__, ".", __GNUC_PATCHLEVEL__, ")");
}

}  // namespace cairn
