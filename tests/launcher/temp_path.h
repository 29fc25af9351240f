// A file name of this process's own: ctest runs the cases of one fixture side by side.
#ifndef CAIRN_TESTS_LAUNCHER_TEMP_PATH_H_
#define CAIRN_TESTS_LAUNCHER_TEMP_PATH_H_

#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace cairn {

inline std::string TempPath(const char* name) {
  return absl::StrCat(::testing::TempDir(), "/cairn_", getpid(), "_", name);
}

}  // namespace cairn

#endif  // CAIRN_TESTS_LAUNCHER_TEMP_PATH_H_
