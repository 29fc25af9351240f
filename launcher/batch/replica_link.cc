#include "launcher/batch/replica_link.h"

#include <chrono>
#include <utility>
#include <vector>

#include "engine/scheduler/wire.h"
#include "kernels/core/check.h"
#include "kernels/core/status_macros.h"

namespace cairn {
namespace {

constexpr int kRoot = 0;
constexpr int kItemTag = 40, kLeaderTag = 41;
enum class Kind : uint8_t { kItem, kStop, kRecord, kStatus };

absl::Status SendRecord(ControlChannel& world, const Record& record) {
  WireWriter message;
  message.Put(Kind::kRecord);
  message.Put(record.line);
  message.Put(record.ok);
  message.Put(record.counts);
  message.PutString(record.json);
  return world.Send(kRoot, kLeaderTag, message.Take());
}

absl::Status SendStatus(ControlChannel& world, const ReplicaStatus& status) {
  WireWriter message;
  message.Put(Kind::kStatus);
  message.Put(status);
  return world.Send(kRoot, kLeaderTag, message.Take());
}

LeaderMessage ParseLeaderMessage(const ControlMessage& message) {
  WireReader reader(message.bytes);
  LeaderMessage parsed;
  parsed.leader = message.source;
  if (reader.Get<Kind>() == Kind::kStatus) {
    parsed.status = reader.Get<ReplicaStatus>();
    return parsed;
  }
  Record& record = parsed.record.emplace();
  record.line = reader.Get<int64_t>();
  record.ok = reader.Get<bool>();
  record.counts = reader.Get<RecordCounts>();
  record.json = reader.GetString();
  return parsed;
}

// False: rank 0 said stop.
absl::StatusOr<bool> TakeItem(ControlChannel& world, const ControlMessage& message, ReplicaWorker& worker) {
  WireReader reader(message.bytes);
  if (reader.Get<Kind>() == Kind::kStop) return false;
  InputLine line;
  line.number = reader.Get<int64_t>();
  line.text = reader.GetString();
  ParsedItem parsed = ParseBatchItem(line);
  CAIRN_CHECK(!parsed.error.has_value(), "rank 0 dealt a bad item: ", parsed.error->message);
  CAIRN_ASSIGN_OR_RETURN(const std::optional<Record> refused, worker.Add(std::move(parsed.item)));
  if (refused.has_value()) CAIRN_RETURN_IF_ERROR(SendRecord(world, *refused));
  return true;
}

}  // namespace

absl::Status SendItem(ControlChannel& world, int leader, const InputLine& line) {
  WireWriter message;
  message.Put(Kind::kItem);
  message.Put(line.number);
  message.PutString(line.text);
  return world.Send(leader, kItemTag, message.Take());
}

absl::Status SendStop(ControlChannel& world, int leader) {
  WireWriter message;
  message.Put(Kind::kStop);
  return world.Send(leader, kItemTag, message.Take());
}

absl::StatusOr<std::optional<LeaderMessage>> ReceiveFromLeader(ControlChannel& world, double timeout_seconds) {
  CAIRN_ASSIGN_OR_RETURN(const std::optional<ControlMessage> ready,
                         world.TryRecv(ControlChannel::kAnySource, kLeaderTag));
  if (ready.has_value()) return ParseLeaderMessage(*ready);
  if (timeout_seconds <= 0) return std::nullopt;
  const absl::StatusOr<ControlMessage> message = world.Recv(ControlChannel::kAnySource, kLeaderTag, timeout_seconds);
  if (absl::IsDeadlineExceeded(message.status())) return std::nullopt;
  if (!message.ok()) return message.status();
  return ParseLeaderMessage(*message);
}

absl::Status ServeItems(ControlChannel& world, ReplicaWorker& worker, double status_interval_seconds) {
  using Clock = std::chrono::steady_clock;
  const auto send_status = [&](bool stopped) {
    return SendStatus(world, {worker.engine().stats(), worker.engine().num_running(), stopped});
  };
  Clock::time_point last_status = Clock::now();
  while (true) {
    std::optional<ControlMessage> message;
    if (worker.HasWork()) {
      CAIRN_ASSIGN_OR_RETURN(message, world.TryRecv(kRoot, kItemTag));
    } else {
      CAIRN_ASSIGN_OR_RETURN(message, world.Recv(kRoot, kItemTag));
    }
    if (message.has_value()) {  // all that came, before the next step
      CAIRN_ASSIGN_OR_RETURN(const bool go_on, TakeItem(world, *message, worker));
      if (!go_on) break;
      continue;
    }
    CAIRN_ASSIGN_OR_RETURN(const std::vector<Record> records, worker.Step());
    for (const Record& record : records) CAIRN_RETURN_IF_ERROR(SendRecord(world, record));
    if (std::chrono::duration<double>(Clock::now() - last_status).count() >= status_interval_seconds) {
      CAIRN_RETURN_IF_ERROR(send_status(false));
      last_status = Clock::now();
    }
  }
  CAIRN_RETURN_IF_ERROR(worker.CancelAll());
  return send_status(true);
}

}  // namespace cairn
