// A needle in a haystack: one number to be found again in a long text, at given lengths and depths.
//
// The needle and its question are worded as in RULER (arXiv 2404.06654, niah_single). Without a text of its own the
// haystack is made up: sentences that differ from one another, so that no part of it is redundant.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/runner/philox.h"
#include "kernels/core/fnv1a.h"
#include "kernels/core/status_macros.h"
#include "launcher/eval/answer_text.h"
#include "launcher/eval/task.h"
#include "launcher/exit_codes.h"

namespace cairn {
namespace {

constexpr int kDefaultQuestions = 5;
constexpr int32_t kMaxTokens = 48;
constexpr char kIntroduction[] =
    "Some special magic numbers are hidden within the following text. Make sure to memorize them. I will quiz you "
    "about "
    "the numbers afterwards.\n";

// Draws that depend on the seed and the question alone.
class Random {
 public:
  Random(int64_t seed, uint64_t key) : seed_(static_cast<uint64_t>(seed)), key_(key) {}
  int64_t Below(int64_t bound) {
    return std::min(bound - 1,
                    static_cast<int64_t>(PhiloxUniform(seed_, key_, 0, counter_++) * static_cast<double>(bound)));
  }
  template <size_t n>
  const char* Of(const char* const (&words)[n]) {
    return words[Below(n)];
  }

