#include "engine/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// A match that needs more than this is a pattern gone wrong: the patterns in use stay below a few steps per byte, and
// the longest text that a request can bring is tens of MB.
constexpr uint32_t kMatchLimit = 1'000'000'000;
constexpr size_t kJitStackFirst = 32 << 10, kJitStackMost = 16 << 20;

std::string ErrorText(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Scratch::State {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(kJitStackFirst, kJitStackMost, nullptr);

  State() {
    CAIRN_CHECK(data != nullptr && context != nullptr, "out of memory");
    pcre2_set_match_limit(context, kMatchLimit);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);  // null where PCRE2 has no JIT
  }
  ~State() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
};

Regex::Scratch::Scratch() = default;
Regex::Scratch::~Scratch() = default;

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  CAIRN_ASSIGN_OR_RETURN(const std::string translated, TranslateRegex(pattern));
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  CAIRN_CHECK(context != nullptr, "out of memory");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // what "." leaves out in Oniguruma
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get());
  if (code == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("regular expression \"", std::string(pattern), "\" does not compile: ", ErrorText(error)));
  }
  std::shared_ptr<const void> owner(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
  uint32_t matches_empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &matches_empty);
  if (matches_empty != 0) {
    return absl::InvalidArgumentError(absl::StrCat("regular expression \"", std::string(pattern),
                                                   "\" can match the empty string, which is not supported"));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without a JIT matching is only slower
  return Regex(std::move(owner));
}

bool Regex::Find(std::string_view text, size_t from, Scratch* scratch, size_t* begin, size_t* end) const {
  if (scratch->state_ == nullptr) scratch->state_ = std::make_unique<Scratch::State>();
  const Scratch::State& state = *scratch->state_;
  const int found = pcre2_match(static_cast<const pcre2_code*>(code_.get()), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                text.size(), from, PCRE2_NO_UTF_CHECK, state.data, state.context);
  if (found < 0) {
    static std::atomic<bool> told = false;
    if (found != PCRE2_ERROR_NOMATCH && !told.exchange(true)) {
      std::fprintf(
          stderr,
          "warning: tokenizer: a pre-tokenizer pattern failed on a text of %zu bytes (%s); the rest of that text "
          "was encoded unsplit\n",
          text.size(), ErrorText(found).c_str());
    }
    return false;
  }
  const size_t* bounds = pcre2_get_ovector_pointer(state.data);
  *begin = bounds[0];
  *end = bounds[1];
  return true;
}

}  // namespace cairn
