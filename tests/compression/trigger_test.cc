#include "compression/trigger.h"

#include "compression/budget.h"
#include "tests/compression/golden.h"

namespace cairn {
namespace {

struct Event {
  int64_t length;
  std::vector<int64_t> before, after;
  bool operator==(const Event&) const = default;
};

struct Trace {
  std::vector<Event> events;
  std::vector<int64_t> final, peak;
};

// Feeds a prompt in chunks of at most `chunk` tokens, then decodes; an event brings every layer that is above its
// budget down to it. Lengths are kept here as a cache would, and SequenceLength must say the same.
Trace Follow(const Trigger& trigger, int64_t prompt, int64_t forwards, const std::vector<int32_t>& budgets,
             int64_t chunk) {
  Trace trace;
  std::vector<int64_t> slots(budgets.size()), peak(budgets.size());
  SequenceLength length;
  while (length.fed < prompt + forwards) {
    int64_t next = length.fed + 1;
    if (length.fed < prompt) {
      next = std::min({length.fed + chunk, prompt, trigger.ChunkEnd(prompt, length.fed)});
      EXPECT_GT(next, length.fed);
    }
    for (size_t l = 0; l < slots.size(); ++l) {
      slots[l] += next - length.fed;
      peak[l] = std::max(peak[l], slots[l]);
    }
    length.fed = next;
    if (trigger.EventAt(prompt, length.fed)) {
      Event event = {length.fed, slots, slots};
      for (size_t l = 0; l < slots.size(); ++l) event.after[l] = std::min<int64_t>(slots[l], budgets[l]);
      slots = event.after;
      trace.events.push_back(event);
      length.fed_at_event = length.fed;
    }
    for (size_t l = 0; l < slots.size(); ++l) EXPECT_EQ(length.slots(budgets[l]), slots[l]);
  }
  trace.final = slots;
  trace.peak = peak;
  return trace;
}

CompressionConfig ConfigOf(const Json& trace) {
  CompressionConfig config;
  config.algorithm = "rkv";
  config.buffer = trace["buffer"];
  config.prefill = trace["compress_prompt"];
  config.decode = trace["compress_decode"];
  int64_t sum = 0;
  for (int32_t budget : trace["budgets"]) sum += budget;
  config.budget = static_cast<int32_t>(sum / static_cast<int64_t>(trace["budgets"].size()));
  return config;
}

// The same events whatever the prompt's chunks (a chunk of 1000 is the whole prompt).
TEST(TriggerTest, GoldenTracesForEveryChunkSize) {
  const Json file = ReadGolden("trigger");
  ASSERT_EQ(file["expected"]["traces"].size(), 13);
  for (const Json& golden : file["expected"]["traces"]) {
    const std::vector<int32_t> budgets = golden["budgets"];
    const Trigger trigger(ConfigOf(golden), budgets);
    for (int64_t chunk : {1, 3, 7, 64, 128, 1000}) {
      SCOPED_TRACE(absl::StrCat("prompt ", golden["prompt_len"].get<int>(), " chunk ", chunk));
      const Trace trace = Follow(trigger, golden["prompt_len"], golden["decode_forwards"], budgets, chunk);
      std::vector<Event> expected;
      for (const Json& event : golden["events"]) {
        expected.push_back({event["logical_len"], event["before"], event["after"]});
      }
      EXPECT_TRUE(trace.events == expected);
      EXPECT_EQ(trace.final, golden["final"].get<std::vector<int64_t>>());
      EXPECT_EQ(trace.peak, golden["peak"].get<std::vector<int64_t>>());
    }
  }
}

// A bounded prefill never holds more than K + b slots in a layer, the prompt's chunks included.
TEST(TriggerTest, BoundedPrefillHoldsItsBound) {
  CompressionConfig config;
  config.algorithm = "rkv";
  config.buffer = 16;
  config.bounded_prefill = true;
  const std::vector<int32_t> budgets = {60, 40, 20};
  const Trigger trigger(config, budgets);
  for (int64_t prompt : {1, 35, 36, 37, 200, 1000}) {
    std::vector<Event> first;
    for (int64_t chunk : {1, 5, 16, 17, 1000}) {
      const Trace trace = Follow(trigger, prompt, 100, budgets, chunk);
      for (size_t l = 0; l < budgets.size(); ++l) EXPECT_LE(trace.peak[l], budgets[l] + config.buffer);
      if (first.empty()) first = trace.events;
      EXPECT_TRUE(trace.events == first) << "prompt " << prompt << " chunk " << chunk;
    }
  }
}

// Once in a window of decoded tokens, back from the first event and on from each, never with one.
TEST(TriggerTest, ObservesOnceInAWindow) {
  CompressionConfig config;
  config.algorithm = "rkv-history";
  config.window = 8;
  config.buffer = 20;
  const auto observed = [&](int64_t prompt, int64_t end) {
    const Trigger trigger(config, {40, 30});
    std::vector<int64_t> lengths;
    for (int64_t fed = 1; fed <= end; ++fed) {
      if (trigger.ObservesAt(prompt, fed)) lengths.push_back(fed);
      EXPECT_FALSE(trigger.ObservesAt(prompt, fed) && trigger.EventAt(prompt, fed));
    }
    return lengths;
  };
  // Events at 50, 70 and 90.
  EXPECT_EQ(observed(20, 95), (std::vector<int64_t>{26, 34, 42, 58, 66, 78, 86}));
  EXPECT_EQ(observed(3, 60), (std::vector<int64_t>{10, 18, 26, 34, 42, 58}));  // not before there is a window
  EXPECT_EQ(observed(60, 85), (std::vector<int64_t>{68, 76}));                 // compressed when it has been read
  config.prefill = false;
  EXPECT_EQ(observed(60, 101), (std::vector<int64_t>{64, 72, 88, 96}));  // events at 80 and 100
  config.algorithm = "rkv";
  EXPECT_TRUE(observed(20, 95).empty());
}

TEST(TriggerTest, NothingHappensWithoutCompression) {
  const Trigger trigger(CompressionConfig{}, {16});
  for (int64_t fed = 1; fed < 1000; ++fed) EXPECT_FALSE(trigger.EventAt(500, fed));
  EXPECT_GE(trigger.ChunkEnd(500, 3), 500);
}

}  // namespace
}  // namespace cairn
