#include "launcher/batch/batch_root.h"

#include <optional>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

// Lines dealt between two steps: a long run of bad lines must not keep the replicas waiting.
constexpr int kMaxLinesPerDeal = 4096;
constexpr double kIdleWaitSeconds = 0.05;

}  // namespace

int64_t BatchTotals::generated_tokens() const {
  int64_t sum = 0;
  for (const ReplicaStatus& replica : replicas) sum += replica.stats.generated_tokens;
  return sum;
}

int64_t BatchTotals::running() const {
  int64_t sum = 0;
  for (const ReplicaStatus& replica : replicas) sum += replica.running;
  return sum;
}

BatchRoot::BatchRoot(Job job) : job_(std::move(job)) {
  replicas_.push_back({job_.world.rank(), 0, Clock::now()});
  for (int leader : job_.other_leaders) replicas_.push_back({leader, 0, Clock::now()});
  totals_.replicas.resize(replicas_.size());
}

// The replica with the fewest answers in flight that can take more, so that a short file is spread over all of them.
BatchRoot::Replica* BatchRoot::LeastLoaded() {
  Replica* best = nullptr;
  for (Replica& replica : replicas_) {
    if (replica.answers_in_flight >= job_.replica_capacity) continue;
    if (best == nullptr || replica.answers_in_flight < best->answers_in_flight) best = &replica;
  }
  return best;
}

absl::Status BatchRoot::DealLine(Replica& replica, InputLine line) {
  ParsedItem parsed = ParseBatchItem(line);
  BatchItem& item = parsed.item;
  if (!item.custom_id.empty() && !id_hashes_.insert(absl::Hash<std::string>()(item.custom_id)).second) {
    parsed.error =
        ItemError{"duplicate_custom_id",
                  absl::StrCat("line ", line.number, ": an earlier line has the custom_id '", item.custom_id, "'")};
  }
  if (job_.answered != nullptr && job_.answered->contains(item.custom_id)) return absl::OkStatus();
  if (parsed.error.has_value()) return Finish(job_.records.Failure(item, *parsed.error));
  const size_t index = static_cast<size_t>(&replica - replicas_.data());
  in_flight_[line.number] = {index, item.sampling.n};
  if (replica.answers_in_flight == 0) replica.last_heard = Clock::now();
  replica.answers_in_flight += item.sampling.n;
  if (index > 0) return SendItem(job_.world, replica.leader, line);
  CAIRN_ASSIGN_OR_RETURN(const std::optional<Record> refused, job_.worker.Add(std::move(item)));
  return refused.has_value() ? Finish(*refused) : absl::OkStatus();
}

absl::Status BatchRoot::Deal() {
  for (int lines = 0; !end_of_input_ && lines < kMaxLinesPerDeal; ++lines) {
    Replica* replica = LeastLoaded();
    if (replica == nullptr) return absl::OkStatus();
    CAIRN_ASSIGN_OR_RETURN(std::optional<InputLine> line, job_.reader.Next());
    if (line.has_value()) {
      CAIRN_RETURN_IF_ERROR(DealLine(*replica, *std::move(line)));
    } else {
      end_of_input_ = true;
    }
  }
  return absl::OkStatus();
}

absl::Status BatchRoot::Finish(const Record& record) {
  CAIRN_RETURN_IF_ERROR((record.ok ? job_.results : job_.errors).Write(record.json));
  if (const auto found = in_flight_.find(record.line); found != in_flight_.end()) {
    replicas_[found->second.replica].answers_in_flight -= found->second.answers;
    in_flight_.erase(found);
  }
  (record.ok ? totals_.ok : totals_.failed) += 1;
  totals_.counts.prompt_tokens += record.counts.prompt_tokens;
  totals_.counts.completion_tokens += record.counts.completion_tokens;
  totals_.counts.reasoning_tokens += record.counts.reasoning_tokens;
  totals_.counts.answers += record.counts.answers;
  totals_.counts.answers_cut += record.counts.answers_cut;
  return absl::OkStatus();
}

// All that the other leaders sent; where nothing is there, waits for the first message.
absl::Status BatchRoot::Collect(double wait_seconds) {
  while (!job_.other_leaders.empty()) {
    CAIRN_ASSIGN_OR_RETURN(const std::optional<LeaderMessage> message, ReceiveFromLeader(job_.world, wait_seconds));
    if (!message.has_value()) break;
    wait_seconds = 0;
    size_t index = 1;
    while (replicas_[index].leader != message->leader) ++index;
    replicas_[index].last_heard = Clock::now();
    if (message->record.has_value()) {
      CAIRN_RETURN_IF_ERROR(Finish(*message->record));
    } else {
      totals_.replicas[index] = message->status;
    }
  }
  return absl::OkStatus();
}

absl::Status BatchRoot::CheckNobodyIsLost() const {
  for (size_t i = 1; i < replicas_.size(); ++i) {
    const double silence = std::chrono::duration<double>(Clock::now() - replicas_[i].last_heard).count();
    if (replicas_[i].answers_in_flight > 0 && silence > job_.timeout_seconds) {
      return absl::DeadlineExceededError(absl::StrCat("the replica led by rank ", replicas_[i].leader,
                                                      " has work and was silent for ", static_cast<int64_t>(silence),
                                                      " s (--distributed-timeout-seconds)"));
    }
  }
  return absl::OkStatus();
}

void BatchRoot::UpdateOwnStatus() {
  totals_.replicas[0] = {job_.worker.engine().stats(), job_.worker.engine().num_running(), false};
}

absl::Status BatchRoot::Work() {
  if (!job_.worker.HasWork()) return Collect(in_flight_.empty() ? 0 : kIdleWaitSeconds);
  CAIRN_ASSIGN_OR_RETURN(const std::vector<Record> records, job_.worker.Step());
  for (const Record& record : records) CAIRN_RETURN_IF_ERROR(Finish(record));
  return Collect(0);
}

absl::Status BatchRoot::StopLeaders() {
  for (size_t i = 1; i < replicas_.size(); ++i) CAIRN_RETURN_IF_ERROR(SendStop(job_.world, replicas_[i].leader));
  const Clock::time_point begin = Clock::now();
  for (size_t i = 1; i < replicas_.size(); ++i) {
    while (!totals_.replicas[i].stopped) {
      CAIRN_RETURN_IF_ERROR(Collect(kIdleWaitSeconds));
      if (std::chrono::duration<double>(Clock::now() - begin).count() > job_.timeout_seconds) {
        return absl::DeadlineExceededError(absl::StrCat("the replica led by rank ", replicas_[i].leader,
                                                        " did not stop within ", job_.timeout_seconds, " s"));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status BatchRoot::Run() {
  while (true) {
    if (job_.should_stop()) {
      totals_.interrupted = true;
      break;
    }
    CAIRN_RETURN_IF_ERROR(Deal());
    if (end_of_input_ && in_flight_.empty()) break;
    CAIRN_RETURN_IF_ERROR(Work());
    CAIRN_RETURN_IF_ERROR(CheckNobodyIsLost());
    CAIRN_RETURN_IF_ERROR(job_.results.SyncIfDue());
    CAIRN_RETURN_IF_ERROR(job_.errors.SyncIfDue());
    UpdateOwnStatus();
    job_.on_progress(totals_);
  }
  if (totals_.interrupted) CAIRN_RETURN_IF_ERROR(job_.worker.CancelAll());
  CAIRN_RETURN_IF_ERROR(StopLeaders());
  UpdateOwnStatus();
  return absl::OkStatus();
}

}  // namespace cairn
