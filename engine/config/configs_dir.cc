#include "engine/config/configs_dir.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace cairn {

namespace fs = std::filesystem;

std::string ConfigsDirectory() {
  if (const char* chosen = std::getenv("CAIRN_CONFIGS_DIR"); chosen != nullptr && *chosen != '\0') return chosen;
  std::error_code error;
  const fs::path binary = fs::read_symlink("/proc/self/exe", error);
  const fs::path beside = (binary.parent_path() / "../../configs").lexically_normal();
  if (!error && fs::is_directory(beside, error)) return beside.string();
  return CAIRN_CONFIGS_SOURCE_DIR;
}

absl::StatusOr<std::string> FindConfig(const std::string& kind, const std::string& name_or_path) {
  if (absl::StrContains(name_or_path, "/") || absl::EndsWith(name_or_path, ".yaml") ||
      absl::EndsWith(name_or_path, ".yml"))
    return name_or_path;
  const fs::path directory = fs::path(ConfigsDirectory()) / kind;
  const fs::path path = directory / absl::StrCat(name_or_path, ".yaml");
  std::error_code error;
  if (fs::exists(path, error)) return path.string();
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".yaml") names.push_back(entry.path().stem().string());
  }
  std::sort(names.begin(), names.end());
  return absl::NotFoundError(absl::StrCat("no \"", name_or_path, "\" in ", directory.string(), " (there: ",
                                          names.empty() ? "nothing; set CAIRN_CONFIGS_DIR" : absl::StrJoin(names, ", "),
                                          "); a path must contain a slash or end in .yaml"));
}

}  // namespace cairn
