// Items to records on one replica's leader: renders chats, tokenizes, adds to the engine, steps, writes answers as
// JSON.
#ifndef CAIRN_LAUNCHER_BATCH_REPLICA_WORKER_H_
#define CAIRN_LAUNCHER_BATCH_REPLICA_WORKER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "launcher/batch/batch_engine.h"
#include "launcher/batch/record.h"

namespace cairn {

class ReplicaWorker {
 public:
  // All must outlive it. `tokenizer` may be null (a dummy model): then only prompts of token ids have answers.
  ReplicaWorker(BatchEngine& engine, const Tokenizer* tokenizer, const RecordBuilder& records);

  // The item's error record if it can never run; an error of the engine itself ends the job. custom_ids are unique.
  absl::StatusOr<std::optional<Record>> Add(BatchItem item);
  // One step of the engine; the records of the items that it finished.
  absl::StatusOr<std::vector<Record>> Step();
  // Drops all that has not finished.
  absl::Status CancelAll();

  bool HasWork() const { return engine_.HasWork(); }
  const BatchEngine& engine() const { return engine_; }

 private:
  struct Pending {
    BatchItem item;                   // its prompt is not kept
    std::vector<int32_t> prompt_ids;  // where the record repeats them
  };
  absl::StatusOr<std::vector<int32_t>> PromptIds(const BatchItem& item) const;

  BatchEngine& engine_;
  const Tokenizer* tokenizer_;
  ChatTemplate template_;
  const RecordBuilder& records_;
  absl::flat_hash_map<std::string, Pending> pending_;  // by custom_id
};

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_REPLICA_WORKER_H_
