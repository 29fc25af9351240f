#include "engine/config/json_file.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "kernels/core/status_macros.h"

namespace cairn {

absl::StatusOr<std::string> ReadTextFile(const std::string& path, int64_t max_bytes) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    const std::string why = absl::StrCat(path, ": ", std::strerror(errno));
    return errno == ENOENT || errno == ENOTDIR ? absl::NotFoundError(why) : absl::InvalidArgumentError(why);
  }
  // A FIFO or a device would block or never end.
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  if (info.st_size > max_bytes)
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", info.st_size, " bytes; such a file has at most ", max_bytes));
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(info.st_size), '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  return text;
}

absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path, int64_t max_bytes) {
  CAIRN_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path, max_bytes));
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(text);
  } catch (const nlohmann::json::exception& e) {
    // The message quotes the file, which may hold anything: not more than a line of it.
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not valid JSON: ", absl::string_view(e.what()).substr(0, 300)));
  }
  if (!value.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": the top level must be an object"));
  return value;
}

}  // namespace cairn
