// Rank 0's part of a batch: reads the requests, deals them to the replicas, writes the results; steps its own replica
// meanwhile.
#ifndef CAIRN_LAUNCHER_BATCH_BATCH_ROOT_H_
#define CAIRN_LAUNCHER_BATCH_BATCH_ROOT_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "launcher/batch/line_reader.h"
#include "launcher/batch/record.h"
#include "launcher/batch/replica_link.h"
#include "launcher/batch/replica_worker.h"
#include "launcher/batch/result_writer.h"
#include "parallel/comm/control_channel.h"

namespace cairn {

struct BatchTotals {
  int64_t ok = 0, failed = 0;  // records on their way to the disk
  RecordCounts counts;
  std::vector<ReplicaStatus> replicas;  // the latest of each; final once the run is over
  bool interrupted = false;

  int64_t done() const { return ok + failed; }
  int64_t generated_tokens() const;  // those of requests under way included
  int64_t running() const;
};

class BatchRoot {
 public:
  struct Job {
    LineReader& reader;
    LineFile& results;
    LineFile& errors;  // may be `results`
    const RecordBuilder& records;
    ReplicaWorker& worker;  // rank 0's own replica
    ControlChannel& world;
    std::vector<int> other_leaders;  // world ranks
    // Answers that a replica is given at once: what it runs and enough waiting that it never runs dry between two
    // looks.
    int64_t replica_capacity = 0;
    double timeout_seconds = 0;  // a replica that has work and is silent for so long is lost
    std::function<bool()> should_stop;
    std::function<void(const BatchTotals&)> on_progress;  // after every step
    // Requests of these custom_ids have records already and are left out; may be null.
    const absl::flat_hash_set<std::string>* answered = nullptr;
  };
  explicit BatchRoot(Job job);

  // Until every item has its record, or should_stop: then the other leaders are told to stop, and what was not finished
  // has no record. Leaves rank 0's engine to be shut down by the caller.
  absl::Status Run();
  const BatchTotals& totals() const { return totals_; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Replica {
    int leader = 0;
    int64_t answers_in_flight = 0;
    Clock::time_point last_heard;
  };
  struct InFlight {
    size_t replica = 0;
    int64_t answers = 0;
  };

  Replica* LeastLoaded();
  absl::Status Deal();
  absl::Status DealLine(Replica& replica, InputLine line);
  absl::Status Work();
  absl::Status Collect(double wait_seconds);
  absl::Status Finish(const Record& record);
  absl::Status CheckNobodyIsLost() const;
  absl::Status StopLeaders();
  void UpdateOwnStatus();

  Job job_;
  BatchTotals totals_;
  std::vector<Replica> replicas_;                     // 0 is rank 0's own
  absl::flat_hash_map<int64_t, InFlight> in_flight_;  // by input line; bounded by the replicas' capacity
  // Of every id so far, about 16 bytes each. Two of a million different ids share a hash once in 40 million such files.
  absl::flat_hash_set<uint64_t> id_hashes_;
  bool end_of_input_ = false;
};

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_BATCH_ROOT_H_
