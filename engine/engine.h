// The library under the command: requests in, tokens out, over tp x pp ranks. Every rank creates an Engine; the leader
// of a replica (tp 0, pp 0) adds requests and steps, the others call Serve and follow.
//
//   auto engine = Engine::Create(options, groups);            // one process: Engine::CreateLocal(options)
//   (*engine)->Add({.id = "a", .prompt_ids = ids, .sampling = params});
//   while ((*engine)->HasWork()) {
//     auto outputs = (*engine)->Step();
//     for (RequestOutput& out : *outputs) ...
//   }
#ifndef CAIRN_ENGINE_ENGINE_H_
#define CAIRN_ENGINE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine_options.h"
#include "engine/eviction.h"
#include "engine/model/model_config.h"
#include "engine/request.h"
#include "engine/text/tokenizer.h"
#include "parallel/comm/process_groups.h"
#include "parallel/shard/shard.h"

namespace cairn {

// Counters since Create, of this replica; kept by its leader.
struct EngineStats {
  int64_t steps = 0, prompt_tokens = 0, generated_tokens = 0;
  int64_t peak_running = 0, preemptions = 0;
  int64_t kv_blocks_total = 0, kv_blocks_peak = 0;  // of the tightest stage
  CacheCounters cache;                              // summed over finished requests
  int64_t recorded_steps = 0, replayed_steps = 0;   // decode steps of the leader's rank, on a GPU
  double busy_seconds = 0;
  double compression_seconds = 0;  // of the leader's rank, part of busy_seconds; on a GPU what the host spends on it
};

// One row per rank, for the start-up table and doctor.
struct RankInfo {
  int world_rank = 0;
  std::string host;
  RankCoordinates at;
  Range layers;
  int64_t weight_bytes = 0;
  int64_t kv_blocks = 0, kv_block_bytes = 0;
  int threads = 0;
  std::string device;
};

// What a replica's KV cache holds.
struct KvCapacity {
  int64_t tokens = 0;                 // of uncompressed sequences, in all
  double full_concurrency = 0;        // sequences of max_model_len tokens at once
  double compressed_concurrency = 0;  // the same, compressed, once their prompts are; 0 without compression
};

class Engine {
 public:
  // Collective over the world. Loads this rank's shard and sizes its cache. An error on any rank comes back on every
  // rank.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(const EngineOptions& options, ProcessGroups groups);
  // One process, one rank.
  static absl::StatusOr<std::unique_ptr<Engine>> CreateLocal(const EngineOptions& options);
  ~Engine();

  // --- the leader ---
  // INVALID_ARGUMENT / OUT_OF_RANGE for a request that can never run (bad field, duplicate id, too long for
  // max_model_len or for the cache); the message says by how much. Nothing is truncated.
  absl::Status Add(Request request);
  // Forgets a request at the next step; its output never comes.
  absl::Status Cancel(const std::string& id);
  bool HasWork() const;
  int64_t num_unfinished() const;  // requests added and not finished
  int64_t num_running() const;     // sequences that hold cache
  // Plans and runs one step (keeps up to pp micro-batches in flight). An error means that the job is over: abort the
  // world.
  absl::StatusOr<std::vector<RequestOutput>> Step();
  // What compactions have kept since the last call, over all ranks of the replica, in the order of steps; of steps
  // whose tokens have come. Empty unless EngineOptions::record_evictions.
  std::vector<Eviction> TakeEvictions();
  // Lets the other ranks' Serve return. Call once, when done.
  absl::Status Shutdown();

  // --- the others ---
  absl::Status Serve();

  const ModelConfig& model_config() const;
  const EngineOptions& options() const;  // with `auto` and 0 resolved
  const Tokenizer* tokenizer() const;    // null for a dummy model without one
  int64_t max_model_len() const;
  KvCapacity kv_capacity() const;
  EngineStats stats() const;
  // Collective results of Create: every rank of the world, on every rank.
  const std::vector<RankInfo>& ranks() const;
  bool is_leader() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace cairn

#endif  // CAIRN_ENGINE_ENGINE_H_
