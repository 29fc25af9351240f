// CHECK for our own invariants (a bug stops the program with file, line and message); the world's errors are Status.
#ifndef CAIRN_KERNELS_CORE_CHECK_H_
#define CAIRN_KERNELS_CORE_CHECK_H_

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"

namespace cairn {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition, const std::string& message) {
  std::fprintf(stderr, "%s:%d: check failed: %s %s\n", file, line, condition, message.c_str());
  std::abort();
}

}  // namespace cairn

// CAIRN_CHECK(cond) or CAIRN_CHECK(cond, "expected ", a, ", got ", b): further arguments go through absl::StrCat.
#define CAIRN_CHECK(cond, ...)                                                                      \
  do {                                                                                              \
    if (__builtin_expect(!(cond), 0))                                                               \
      ::cairn::CheckFailed(__FILE__, __LINE__, #cond, absl::StrCat("" __VA_OPT__(, ) __VA_ARGS__)); \
  } while (false)

#endif  // CAIRN_KERNELS_CORE_CHECK_H_
