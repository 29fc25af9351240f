#include "launcher/byte_size.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace cairn {
namespace {

constexpr absl::string_view kUnits = "kmgt";

}  // namespace

bool AbslParseFlag(absl::string_view text, ByteSize* size, std::string* error) {
  const std::string lower = absl::AsciiStrToLower(text);
  absl::string_view number = absl::StripAsciiWhitespace(lower);
  const bool binary = absl::ConsumeSuffix(&number, "ib"), decimal = !binary && absl::ConsumeSuffix(&number, "b");
  const size_t power = number.empty() ? absl::string_view::npos : kUnits.find(number.back());
  double value = 0;
  int64_t whole = 0;
  if (power != absl::string_view::npos) {
    number.remove_suffix(1);
    const double unit = std::pow(decimal ? 1000.0 : 1024.0, static_cast<double>(power + 1));
    if (absl::SimpleAtod(number, &value) && value >= 0 && value * unit < 9e18) {
      size->bytes = std::llround(value * unit);
      return true;
    }
  } else if (!binary && absl::SimpleAtoi(number, &whole) && whole >= 0) {
    size->bytes = whole;
    return true;
  }
  *error = "expected bytes such as 2GiB, 512M or 1073741824";
  return false;
}

std::string AbslUnparseFlag(const ByteSize& size) { return absl::StrCat(size.bytes); }

std::string FormatBytes(double bytes) {
  constexpr const char* kNames[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  while (bytes >= 1024 && unit < 4) {
    bytes /= 1024;
    ++unit;
  }
  return unit == 0 ? absl::StrFormat("%.0f B", bytes) : absl::StrFormat("%.2f %s", bytes, kNames[unit]);
}

}  // namespace cairn
