// An engine that answers without a model: a prompt of N token ids takes N steps.
#ifndef CAIRN_TESTS_LAUNCHER_BATCH_FAKE_ENGINE_H_
#define CAIRN_TESTS_LAUNCHER_BATCH_FAKE_ENGINE_H_

#include <algorithm>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "launcher/batch/batch_engine.h"

namespace cairn {

class FakeEngine : public BatchEngine {
 public:
  static constexpr int64_t kContext = 100;
  static constexpr int32_t kPoison = 666;  // a prompt that begins with it breaks the step

  explicit FakeEngine(int64_t max_running = 4) : max_running_(max_running) {}

  absl::Status Add(Request request) override {
    if (request.prompt_ids.empty()) return absl::InvalidArgumentError("the prompt is empty");
    if (static_cast<int64_t>(request.prompt_ids.size()) > kContext) return absl::OutOfRangeError("too long by far");
    work_.push_back({std::move(request), 0});
    most_unfinished_ = std::max<int64_t>(most_unfinished_, static_cast<int64_t>(work_.size()));
    ++added_;
    return absl::OkStatus();
  }

  absl::Status Cancel(const std::string& id) override {
    work_.remove_if([&](const auto& entry) { return entry.first.id == id; });
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<RequestOutput>> Step() override {
    ++stats_.steps;
    std::vector<RequestOutput> outputs;
    int64_t running = 0;
    for (auto it = work_.begin(); it != work_.end() && running < max_running_; ++running) {
      auto& [request, steps] = *it;
      if (request.prompt_ids[0] == kPoison) return absl::InternalError("the fake engine broke");
      ++steps;
      ++stats_.generated_tokens;
      RequestOutput output;
      output.id = request.id;
      output.finished = steps == static_cast<int64_t>(request.prompt_ids.size());
      output.prompt_tokens = static_cast<int64_t>(request.prompt_ids.size());
      for (int index = 0; index < request.sampling.n; ++index) {
        Completion& completion = output.completions.emplace_back();
        completion.index = index;
        completion.text = "answer to " + request.id;
        completion.token_ids.assign(static_cast<size_t>(steps), 1);
        if (output.finished) completion.finish_reason = FinishReason::kLength;
      }
      const bool finished = output.finished;
      outputs.push_back(std::move(output));
      it = finished ? work_.erase(it) : std::next(it);
    }
    stats_.peak_running = std::max(stats_.peak_running, running);
    return outputs;
  }

  bool HasWork() const override { return !work_.empty(); }
  int64_t num_running() const override { return std::min<int64_t>(max_running_, static_cast<int64_t>(work_.size())); }
  EngineStats stats() const override { return stats_; }

  int64_t most_unfinished() const { return most_unfinished_; }
  int64_t added() const { return added_; }

 private:
  int64_t max_running_;
  std::list<std::pair<Request, int64_t>> work_;  // and the steps that each has had
  EngineStats stats_;
  int64_t most_unfinished_ = 0, added_ = 0;
};

}  // namespace cairn

#endif  // CAIRN_TESTS_LAUNCHER_BATCH_FAKE_ENGINE_H_
