// Decode steps recorded once and replayed. A step gives a GPU some ten kernels a layer, and with few sequences it is
// done with each before the host has given it the next; a recorded step (a CUDA graph) is given as one.
//
// A recording holds the addresses that its ops read and write, not what lies there. So what changes from step to step
// (whose block tables, how long each layer is) is written to addresses that never change, and neither growing sequences
// nor compaction invalidates a recording. There is one for each number of rows in a short list (a step fills up with
// rows of no sequence, which write nothing) and each power of two of attention's spans.
#ifndef CAIRN_KERNELS_OPS_DECODE_GRAPHS_H_
#define CAIRN_KERNELS_OPS_DECODE_GRAPHS_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/core/context.h"
#include "kernels/core/kv_view.h"

namespace cairn {

class DecodeGraphs {
 public:
  struct Shape {
    int num_layers = 0;
    int max_rows = 0;  // sequences of a step
    KvBlockLayout layout;
    uint8_t* pool = nullptr;
    const int32_t* device_tables = nullptr;  // the views' (KvView)
  };
  // `context`, on a GPU, is not owned. RESOURCE_EXHAUSTED where the tables do not fit.
  static absl::StatusOr<std::unique_ptr<DecodeGraphs>> Create(Context* context, const Shape& shape);
  virtual ~DecodeGraphs() = default;

  // Rows that a step of `rows` sequences is recorded with: 1, 2, 4, 8, 16, 24, 32, ..., at most max_rows.
  static int PaddedRows(int rows, int max_rows);

  // A step of one row for each of `rows` sequences, in order. Then, of every layer, the sequences' views, whose block
  // tables are on the device, and query rings (empty where there are none).
  virtual void Begin(int rows) = 0;
  virtual void SetLayer(int layer, absl::Span<const KvView> views, absl::Span<float* const> rings) = 0;

  // What gives the step's ops, for PaddedRows rows: `sequences` stand for those of any step of its kind; UseLayer says
  // of which layer the ops that follow are.
  using Ops = absl::FunctionRef<absl::Status(absl::Span<const SequenceRows> sequences)>;
  // The first time of its kind: does the ops and records them, which calls `ops` twice. Then replays them. An error of
  // `ops` comes back.
  virtual absl::Status Run(Ops ops) = 0;
  virtual void UseLayer(int layer) = 0;

  virtual int64_t num_recorded() const = 0;
  virtual int64_t num_replayed() const = 0;  // steps
};

}  // namespace cairn

#endif  // CAIRN_KERNELS_OPS_DECODE_GRAPHS_H_
