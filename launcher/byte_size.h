// A number of bytes as people write it: 2GiB, 512M, 1073741824.
#ifndef CAIRN_LAUNCHER_BYTE_SIZE_H_
#define CAIRN_LAUNCHER_BYTE_SIZE_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace cairn {

struct ByteSize {
  int64_t bytes = 0;
};

// Suffixes K, M, G, T, with or without "B" (1000s: kB, MB, GB ...) or "iB" (1024s). A bare K, M, G, T counts 1024s, as
// `512M` does in most commands. Case does not matter; a fraction is allowed before a suffix (1.5GiB).
bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error);
std::string AbslUnparseFlag(const ByteSize& size);

// For people: "1.50 GiB", "640 B".
std::string FormatBytes(double bytes);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BYTE_SIZE_H_
