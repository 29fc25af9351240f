// Early return on a failed absl::Status; Debian's Abseil (20220623) has no such macros.
#ifndef CAIRN_KERNELS_CORE_STATUS_MACROS_H_
#define CAIRN_KERNELS_CORE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define CAIRN_RETURN_IF_ERROR(expr)                                                     \
  do {                                                                                  \
    if (absl::Status cairn_status_ = (expr); !cairn_status_.ok()) return cairn_status_; \
  } while (false)

#define CAIRN_CONCAT_INNER_(a, b) a##b
#define CAIRN_CONCAT_(a, b) CAIRN_CONCAT_INNER_(a, b)

// CAIRN_ASSIGN_OR_RETURN(auto x, MakeX()): returns the error, or declares and fills the left side.
#define CAIRN_ASSIGN_OR_RETURN(lhs, expr) CAIRN_ASSIGN_OR_RETURN_IMPL_(CAIRN_CONCAT_(cairn_or_, __LINE__), lhs, expr)
#define CAIRN_ASSIGN_OR_RETURN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) return tmp.status();                \
  lhs = std::move(tmp).value()

#endif  // CAIRN_KERNELS_CORE_STATUS_MACROS_H_
