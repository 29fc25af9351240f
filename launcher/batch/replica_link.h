// What travels between rank 0, which reads the requests and writes the results, and the leaders of the other replicas.
#ifndef CAIRN_LAUNCHER_BATCH_REPLICA_LINK_H_
#define CAIRN_LAUNCHER_BATCH_REPLICA_LINK_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "launcher/batch/line_reader.h"
#include "launcher/batch/record.h"
#include "launcher/batch/replica_worker.h"
#include "parallel/comm/control_channel.h"

namespace cairn {

// Rank 0 to a leader: an item, or (none) the word to stop, finished or not.
absl::Status SendItem(ControlChannel& world, int leader, const InputLine& line);
absl::Status SendStop(ControlChannel& world, int leader);

// How a replica is doing.
struct ReplicaStatus {
  EngineStats stats;
  int64_t running = 0;
  bool stopped = false;  // the last message of this leader
};

// A leader to rank 0: one of the two.
struct LeaderMessage {
  int leader = 0;  // world rank
  std::optional<Record> record;
  ReplicaStatus status;
};

// The next message of any leader; none within `timeout_seconds` (0: without waiting).
absl::StatusOr<std::optional<LeaderMessage>> ReceiveFromLeader(ControlChannel& world, double timeout_seconds);

// The loop of a leader that is not rank 0: takes items, answers with records, until rank 0 says stop. Leaves the engine
// to be shut down by the caller. A status goes out every `status_interval_seconds` while there is work.
absl::Status ServeItems(ControlChannel& world, ReplicaWorker& worker, double status_interval_seconds);

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_REPLICA_LINK_H_