 private:
  uint64_t seed_, key_;
  uint32_t counter_ = 0;
};

constexpr const char* kAdjectives[] = {"quiet",   "amber",   "distant", "narrow", "gentle", "hollow",
                                       "crimson", "patient", "silver",  "frozen", "eager",  "faded",
                                       "humble",  "golden",  "stormy",  "velvet"};
constexpr const char* kNouns[] = {"harbor",  "lantern", "orchard", "meadow", "engine", "garden", "river",  "ladder",
                                  "compass", "window",  "teapot",  "bridge", "market", "violin", "forest", "station"};
constexpr const char* kPeople[] = {"The baker", "My neighbour", "A carpenter",  "The teacher",
                                   "Her uncle", "The pilot",    "The gardener", "An old sailor",
                                   "The clerk", "A painter",    "The nurse",    "His sister"};
constexpr const char* kVerbs[] = {"carried", "repaired",  "forgot", "painted", "borrowed", "admired",
                                  "sold",    "described", "found",  "cleaned", "measured", "photographed"};
constexpr const char* kTimes[] = {"before breakfast",  "on a rainy Tuesday", "late in the autumn",
                                  "after the concert", "in early spring",    "during the long strike",
                                  "without a word",    "for the third time", "at the end of May",
                                  "while it snowed",   "as everyone slept",  "with great care"};

std::string MadeUpSentence(Random& random) {
  std::string text = random.Of(kPeople);
  // One draw after the other: the order in which arguments are evaluated is the compiler's.
  absl::StrAppend(&text, " ", random.Of(kVerbs));
  absl::StrAppend(&text, " the ", random.Of(kAdjectives));
  absl::StrAppend(&text, " ", random.Of(kNouns));
  absl::StrAppend(&text, " near the ", random.Of(kNouns));
  absl::StrAppend(&text, " ", random.Of(kTimes), ".");
  return text;
}

// The text's sentences, each without line breaks.
std::vector<std::string> SentencesOf(const std::string& text) {
  std::vector<std::string> sentences;
  std::string current;
  for (const char c : text) {
    if (!absl::ascii_isspace(c)) {
      current.push_back(c);
    } else if (!current.empty() && current.back() != ' ') {
      const char last = current.back();
      if ((last == '.' || last == '!' || last == '?') && current.size() > 20) {
        sentences.push_back(std::move(current));
        current.clear();
      } else {
        current.push_back(' ');
      }
    }
  }
  if (!Trim(current).empty()) sentences.push_back(Trim(current));
  return sentences;
}

struct Haystack {
  std::vector<std::string> sentences;  // of a text; empty: made up
  std::string Next(Random& random, int64_t start, int64_t index) const {
    if (sentences.empty()) return MadeUpSentence(random);
    return sentences[static_cast<size_t>((start + index) % static_cast<int64_t>(sentences.size()))];
  }
};

struct Needle {
  std::string sentence, question, number;
};

Needle MakeNeedleFor(Random& random) {
  const std::string adjective = random.Of(kAdjectives), noun = random.Of(kNouns);  // in this order
  const std::string key = absl::StrCat(adjective, "-", noun);
  const std::string number = absl::StrCat(1'000'000 + random.Below(9'000'000));
  return {.sentence = absl::StrCat("One of the special magic numbers for ", key, " is: ", number, "."),
          .question = absl::StrCat("What is the special magic number for ", key,
                                   " mentioned in the provided text? Answer with the number."),
          .number = number};
}

std::string Assemble(const std::vector<std::string>& sentences, size_t count, int64_t depth, const Needle& needle) {
  const size_t before = count * static_cast<size_t>(depth) / 100;
  std::string text = kIntroduction;
  for (size_t i = 0; i <= count; ++i) {
    if (i == before) absl::StrAppend(&text, needle.sentence, i == count ? "" : " ");
    if (i < count) absl::StrAppend(&text, sentences[i], i + 1 == count && before < count ? "" : " ");
  }
  return absl::StrCat(text, "\n", needle.question);
}

// As many sentences as make the prompt at most `length` tokens.
absl::StatusOr<std::string> FillTo(const TaskOptions& options, const Haystack& haystack, int64_t length, int64_t depth,
                                   const Needle& needle, Random& random) {
  const int64_t start = haystack.sentences.empty() ? 0 : random.Below(static_cast<int64_t>(haystack.sentences.size()));
  std::vector<std::string> sentences;
  const auto tokens_of = [&](size_t count) {
    while (sentences.size() < count) {
      sentences.push_back(haystack.Next(random, start, static_cast<int64_t>(sentences.size())));
    }
    return options.count_tokens(Assemble(sentences, count, depth, needle));
  };
  CAIRN_ASSIGN_OR_RETURN(const int64_t least, tokens_of(0));
  if (least > length) {
    return UsageError(absl::StrCat("--lengths=", length, ": the question alone has ", least, " tokens"));
  }
  size_t low = 0, high = 1;  // low fits
  while (true) {
    CAIRN_ASSIGN_OR_RETURN(const int64_t tokens, tokens_of(high));
    if (tokens > length) break;
    low = high;
    high *= 2;
  }
  while (high - low > 1) {
    const size_t middle = (low + high) / 2;
    CAIRN_ASSIGN_OR_RETURN(const int64_t tokens, tokens_of(middle));
    (tokens > length ? high : low) = middle;
  }
  return Assemble(sentences, low, depth, needle);
}

absl::StatusOr<Haystack> ReadHaystack(const std::string& path) {
  Haystack haystack;
  if (path.empty()) return haystack;
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  haystack.sentences = SentencesOf(text);
  if (!file || haystack.sentences.empty()) {
    return WithExitCode(
        absl::InvalidArgumentError(absl::StrCat("--input-file ", path, ": no text for a haystack can be read from it")),
        kExitBadInput);
  }
  return haystack;
}

}  // namespace

absl::StatusOr<Task> MakeNeedle(const TaskOptions& options) {
  const std::vector<int64_t> lengths = options.lengths.empty() ? std::vector<int64_t>{2048} : options.lengths;
  const std::vector<int64_t> depths =
      options.depths.empty() ? std::vector<int64_t>{0, 25, 50, 75, 100} : options.depths;
  for (const int64_t depth : depths) {
    if (depth < 0 || depth > 100)
      return UsageError(absl::StrCat("--depths=", depth, ": must be from 0 to 100 percent"));
  }
  for (const int64_t length : lengths) {
    if (length < 1 || length > 1 << 24) return UsageError(absl::StrCat("--lengths=", length, ": must be from 1 token"));
  }
  CAIRN_ASSIGN_OR_RETURN(const Haystack haystack, ReadHaystack(options.file));
  Task task{.source = options.file.empty() ? "a made-up haystack" : options.file,
            .source_hash = Fnv1a(kFnv1aSeed, static_cast<uint64_t>(options.seed)),
            .prompt_template = "{prompt}",
            .max_tokens = kMaxTokens};
  for (const std::string& sentence : haystack.sentences) {
    for (const unsigned char byte : sentence) task.source_hash = Fnv1a(task.source_hash, byte);
  }
  const int32_t count = options.num_questions == 0 ? kDefaultQuestions : options.num_questions;
  for (const int64_t length : lengths) {
    for (const int64_t depth : depths) {
      for (int32_t k = options.first_question; k < options.first_question + count; ++k) {
        uint64_t key = Fnv1a(kFnv1aSeed, static_cast<uint64_t>(length));
        key = Fnv1a(Fnv1a(key, static_cast<uint64_t>(depth)), static_cast<uint64_t>(k));
        Random random(options.seed, key);
        const Needle needle = MakeNeedleFor(random);
        CAIRN_ASSIGN_OR_RETURN(std::string prompt, FillTo(options, haystack, length, depth, needle, random));
        task.questions.push_back({.id = absl::StrCat("needle-", length, "-", depth, "-", k),
                                  .group = absl::StrCat(length, " tokens, depth ", depth, " %"),
                                  .prompt = std::move(prompt),
                                  .expected = {.match = Match::kContains, .answers = {needle.number}},
                                  .max_tokens = std::nullopt});
      }
    }
  }
  return task;
}

}  // namespace cairn
