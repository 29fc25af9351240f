// The part of Engine that a batch drives on a replica's leader; tests put a fake in its place.
#ifndef CAIRN_LAUNCHER_BATCH_BATCH_ENGINE_H_
#define CAIRN_LAUNCHER_BATCH_BATCH_ENGINE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace cairn {

// As in engine/engine.h.
class BatchEngine {
 public:
  virtual ~BatchEngine() = default;
  virtual absl::Status Add(Request request) = 0;
  virtual absl::Status Cancel(const std::string& id) = 0;
  virtual absl::StatusOr<std::vector<RequestOutput>> Step() = 0;
  virtual bool HasWork() const = 0;
  virtual int64_t num_running() const = 0;
  virtual EngineStats stats() const = 0;
};

class RealBatchEngine : public BatchEngine {
 public:
  explicit RealBatchEngine(Engine& engine) : engine_(engine) {}
  absl::Status Add(Request request) override { return engine_.Add(std::move(request)); }
  absl::Status Cancel(const std::string& id) override { return engine_.Cancel(id); }
  absl::StatusOr<std::vector<RequestOutput>> Step() override { return engine_.Step(); }
  bool HasWork() const override { return engine_.HasWork(); }
  int64_t num_running() const override { return engine_.num_running(); }
  EngineStats stats() const override { return engine_.stats(); }

 private:
  Engine& engine_;
};

}  // namespace cairn

#endif  // CAIRN_LAUNCHER_BATCH_BATCH_ENGINE_H_
